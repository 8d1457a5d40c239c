"""How good a reward model is on held-out pairs: accuracy, calibration, bias towards length.

Letters: C pairs. `differences_C` are reward of the better completion minus reward of the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import StatisticsError, correlation
from typing import NamedTuple

from verifiers import JSON
from verifiers.stats import wilson_interval

BINS = 10


class Accuracy(NamedTuple):
    """Share of pairs in which the better completion has the higher reward, with its 95 % interval (Wilson)."""

    value: float
    low: float
    high: float


def pairwise_accuracy(differences_C: Sequence[float]) -> Accuracy:
    """Share of positive differences; equal rewards decide nothing and count as wrong (as JudgeBench counts them).

    Example:
        >>> pairwise_accuracy([0.5, 2.0, -1.0, 0.0]).value
        0.5
    """
    if not differences_C:
        return Accuracy(math.nan, 0.0, 1.0)
    right = sum(d > 0 for d in differences_C)
    interval = wilson_interval(right, len(differences_C))
    return Accuracy(right / len(differences_C), interval.low, interval.high)


class Bin(NamedTuple):
    """Pairs of like confidence: one bar of a reliability diagram."""

    low: float
    high: float
    pairs: int
    confidence: float
    """Mean of what the model claims."""
    accuracy: float
    """Share that it gets right."""


class Calibration(NamedTuple):
    """Whether the claimed chance is the share that comes true."""

    bins: list[Bin]
    error: float
    """Expected calibration error: mean |confidence - accuracy|, weighted by pairs."""


def calibration(differences_C: Sequence[float], *, bins: int = BINS) -> Calibration:
    """Confidence s(|d|), in [0.5, 1), against accuracy, in bins of equal width (Guo et al., arXiv:1706.04599, 2).

    Bradley-Terry claims that the completion with the higher reward wins with chance s(|d|), s the sigmoid.
    """
    width = 0.5 / bins
    found: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for difference in differences_C:
        confidence = 1 / (1 + math.exp(-min(abs(difference), 700.0)))
        found[min(bins - 1, int((confidence - 0.5) / width))].append((confidence, difference > 0))
    bars = [
        Bin(
            0.5 + place * width,
            0.5 + (place + 1) * width,
            len(held),
            sum(c for c, _ in held) / len(held),
            sum(r for _, r in held) / len(held),
        )
        for place, held in enumerate(found)
        if held
    ]
    total = max(1, len(differences_C))
    return Calibration(bars, sum(bar.pairs * abs(bar.confidence - bar.accuracy) for bar in bars) / total)


class LengthBias(NamedTuple):
    """How much of a verdict is length. Pairs of equal length are left out of the first three."""

    labels_prefer_longer: float
    """Share of pairs whose better completion is the longer one: what the data say."""
    model_prefers_longer: float
    """Share of pairs whose longer completion has the higher reward: what the model makes of it."""
    accuracy_when_shorter_is_better: float
    accuracy_when_longer_is_better: float
    correlation: float
    """Pearson's, of reward and tokens over all completions."""


def length_bias(rewards_C: Sequence[tuple[float, float]], lengths_C: Sequence[tuple[int, int]]) -> LengthBias:
    """Of (better, other) rewards and token counts."""
    longer, preferred = 0, 0
    right: dict[bool, list[bool]] = {True: [], False: []}
    for (better, other), (better_tokens, other_tokens) in zip(rewards_C, lengths_C, strict=True):
        if better_tokens == other_tokens:
            continue
        is_longer = better_tokens > other_tokens
        longer += is_longer
        preferred += (better > other) == is_longer
        right[is_longer].append(better > other)
    count = len(right[True]) + len(right[False])
    flat_rewards = [value for pair in rewards_C for value in pair]
    flat_lengths = [float(value) for pair in lengths_C for value in pair]
    try:
        related = correlation(flat_rewards, flat_lengths)
    except StatisticsError:  # fewer than two completions, or all alike
        related = 0.0
    return LengthBias(
        longer / count if count else math.nan,
        preferred / count if count else math.nan,
        sum(right[False]) / len(right[False]) if right[False] else math.nan,
        sum(right[True]) / len(right[True]) if right[True] else math.nan,
        related,
    )


def pair_report(
    rewards_C: Sequence[tuple[float, float]], lengths_C: Sequence[tuple[int, int]], categories_C: Sequence[str]
) -> dict[str, JSON]:
    """Everything above as JSON, ties already left out; accuracy by category where there are several."""
    differences_C = [better - other for better, other in rewards_C]
    found = calibration(differences_C)
    by_category: dict[str, list[float]] = {}
    for difference, category in zip(differences_C, categories_C, strict=True):
        by_category.setdefault(category, []).append(difference)
    return {
        "pairs": len(differences_C),
        "calibration_error": found.error,
        "reliability": [dict(bar._asdict()) for bar in found.bins],
        "length": {
            name: None if math.isnan(value) else value
            for name, value in length_bias(rewards_C, lengths_C)._asdict().items()
        },
        "by_category": {name: [len(held), *pairwise_accuracy(held)] for name, held in sorted(by_category.items())}
        if len(by_category) > 1
        else {},
    }
