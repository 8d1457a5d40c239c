"""Estimates of pass@k and maj@k, and confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from reasoner.records import Estimate
from verifiers.stats import wilson_interval

BOOTSTRAP_RESAMPLES = 2000


def pass_at_k(*, samples: int, correct: int, k: int) -> float:
    """Return the unbiased estimate of the probability that one of k samples is correct: 1 - C(n-c, k) / C(n, k).

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
    """Return the probability that the most common answer is correct, with ties broken at random.

    Self-consistency, arXiv:2203.11171. Samples without an answer do not vote. Answers are equal if their text, as
    extracted by the verifier, is equal. Without any vote the result is 0.

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
    """Return the mean over problems with a 95 % interval: Wilson for 0/1 values, otherwise bootstrap over problems.

    All three values are NaN without problems.
    """
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


def estimate_of_parts(values_by_part: Mapping[str, Sequence[float]], *, seed: int = 0) -> Estimate:
    """Return the unweighted mean of the parts' means, with a 95 % bootstrap interval over the problems of each part.

    Example:
        >>> estimate_of_parts({"a": [1.0], "b": [0.0, 0.0, 0.0]}).value
        0.5
    """
    parts = [np.asarray(values, dtype=np.float64) for values in values_by_part.values()]
    if not parts:
        return Estimate(float("nan"), float("nan"), float("nan"))
    generator = np.random.default_rng(seed)
    drawn = [one[generator.integers(0, len(one), (BOOTSTRAP_RESAMPLES, len(one)))].mean(axis=1) for one in parts]
    low, high = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
    return Estimate(float(np.mean([one.mean() for one in parts])), float(low), float(high))


def metric_names(samples: int) -> list[str]:
    """List the metrics that an evaluation with this many samples per problem can have, except verdict components.

    Example:
        >>> metric_names(1), metric_names(4)
        (['avg@1'], ['avg@4', 'pass@1', 'pass@2', 'pass@4', 'maj@4'])
    """
    several = [*(f"pass@{k}" for k in sample_counts(samples)), f"maj@{samples}"] if samples > 1 else []
    return [f"avg@{samples}", *several]


def is_metric(name: str, samples: int, *, sets: int = 1) -> bool:
    """Return True if an evaluation can have a metric of that name. Any component is accepted, and any set if sets > 1.

    Example:
        >>> is_metric("pass@2", 4), is_metric("gsm8k/avg@4", 4), is_metric("gsm8k/avg@4", 4, sets=2)
        (True, False, True)
    """
    plain = name
    if sets > 1 and "/" in name and not name.startswith("component/"):
        plain = name.partition("/")[2]
    return plain in (*metric_names(samples), "reward") or plain.startswith("component/")


def sample_counts(samples: int) -> list[int]:
    """Return the k for which pass@k is reported: powers of two up to the number of samples, and that number."""
    powers = [1 << i for i in range(samples.bit_length()) if 1 << i <= samples]
    return sorted({*powers, samples})
