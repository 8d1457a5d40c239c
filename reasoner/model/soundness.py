"""Checks that weights are plausible: finite, not huge, and not all zeros."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

LARGEST_WEIGHT = 1e6
"""Larger absolute values cannot result from training (our choice): weights of published models are below 1e3."""


@torch.no_grad()
def largest(tensors: Iterable[Tensor]) -> float:
    """Return the largest absolute value in floating-point tensors; NaN if one contains a NaN; 0 if there are none.

    For sharded tensors only this process's shard is read.
    """
    held = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    norms = [
        torch.linalg.vector_norm(tensor.detach(), ord=math.inf).float()
        for tensor in held
        if tensor.is_floating_point() and tensor.numel()
    ]
    return float(torch.stack(norms).max()) if norms else 0.0


def weights_fault(model: nn.Module) -> str | None:
    """Describe what is wrong with a loaded model's weights, as the end of a sentence; None if nothing is.

    All zeros count as damage only for matrices: biases and norms may be zero in some families. Shards and packed 4-bit
    weights are not checked.
    """
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point() or parameter.is_meta or isinstance(parameter, DTensor):
            continue
        size = largest([parameter])
        if not math.isfinite(size):
            bad = int((~torch.isfinite(parameter.detach())).sum())
            return f"{name} contains {bad} of {parameter.numel()} values that are not finite (NaN or infinite)"
        if size == 0 and parameter.ndim >= 2:
            return f"{name} contains only zeros"
    return None
