"""Sums and means over the trained tokens of each row, repeated at each of its tokens. Letters: B rows, N tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def row_sum(values_N: Tensor, row_N: Tensor, loss_mask_N: Tensor) -> Tensor:
    """Return [N] at each token the sum over its row's trained tokens, with gradient."""
    rows = int(row_N[-1]) + 1 if len(row_N) else 0
    kept_N = torch.where(loss_mask_N, values_N, 0.0)
    sums_B = torch.zeros(rows, dtype=values_N.dtype, device=values_N.device).index_add(0, row_N, kept_N)
    return sums_B[row_N]


def row_mean(values_N: Tensor, row_N: Tensor, loss_mask_N: Tensor) -> Tensor:
    """Return [N] at each token the mean over its row's trained tokens (0 if there are none), with gradient."""
    counts_N = row_sum(torch.ones_like(values_N), row_N, loss_mask_N)
    return row_sum(values_N, row_N, loss_mask_N) / counts_N.clamp(min=1)
