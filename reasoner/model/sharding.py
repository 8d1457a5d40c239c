"""Weights and optimizer states sharded over processes (FSDP2): shards and full tensors, read and written."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedType, fsdp2_prepare_model
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from reasoner.model.soundness import largest


def name_layers(scorer: torch.nn.Module, accelerator: Accelerator) -> None:
    """Tell accelerate which layers FSDP2 shards and gathers one by one, unless its config file names them.

    accelerate finds the layers of a transformers model itself, but not inside a module that wraps one.
    """
    plugin = accelerator.state.fsdp_plugin if accelerator.distributed_type == DistributedType.FSDP else None
    if plugin is not None and not os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP"):
        layers = [module for module in scorer.modules() if isinstance(module, GradientCheckpointingLayer)]
        plugin.transformer_cls_names_to_wrap = sorted({type(layer).__name__ for layer in layers})


def shards(accelerator: Accelerator) -> bool:
    """Return True if accelerate's settings shard models over the processes."""
    return accelerator.distributed_type == DistributedType.FSDP


def shard_frozen(module: torch.nn.Module, accelerator: Accelerator) -> torch.nn.Module:
    """Shard a module that is not trained, layer by layer like the policy."""
    return fsdp2_prepare_model(accelerator, module)


def free_gathered(module: torch.nn.Module) -> None:
    """Free the full weights that a forward pass without a backward one leaves on this process."""
    for one in module.modules():
        if isinstance(one, FSDPModule):
            one.reshard()


def stored_tensors(folder: Path) -> dict[str, Path]:
    """Return the file of each tensor in a folder's safetensors files; empty if there are none."""
    index, file = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        return {name: folder / part for name, part in json.loads(index.read_text())["weight_map"].items()}
    if not file.is_file():
        return {}
    with safe_open(file, framework="pt") as tensors:
        return dict.fromkeys(tensors.keys(), file)


@torch.no_grad()
def fill(parameters: Iterable[tuple[str, Tensor]], stored: Mapping[str, Path]) -> dict[str, float]:
    """Read parameters from safetensors files; of a sharded parameter only this process's rows are read.

    Args:
        parameters: names in the files, and parameters of the same shapes.
        stored: file of each tensor.
    Returns:
        Largest absolute value of what this process has of each parameter; NaN if it contains one.
    """
    sizes: dict[str, float] = {}
    for name, parameter in parameters:
        first, local = 0, parameter
        if isinstance(parameter, DTensor):
            first, local = _own_rows(parameter), parameter.to_local()
        if local.numel():  # of a parameter with few rows some processes have none
            # opened for each: an open file keeps the pages mapped that were read from it
            with safe_open(stored[name], framework="pt") as tensors:
                local.copy_(tensors.get_slice(name)[first : first + len(local)])
        sizes[name] = largest([local])
    return sizes


def _own_rows(tensor: DTensor) -> int:
    """Return the first row of this process's shard: FSDP2 gives each ceil(rows / processes), and the last ones less."""
    assert tensor.placements == (Shard(0),), tensor.placements
    mesh = tensor.device_mesh
    return min(tensor.shape[0], mesh.get_local_rank() * math.ceil(tensor.shape[0] / mesh.size()))


def own_share(tensors: Iterable[tuple[str, Tensor]], *, rank: int, count: int) -> dict[str, Tensor]:
    """Deal full tensors out to processes, each to the one with the fewest bytes so far; return this process's.

    They are on the CPU.
    """
    own: dict[str, Tensor] = {}
    sizes = [0] * count
    for name, tensor in tensors:
        taker = sizes.index(min(sizes))
        sizes[taker] += tensor.nbytes
        if taker == rank:
            own[name] = tensor.cpu()
    return own


def whole(tensor: Tensor) -> Tensor:
    """Return the full tensor. If it is sharded, every process must call this at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def spread_like(tensor: Tensor, held: Tensor) -> Tensor:
    """Shard a full tensor like another one; each process keeps its own shard and must call this at the same time."""
    if not isinstance(held, DTensor):
        return tensor
    return distribute_tensor(tensor.to(held.device, held.dtype), held.device_mesh, held.placements)


def whole_state(module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield `module.state_dict()` with full tensors. If sharded, every process must iterate over all of them."""
    return ((name, whole(tensor)) for name, tensor in module.state_dict().items())


def load_whole_state(module: torch.nn.Module, state: dict[str, Tensor]) -> None:
    """Call `module.load_state_dict(state)` with full tensors, also for a sharded module."""
    held = module.state_dict()
    module.load_state_dict({name: spread_like(tensor, held[name]) for name, tensor in state.items()})


def is_sharded(module: torch.nn.Module) -> bool:
    """Return True if any parameter is sharded over processes."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def whole_optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return `optimizer.state_dict()`; of sharded parameters without the state, which `optimizer_tensors` lists."""
    state = optimizer.state_dict()
    return state | {"state": {}} if is_sharded_state(state) else state


def is_sharded_state(state: Mapping[str, Any]) -> bool:
    """Return True if an optimizer's state contains a sharded tensor."""
    return any(isinstance(value, DTensor) for entry in state["state"].values() for value in entry.values())


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the tensors of the optimizer's state by `PLACE.NAME`, PLACE counting its parameters."""
    state = optimizer.state_dict()["state"]
    return {f"{place}.{name}": value for place, entry in state.items() for name, value in entry.items()}


def save_optimizer_shards(optimizer: torch.optim.Optimizer, folder: Path, group: dist.ProcessGroup | None) -> None:
    """Write the optimizer's tensors with torch.distributed.checkpoint, each process its shards, flushed to disk."""
    with _also_alone():
        save(optimizer_tensors(optimizer), checkpoint_id=folder, process_group=group)


@contextmanager
def _also_alone() -> Iterator[None]:
    """Silence the warning of torch.distributed.checkpoint that a single process has no process group."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def load_optimizer_shards(
    optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]], folder: Path, group: dist.ProcessGroup | None
) -> None:
    """Load what `save_optimizer_shards` wrote, on any number of processes.

    Args:
        optimizer: of the same parameters, sharded or not.
        groups: `param_groups` of the saved state.
        folder: where it lies.
        group: group of the processes for what they tell each other; None: torch's default.
    Raises:
        ValueError: a tensor is not finite.
    """
    parameters = [parameter for one in optimizer.param_groups for parameter in one["params"]]
    stored = FileSystemReader(folder).read_metadata().state_dict_metadata
    tensors: dict[str, Tensor] = {}
    for name, about in stored.items():
        if not isinstance(about, TensorStorageMetadata):
            raise ValueError(f"{name} of the optimizer's state is not a tensor")
        parameter = parameters[int(name.partition(".")[0])]
        dtype, size = about.properties.dtype, about.size
        tensors[name] = (
            torch.zeros_like(parameter, dtype=dtype) if size == parameter.shape else torch.zeros(size, dtype=dtype)
        )
    with _also_alone():
        load(tensors, checkpoint_id=folder, process_group=group)
    if not math.isfinite(largest(tensors.values())):
        raise ValueError("the optimizer's state is not finite")
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        place, _, kind = name.partition(".")
        state.setdefault(int(place), {})[kind] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def load_whole_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state of `whole_optimizer_state`; every process keeps its own shard."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    places = [place for group in state["param_groups"] for place in group["params"]]
    for place, parameter in zip(places, parameters, strict=True):
        entry: dict[str, Any] = state["state"].get(place, {})
        for name, value in entry.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entry[name] = spread_like(value, parameter)
    optimizer.load_state_dict(state)
