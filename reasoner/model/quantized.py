"""A frozen base in 4 bits under trained adapters: QLoRA (arXiv:2305.14314) through bitsandbytes.

The decoder's linear layers are held as NF4 with double quantisation; embeddings, norms and the output layer stay as
they are. Training, sampling and saving see one function: the weights that leave the trainer (to an engine, to a model
folder) are these 4-bit weights put back into numbers, never the ones that they were made from.

Used of bitsandbytes beyond its documented interface (read in 0.49 to 0.50): `weight.quant_state`, by which a 4-bit
layer is known and put back, and `Linear4bit.support_avx512bf16_for_cpu`.
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
    """What transformers loads by: NF4 and double quantisation (arXiv:2305.14314, section 3), computing in `dtype`.

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
    """Make a freshly loaded 4-bit model one that is saved, moved and run like any other."""
    forget_quantization(model)
    for module in model.modules():
        # on some CPUs bitsandbytes would repack a layer for inference at its first pass, and then compute in bfloat16
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  (no attribute of a module's type)
    return model


def quantized_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Name and module of every 4-bit layer."""
    return {
        name: module
        for name, module in model.named_modules()
        if not hasattr(module, "base_layer") and hasattr(getattr(module, "weight", None), "quant_state")
    }


def plain_weight(layer: nn.Module) -> Tensor:
    """The numbers that a 4-bit layer computes with, in the dtype that they were made from."""
    from bitsandbytes.functional import dequantize_4bit  # pyright: ignore[reportMissingImports]  (an extra)

    weight: Any = layer.weight
    return dequantize_4bit(weight.data, weight.quant_state)
