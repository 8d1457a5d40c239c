"""Corrections for the gap between engine and trainer log-probabilities. Letters: B rows, N tokens.

Each function takes log_gap_N = log trainer - log engine for the same weights and returns weights that multiply the
policy loss; the caller detaches them. They correct the gap between two implementations. Staleness of the weights is
corrected by the ratio in the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from reasoner.algorithm.row_sums import row_sum

_WHERE = "Fix algorithm.importance_options."


def none(log_gap_N: Tensor, row_N: Tensor, loss_mask_N: Tensor) -> Tensor:
    """Return weight 1 for every token: no correction."""
    return torch.ones_like(log_gap_N)


def truncated(log_gap_N: Tensor, row_N: Tensor, loss_mask_N: Tensor, *, cap: float = 2.0) -> Tensor:
    """Compute truncated importance sampling (TIS) per token: min(trainer / engine, cap).

    Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training", from which the cap of 2
    is taken.

    Raises:
        ValueError: cap is not above 0.
    """
    return torch.exp(log_gap_N).clamp(max=_positive(cap))


def truncated_sequence(log_gap_N: Tensor, row_N: Tensor, loss_mask_N: Tensor, *, cap: float = 2.0) -> Tensor:
    """Compute TIS with one weight per sequence: min(product of the ratios of its trained tokens, cap).

    Unbiased up to the cap. Its variance grows with length (Liu et al. 2025, "When Speed Kills Stability").

    Raises:
        ValueError: cap is not above 0.
    """
    return torch.exp(row_sum(log_gap_N, row_N, loss_mask_N)).clamp(max=_positive(cap))


def masked(log_gap_N: Tensor, row_N: Tensor, loss_mask_N: Tensor, *, low: float = 0.5, high: float = 5.0) -> Tensor:
    """Compute IcePop: a token's ratio if it lies in [low, high], otherwise 0 (Ling team, arXiv:2510.18855).

    Raises:
        ValueError: not 0 <= low < high.
    """
    if not 0 <= low < high:
        raise ValueError(f"low and high must satisfy 0 <= low < high; got {low} and {high}. {_WHERE}")
    ratio_N = torch.exp(log_gap_N)
    return torch.where((ratio_N >= low) & (ratio_N <= high), ratio_N, 0.0)


def masked_sequence(log_gap_N: Tensor, row_N: Tensor, loss_mask_N: Tensor, *, cap: float = 3.0) -> Tensor:
    """Compute sequence ratios (products over trained tokens), with those above cap set to 0 and the others kept.

    Liu et al. 2025, "When Speed Kills Stability" (sequence-level MIS).

    Raises:
        ValueError: cap is not above 0.
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
