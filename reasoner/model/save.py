"""Model folders in the format of transformers and vLLM: weights and config.json in one dtype."""

from __future__ import annotations

import copy
import json
import os
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

from reasoner.model.internals import checkpoint_names
from reasoner.model.paths import DTYPE_FILE, DTYPE_NAMES

DTYPES: Mapping[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}
_OF_FILES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def stored_dtype(path: str, config: PreTrainedConfig) -> torch.dtype:
    """Return the dtype in which a trained model is saved: that of its base's files.

    Args:
        path: folder or hub name of the base, or a checkpoint's model folder, which records the dtype.
        config: config read from there.
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
    """Return a dtype's name: float32, bfloat16, ..."""
    return str(dtype).removeprefix("torch.")


def cast(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Convert floating-point tensors to a dtype; integer tensors are unchanged."""
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


def config_in(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedConfig:
    """Copy a config with its dtype, and that of its parts, set to `dtype`."""
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
        model: model whose class and configs are written.
        tokenizer: tokenizer to write next to it.
        weights: tensors of the full model by Hugging Face name.
        folder: created if missing.
        dtype: dtype of the weights in the files, also written to config.json.
    """
    model.save_pretrained(folder, state_dict=cast(weights, dtype))
    config_in(model.config, dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_model_share(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    weights: Mapping[str, Tensor],
    folder: Path,
    dtype: torch.dtype,
    *,
    rank: int,
    count: int,
) -> None:
    """Write one process's part of the folder that `write_model` writes alone. The first also writes all but weights.

    Args:
        model, tokenizer, folder, dtype: as for `write_model`.
        weights: this process's tensors, from `own_share`.
        rank: of this process.
        count: of processes.
    """
    model_config = config_in(model.config, dtype)
    file = folder / f"model-{rank + 1:05d}-of-{count:05d}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, tensor in checkpoint_names(model.config, cast(weights, dtype).items()):
        tensors[name] = tensor.contiguous()
    save_file(tensors, file, metadata={"format": "pt"})
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if rank == 0:
        model_config = config_in(model.config, dtype)
        model_config.architectures = [type(model).__name__.removeprefix("FSDP")]
        model_config.save_pretrained(folder)
        if model.generation_config is not None:
            model.generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def write_index(folder: Path) -> None:
    """Write the index of a model's safetensors files, once all are written."""
    files = sorted(folder.glob("model-*-of-*.safetensors"))
    names: dict[str, str] = {}
    size = 0
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            names |= dict.fromkeys(tensors.keys(), file.name)
        size += file.stat().st_size
    index = {"metadata": {"total_size": size}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def settle_dtype(folder: Path, dtype: str | None) -> None:
    """Convert a model folder to a dtype in place. None: the dtype recorded in a checkpoint, else unchanged.

    Args:
        folder: contains model*.safetensors and config.json.
        dtype: a name in DTYPES, or None.
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
    """Set the dtype in a config.json and its parts."""
    found = {key: _naming(value, dtype) if isinstance(value, dict) else value for key, value in config.items()}
    if "model_type" in found:
        found.pop("torch_dtype", None)  # the key's former name
        found["dtype"] = dtype
    return found
