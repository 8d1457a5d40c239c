"""Full tensors from weights and optimizer states that are sharded over processes (FSDP2), and the reverse."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer


def name_layers(scorer: torch.nn.Module, accelerator: Accelerator) -> None:
    """Tell accelerate which layers FSDP2 shards and gathers one by one, unless its config file names them.

    accelerate finds the layers of a transformers model itself, but not inside a module that wraps one.
    """
    plugin = accelerator.state.fsdp_plugin if accelerator.distributed_type == DistributedType.FSDP else None
    if plugin is not None and not os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP"):
        layers = [module for module in scorer.modules() if isinstance(module, GradientCheckpointingLayer)]
        plugin.transformer_cls_names_to_wrap = sorted({type(layer).__name__ for layer in layers})


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
    """Return `optimizer.state_dict()`, with sharded tensors gathered to full ones on the CPU."""
    state = optimizer.state_dict()
    return state | {
        "state": {  # new dicts, because those of `state_dict` belong to the optimizer
            place: {name: whole(value).cpu() if isinstance(value, DTensor) else value for name, value in entry.items()}
            for place, entry in state["state"].items()
        }
    }


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
