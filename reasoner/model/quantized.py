"""A frozen base model in 4 bits under trained adapters: QLoRA (arXiv:2305.14314) through bitsandbytes.

The decoder's linear layers are stored as NF4 with double quantization; embeddings, norms and output layer are not
quantized. Training, sampling and saving use the same function: the weights that leave the trainer (to an engine or a
model folder) are the dequantized 4-bit weights, never the original ones.

Private parts of bitsandbytes used here (checked in versions 0.49 to 0.50): `weight.quant_state`, which marks a 4-bit
layer and is needed to dequantize it, and `Linear4bit.support_avx512bf16_for_cpu`.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from reasoner.model.internals import forget_quantization

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig


def bits_config(dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return transformers' loading options for NF4 with double quantization (arXiv:2305.14314, section 3).

    Computation is in `dtype`.

    Raises:
        ImportError: bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError("bitsandbytes is not installed")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def settle(model: PreTrainedModel) -> PreTrainedModel:
    """Make a newly loaded 4-bit model behave like any other in saving, moving and running."""
    forget_quantization(model)
    for module in model.modules():
        # on some CPUs bitsandbytes would repack a layer for inference in its first pass, and then compute in bfloat16
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  (no attribute of a module's type)
    return model


def quantized_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return name and module of every 4-bit layer."""
    return {
        name: module
        for name, module in model.named_modules()
        if not hasattr(module, "base_layer") and hasattr(getattr(module, "weight", None), "quant_state")
    }


def plain_weight(layer: nn.Module) -> Tensor:
    """Dequantize the weight of a 4-bit layer, in its original dtype."""
    from bitsandbytes.functional import dequantize_4bit  # pyright: ignore[reportMissingImports]  (an extra)

    weight: Any = layer.weight
    return dequantize_4bit(weight.data, weight.quant_state)
