"""What is used of transformers beyond its documented interface (read in 5.16 to 5.19); no other module touches it.

- `config._attn_implementation`: the attention that a model's layers look up. `set_attn_implementation` writes it;
  nothing public reads it.
- `past_key_values.layers[i].keys` and `.values`: keys and values after a forward pass.
- `model.hf_quantizer`, `model.hf_device_map` and `config.quantization_config`: by these `save_pretrained` and `to` know
  a quantized model.
- `core_model_loading.revert_weight_conversion`, `conversion_mapping.get_checkpoint_conversion_mapping`: the names that
  checkpoints have, which differ from the model's own where it holds the experts of a layer in one tensor.

`tests/unit/test_private_names.py` says what to do where one of them is gone.
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
    """The name of the attention that the model's layers run, as `AttentionInterface` knows it."""
    return model.config._attn_implementation


def keys_and_values(cache: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """[rows, heads, L, D] keys and values of each layer in the cache of a forward pass."""
    return ((layer.keys, layer.values) for layer in cache.layers)


def checkpoint_names(config: PretrainedConfig, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """A model's weights under the names of its checkpoints, which other libraries read."""
    if not any(map(get_checkpoint_conversion_mapping, (config.model_type, *(config.architectures or ())))):
        yield from weights
        return
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    for name, tensor in weights:
        yield from revert_weight_conversion(model, {name: tensor}).items()


def forget_quantization(model: Any) -> None:
    """Let a quantized model be saved and moved like any other: whoever saves it saves plain weights."""
    model.hf_quantizer = None
    del model.config.quantization_config
    vars(model).pop("hf_device_map", None)
