"""Weights and optimizer states that are sharded over processes (FSDP2), whole again for files and engines."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """The full tensor; where it is sharded, every process must ask for it at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_sharded(module: torch.nn.Module) -> bool:
    """Whether any parameter is spread over processes."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def whole_optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """`optimizer.state_dict()` with full tensors on the CPU where they are sharded."""
    state = optimizer.state_dict()
    for entry in state["state"].values():
        for name, value in entry.items():
            if isinstance(value, DTensor):
                entry[name] = whole(value).cpu()
    return state


def load_whole_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The inverse of `whole_optimizer_state`: every process keeps its own shard."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    places = [place for group in state["param_groups"] for place in group["params"]]
    for place, parameter in zip(places, parameters, strict=True):
        if not isinstance(parameter, DTensor):
            continue
        entry = cast("dict[str, Tensor]", state["state"].get(place, {}))
        for name, value in entry.items():
            if value.shape == parameter.shape:
                spread = value.to(parameter.device)
                entry[name] = distribute_tensor(spread, parameter.device_mesh, parameter.placements)
    optimizer.load_state_dict(state)


__all__ = ["is_sharded", "load_whole_optimizer_state", "whole", "whole_optimizer_state"]
