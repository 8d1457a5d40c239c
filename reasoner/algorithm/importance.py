"""Corrections of the gap between the engine that sampled and the trainer that learns. Letters: B rows, N tokens.

Each takes log_gap_N = log trainer - log engine of the same weights, and gives detached weights that multiply the policy
loss. They correct the gap between two implementations; the ratio of the loss corrects staleness of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from reasoner.algorithm.row_sums import row_sum

_WHERE = "Mend algorithm.importance_options."


def none(log_gap_N: Tensor, row_N: Tensor, loss_mask_N: Tensor) -> Tensor:
    """Weight 1: the gap is left uncorrected."""
    return torch.ones_like(log_gap_N)


def truncated(log_gap_N: Tensor, row_N: Tensor, loss_mask_N: Tensor, *, cap: float = 2.0) -> Tensor:
    """Truncated importance sampling (TIS): min(trainer / engine, cap) a token.

    Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training"; the cap of 2 is theirs.
    """
    return torch.exp(log_gap_N).clamp(max=_positive(cap))


def truncated_sequence(log_gap_N: Tensor, row_N: Tensor, loss_mask_N: Tensor, *, cap: float = 2.0) -> Tensor:
    """TIS with one weight a sequence: min(product of the ratios of its trained tokens, cap).

    Unbiased up to the cap; its variance grows with length (Liu et al. 2025, "When Speed Kills Stability").
    """
    return torch.exp(row_sum(log_gap_N, row_N, loss_mask_N)).clamp(max=_positive(cap))


def masked(log_gap_N: Tensor, row_N: Tensor, loss_mask_N: Tensor, *, low: float = 0.5, high: float = 5.0) -> Tensor:
    """IcePop: the ratio of a token where it lies in [low, high], otherwise 0 (Ling team, arXiv:2510.18855)."""
    if not 0 <= low < high:
        raise ValueError(f"low and high must hold 0 <= low < high; got {low} and {high}. {_WHERE}")
    ratio_N = torch.exp(log_gap_N)
    return torch.where((ratio_N >= low) & (ratio_N <= high), ratio_N, 0.0)


def masked_sequence(log_gap_N: Tensor, row_N: Tensor, loss_mask_N: Tensor, *, cap: float = 3.0) -> Tensor:
    """Sequences whose ratio (product over trained tokens) exceeds cap are left out, the others keep that ratio.

    Liu et al. 2025, "When Speed Kills Stability" (sequence-level MIS).
    """
    ratio_N = torch.exp(row_sum(log_gap_N, row_N, loss_mask_N))
    return torch.where(ratio_N <= _positive(cap), ratio_N, 0.0)


def _positive(cap: float) -> float:
    if not cap > 0:
        raise ValueError(f"cap must be above 0; got {cap}. {_WHERE}")
    return cap


IMPORTANCE: Mapping[str, Callable[..., Tensor]] = {
    "none": none,
    "truncated": truncated,
    "truncated_sequence": truncated_sequence,
    "masked": masked,
    "masked_sequence": masked_sequence,
}
