"""Advantages and rewards of one group or one row, on lists of numbers, without torch.

Letters: G group, T tokens of a row.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

SIGNAL_THRESHOLD = 1e-6
"""A group whose rewards span less than this has no signal (ours): far above float32 noise on rewards of order 1,
far below any difference that a verifier means. Dividing by the std of such noise makes huge advantages."""


def group_signal(rewards_G: Sequence[float]) -> bool:
    """True where a group's rewards differ by more than SIGNAL_THRESHOLD: the others teach nothing.

    Example:
        >>> group_signal([1.0, 0.0]), group_signal([0.1, 0.1 + 1e-9]), group_signal([])
        (True, False, False)
    """
    return bool(rewards_G) and max(rewards_G) - min(rewards_G) > SIGNAL_THRESHOLD


def group_advantages(rewards_G: Sequence[float], *, scale_by_std: bool = False) -> list[float]:
    """Centre rewards within one group: A_i = r_i - mean(r), optionally divided by std(r) + 1e-6.

    The std is the population std (ddof=0, our choice). A group without signal (`group_signal`) gives all zeros.

    Args:
        rewards_G: one reward per rollout of the same prompt; ungraded rollouts already removed.
        scale_by_std: True for GRPO (arXiv:2402.03300, section 4.1.2); False for Dr. GRPO (arXiv:2503.20783,
            section 3.2).
    Returns:
        [G] advantages, in input order.
    Raises:
        ValueError: if rewards_G is empty or holds a non-finite value.

    Example:
        >>> group_advantages([1.0, 0.0, 0.0, 1.0])
        [0.5, -0.5, -0.5, 0.5]
    """
    _check_rewards(rewards_G)
    if not group_signal(rewards_G):
        return [0.0] * len(rewards_G)
    mean = statistics.fmean(rewards_G)
    scale = statistics.pstdev(rewards_G) + 1e-6 if scale_by_std else 1.0
    return [(reward - mean) / scale for reward in rewards_G]


def leave_one_out_advantages(rewards_G: Sequence[float]) -> list[float]:
    """A_i = r_i - mean of the other rewards = G / (G - 1) * (r_i - mean(r)): RLOO.

    Ahmadian et al., arXiv:2402.14740, section 2 (equation 8 in v1). A lone rollout has no baseline: 0.

    Example:
        >>> leave_one_out_advantages([1.0, 0.0, 0.0])
        [1.0, -0.5, -0.5]
    """
    _check_rewards(rewards_G)
    count = len(rewards_G)
    if count == 1 or not group_signal(rewards_G):
        return [0.0] * count
    total = sum(rewards_G)
    return [reward - (total - reward) / (count - 1) for reward in rewards_G]


def rejection_advantages(rewards_G: Sequence[float], *, threshold: float = 1.0) -> list[float]:
    """1 where the reward reaches the threshold, else 0: RAFT / rejection sampling (arXiv:2304.06767)."""
    return [float(reward >= threshold) for reward in rewards_G]


GROUP_ADVANTAGES: Mapping[str, Callable[..., list[float]]] = {
    "grpo": partial(group_advantages, scale_by_std=True),
    "dr_grpo": group_advantages,
    "rloo": leave_one_out_advantages,
    "rejection": rejection_advantages,
}
"""The estimators that need the rewards of one group alone: `by_group` in reasoner/config/estimators.py."""


class GaeResult(NamedTuple):
    """[T] advantages and [T] value targets of one row."""

    advantages: list[float]
    returns: list[float]


def gae_row(rewards_T: Sequence[float], values_T: Sequence[float], *, gamma: float, lam: float) -> GaeResult:
    """Generalized advantage estimation over one completion: arXiv:1506.02438, equations 11 to 16.

    delta_t = r_t + gamma * V_{t+1} - V_t with V after the last token 0 (the completion ends its problem);
    A_t = delta_t + gamma * lam * A_{t+1}; returns_t = A_t + V_t.

    Example:
        >>> gae_row([0.0, 1.0], [0.5, 0.5], gamma=1.0, lam=1.0)
        GaeResult(advantages=[0.5, 0.5], returns=[1.0, 1.0])
    """
    advantages = [0.0] * len(rewards_T)
    following_advantage = following_value = 0.0
    for t in reversed(range(len(rewards_T))):
        delta = rewards_T[t] + gamma * following_value - values_T[t]
        following_advantage = delta + gamma * lam * following_advantage
        following_value = values_T[t]
        advantages[t] = following_advantage
    return GaeResult(advantages, [a + v for a, v in zip(advantages, values_T, strict=True)])


def overlong_penalty(length: int, *, max_tokens: int, penalty_tokens: int) -> float:
    """DAPO's soft overlong penalty, in [-1, 0]: arXiv:2503.14476, equation 13.

    0 up to max_tokens - penalty_tokens, then falling linearly to -1 at max_tokens.

    Example:
        >>> overlong_penalty(95, max_tokens=100, penalty_tokens=10)
        -0.5
    """
    if not 0 < penalty_tokens <= max_tokens:
        raise ValueError(f"penalty_tokens must be in 1 .. max_tokens; got {penalty_tokens} of {max_tokens}.")
    over = length - (max_tokens - penalty_tokens)
    return -min(1.0, max(0.0, over / penalty_tokens))


def _check_rewards(rewards_G: Sequence[float]) -> None:
    if not rewards_G:
        raise ValueError("rewards_G must not be empty; got no reward.")
    if not all(abs(reward) < float("inf") for reward in rewards_G):
        raise ValueError(f"rewards_G must be finite; got {list(rewards_G)}.")
