"""Model folders as transformers and vLLM read them: weights and config.json in one dtype."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner.model.paths import DTYPE_FILE, DTYPE_NAMES

DTYPES: Mapping[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}
_OF_FILES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def stored_dtype(path: str, config: PreTrainedConfig) -> torch.dtype:
    """The dtype in which a trained model is saved: that of the files of its base.

    Args:
        path: folder or hub name of the base, or a checkpoint's model folder, which says it.
        config: as read from there.
    """
    noted = Path(path) / DTYPE_FILE
    if noted.is_file():
        return DTYPES.get(noted.read_text().strip(), torch.float32)
    named = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    dtype = named if isinstance(named, torch.dtype) else DTYPES.get(str(named))
    if dtype is None and (file := next(iter(sorted(Path(path).glob("*.safetensors"))), None)) is not None:
        with safe_open(file, framework="pt") as tensors:
            dtype = _OF_FILES.get(tensors.get_slice(next(iter(tensors.keys()))).get_dtype())
    return dtype if dtype is not None and dtype in DTYPES.values() else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """float32, bfloat16, ..."""
    return str(dtype).removeprefix("torch.")


def cast(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Numbers in a dtype; whole numbers as they are."""
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


def config_in(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedConfig:
    """A copy of a config that names a dtype, in its parts too."""
    found = copy.deepcopy(config)
    for part in (found, *(getattr(found, name, None) for name in found.sub_configs)):
        if isinstance(part, PreTrainedConfig):
            part.dtype = dtype_name(dtype)
    return found


def write_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    weights: Mapping[str, Tensor],
    folder: Path,
    dtype: torch.dtype,
) -> None:
    """Write a plain Hugging Face folder: model, config, generation config and tokenizer.

    Args:
        model: whose class and configs.
        tokenizer: written beside it.
        weights: by Hugging Face name, of the full model.
        folder: created where it is not there.
        dtype: of the weights in the files, and in config.json.
    """
    model.save_pretrained(folder, state_dict=cast(weights, dtype))
    config_in(model.config, dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def settle_dtype(folder: Path, dtype: str | None) -> None:
    """Bring a model folder to a dtype, in place; None: to the one that a checkpoint notes, or as it is.

    Args:
        folder: with model*.safetensors and config.json.
        dtype: a name of DTYPES.
    """
    noted = folder / DTYPE_FILE
    if noted.is_file():
        dtype = dtype or noted.read_text().strip()
        noted.unlink()
    if dtype is None:
        return
    size = 0
    for file in sorted(folder.glob("model*.safetensors")):
        weights = cast(load_file(file), DTYPES[dtype])
        size += sum(tensor.nbytes for tensor in weights.values())
        save_file(weights, file, metadata={"format": "pt"})
    config = folder / "config.json"
    config.write_text(json.dumps(_naming(json.loads(config.read_text()), dtype), indent=2) + "\n")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        listed = json.loads(index.read_text())
        listed["metadata"] = {**listed.get("metadata", {}), "total_size": size}
        index.write_text(json.dumps(listed, indent=2) + "\n")


def _naming(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """A config.json that names a dtype, in its parts too."""
    found = {key: _naming(value, dtype) if isinstance(value, dict) else value for key, value in config.items()}
    if "model_type" in found:
        found.pop("torch_dtype", None)  # its former name
        found["dtype"] = dtype
    return found
