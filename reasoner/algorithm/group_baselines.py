"""Advantages and rewards of one group or one row, computed on lists of numbers without torch.

Letters: G group, T tokens of a row.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

SIGNAL_THRESHOLD = 1e-6
"""A group whose rewards span no more than this has no signal (our choice): far above float32 noise on rewards of order
1, far below any difference that a verifier intends. Dividing by the std of such noise would give huge advantages."""


def group_signal(rewards_G: Sequence[float]) -> bool:
    """Return True if a group's rewards differ by more than SIGNAL_THRESHOLD; other groups give no gradient.

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
        ValueError: rewards_G is empty or contains a non-finite value.

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
    """Compute RLOO advantages: A_i = r_i - mean of the other rewards = G / (G - 1) * (r_i - mean(r)).

    Ahmadian et al., arXiv:2402.14740, section 2 (equation 8 in v1). A single rollout has no baseline and gets 0.

    Raises:
        ValueError: rewards_G is empty or contains a non-finite value.

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


class Term(NamedTuple):
    """One component of a reward, with its weight in the sum."""

    weight: float
    value: float


def terms_of(reward: float, *, components: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, Term]:
    """Split a verdict's reward into weighted components. Without weights the whole reward is one component of weight 1.

    Example:
        >>> terms_of(1.2, components={"math": 1.0, "format": 1.0}, weights={"math": 1.0, "format": 0.2})
        {'math': Term(weight=1.0, value=1.0), 'format': Term(weight=0.2, value=1.0)}
    """
    if not weights:
        return {"": Term(1.0, reward)}
    return {name: Term(weight, components[name]) for name, weight in weights.items()}


def normalized_sums(terms_G: Sequence[Mapping[str, Term]]) -> list[float]:
    """Compute GDPO rewards: each component centred and divided by its std within the group, then summed by weight.

    R_i = sum_k w_k * (r_ik - mean_G(r_k)) / (std_G(r_k) + 1e-6), with the population std (Liu et al., arXiv:2601.05242,
    section 3.1; TRL's `normalize_then_sum` with the sample std + 1e-4). Thus a component's influence depends only on
    its weight, not on the spread of its values. Rollouts with the same sum but different components keep different
    advantages. The paper's later normalization over the batch is the estimator `reinforce_pp_baseline`. A component
    without signal in the group (`group_signal`) adds 0.

    Args:
        terms_G: components by name of each graded rollout of one prompt; a missing component counts as 0.
    Returns:
        [G] rewards, centred on 0.
    Raises:
        ValueError: terms_G is empty or contains a non-finite value.

    Example:
        >>> exact, short = [1.0, 1.0, 0.0, 0.0], [0.1, 0.0, 0.1, 0.0]
        >>> sums = normalized_sums([{"exact": Term(1.0, a), "short": Term(0.5, b)} for a, b in zip(exact, short)])
        >>> [round(value, 3) for value in sums]
        [1.5, 0.5, -0.5, -1.5]
    """
    names = dict.fromkeys(name for terms in terms_G for name in terms)
    absent = Term(0.0, 0.0)
    totals = [0.0] * len(terms_G)
    for name in names:
        column = [terms.get(name, absent) for terms in terms_G]
        scaled = group_advantages([term.value for term in column], scale_by_std=True)
        totals = [total + term.weight * value for total, term, value in zip(totals, column, scaled, strict=True)]
    return totals


def rejection_advantages(rewards_G: Sequence[float], *, threshold: float = 1.0) -> list[float]:
    """Return 1 for each reward that reaches the threshold, else 0: RAFT / rejection sampling (arXiv:2304.06767)."""
    return [float(reward >= threshold) for reward in rewards_G]


GROUP_ADVANTAGES: Mapping[str, Callable[..., list[float]]] = {
    "grpo": partial(group_advantages, scale_by_std=True),
    "dr_grpo": group_advantages,
    "rloo": leave_one_out_advantages,
    "rejection": rejection_advantages,
}
"""Estimators that need only the rewards of one group: `by_group` in reasoner/config/estimators.py."""


class GaeResult(NamedTuple):
    """Advantages [T] and value targets [T] of one row."""

    advantages: list[float]
    returns: list[float]


def gae_row(rewards_T: Sequence[float], values_T: Sequence[float], *, gamma: float, lam: float) -> GaeResult:
    """Compute generalized advantage estimation (GAE) over one completion: arXiv:1506.02438, equations 11 to 16.

    delta_t = r_t + gamma * V_{t+1} - V_t, where V after the last token is 0 (the completion ends its problem);
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
    """Return DAPO's soft overlong penalty, in [-1, 0]: arXiv:2503.14476, equation 13.

    It is 0 up to max_tokens - penalty_tokens, then falls linearly to -1 at max_tokens.

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
