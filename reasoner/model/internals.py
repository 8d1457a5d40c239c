"""Private parts of transformers used here (checked in versions 5.16 to 5.19); no other module touches any.

- `config._attn_implementation`: name of the attention that a model's layers look up. `set_attn_implementation` writes
  it; nothing public reads it.
- `past_key_values.layers[i].keys` and `.values`: keys and values after a forward pass.
- `model.hf_quantizer`, `model.hf_device_map` and `config.quantization_config`: how `save_pretrained` and `to` recognize
  a quantized model.
- `core_model_loading.revert_weight_conversion`, `conversion_mapping.get_checkpoint_conversion_mapping`: tensor names in
  checkpoints. They differ from the model's own if it stores the experts of a layer in one tensor.

`tests/unit/test_private_names.py` says what to do if one of them is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import PreTrainedModel


def attention_of(model: PreTrainedModel) -> str | None:
    """Return the name of the attention that the model's layers use, as in `AttentionInterface`."""
    return model.config._attn_implementation


def keys_and_values(cache: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Return [rows, heads, L, D] keys and values of each layer in the cache of a forward pass."""
    return ((layer.keys, layer.values) for layer in cache.layers)


def checkpoint_names(config: PretrainedConfig, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield a model's weights under their checkpoint names, which other libraries expect."""
    if not any(map(get_checkpoint_conversion_mapping, (config.model_type, *(config.architectures or ())))):
        yield from weights
        return
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    for name, tensor in weights:
        yield from revert_weight_conversion(model, {name: tensor}).items()


def forget_quantization(model: Any) -> None:
    """Remove the marks of quantization, so that the model can be saved (as plain weights only) and moved."""
    model.hf_quantizer = None
    del model.config.quantization_config
    vars(model).pop("hf_device_map", None)
