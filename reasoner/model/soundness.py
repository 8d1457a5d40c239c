"""Whether weights are sound: finite, of a size that a transformer has, and there at all."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

LARGEST_WEIGHT = 1e6
"""Absolute value above which a weight is no result of training (ours): those of published models stay below 1e3."""


@torch.no_grad()
def largest(tensors: Iterable[Tensor]) -> float:
    """The largest absolute value in floating-point tensors, NaN where one holds a NaN; 0 where there are none.

    Of sharded tensors this process's part.
    """
    held = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    norms = [
        torch.linalg.vector_norm(tensor.detach(), ord=math.inf).float()
        for tensor in held
        if tensor.is_floating_point() and tensor.numel()
    ]
    return float(torch.stack(norms).max()) if norms else 0.0


def weights_fault(model: nn.Module) -> str | None:
    """What is wrong with a model's weights as loaded, in a sentence's end; None where they are sound.

    Matrices alone may not be all zeros: biases and norms of some families are. Shards and packed 4-bit weights are not
    looked at.
    """
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point() or parameter.is_meta or isinstance(parameter, DTensor):
            continue
        size = largest([parameter])
        if not math.isfinite(size):
            bad = int((~torch.isfinite(parameter.detach())).sum())
            return f"{name} holds {bad} of {parameter.numel()} values that are not finite (NaN or infinite)"
        if size == 0 and parameter.ndim >= 2:
            return f"{name} holds zeros alone"
    return None
