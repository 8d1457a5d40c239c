"""pass@k, maj@k and their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from reasoner.records import Estimate
from verifiers.stats import wilson_interval

BOOTSTRAP_RESAMPLES = 2000


def pass_at_k(*, samples: int, correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k samples is right: 1 - C(n-c, k) / C(n, k).

    Chen et al., arXiv:2107.03374, equation 1.

    Raises:
        ValueError: k is not in 1 .. samples.

    Example:
        >>> pass_at_k(samples=4, correct=1, k=2)
        0.5
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k must be between 1 and the number of samples; got {k} of {samples}.")
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def maj_at_k(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Chance that the commonest answer is right, ties broken at random (self-consistency, arXiv:2203.11171).

    Samples without an answer do not vote. Equal answers are told by their text as the verifier extracted it.

    Example:
        >>> maj_at_k(["4", "4", "5", None], [True, True, False, False])
        1.0
    """
    votes: dict[str, list[bool]] = {}
    for answer, right in zip(answers, correct, strict=True):
        if answer is not None:
            votes.setdefault(answer, []).append(right)
    if not votes:
        return 0.0
    most = max(len(group) for group in votes.values())
    winners = [group for group in votes.values() if len(group) == most]
    return sum(sum(group) / len(group) for group in winners) / len(winners)


def estimate(values_P: Sequence[float], *, seed: int = 0) -> Estimate:
    """Mean over problems with a 95 % interval: Wilson for 0/1 values, otherwise a bootstrap over problems."""
    if not values_P:
        return Estimate(float("nan"), float("nan"), float("nan"))
    values = np.asarray(values_P, dtype=np.float64)
    mean = float(values.mean())
    if set(values.tolist()) <= {0.0, 1.0}:
        interval = wilson_interval(int(values.sum()), len(values))
        return Estimate(mean, interval[0], interval[1])
    generator = np.random.default_rng(seed)
    means = [values[generator.integers(0, len(values), len(values))].mean() for _ in range(BOOTSTRAP_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(mean, float(low), float(high))
