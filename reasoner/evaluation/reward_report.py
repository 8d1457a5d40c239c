"""Quality of a reward model on held-out pairs: accuracy, calibration, length bias.

Letters: C pairs. `differences_C` are the reward of the better completion minus that of the other.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from statistics import StatisticsError, correlation
from typing import NamedTuple

from verifiers import JSON
from verifiers.stats import length_controlled, wilson_interval

BINS = 10


class Accuracy(NamedTuple):
    """Share of pairs in which the better completion has the higher reward, with its 95 % interval (Wilson)."""

    value: float
    low: float
    high: float


def pairwise_accuracy(differences_C: Sequence[float]) -> Accuracy:
    """Return the share of positive differences. Equal rewards count as wrong (as in JudgeBench).

    Example:
        >>> pairwise_accuracy([0.5, 2.0, -1.0, 0.0]).value
        0.5
    """
    if not differences_C:
        return Accuracy(math.nan, 0.0, 1.0)
    right = sum(d > 0 for d in differences_C)
    interval = wilson_interval(right, len(differences_C))
    return Accuracy(right / len(differences_C), interval.low, interval.high)


def separation(better: Sequence[float], worse: Sequence[float]) -> Accuracy:
    """Return the chance that one of `better` is above one of `worse` (AUC; a tie is one half), with a 95 % interval.

    The interval is Wilson's for as many trials as the smaller group has: the variance of the AUC is at most
    AUC (1 - AUC) / min(number of better, number of worse) (Birnbaum and Klose 1957), so that it is never too narrow.

    Example:
        >>> separation([2.0, 1.0], [0.0, 1.0]).value
        0.875
    """
    if not better or not worse:
        return Accuracy(math.nan, 0.0, 1.0)
    below = sorted(worse)
    wins = sum(bisect_left(below, value) + bisect_right(below, value) for value in better) / 2
    share, trials = wins / (len(better) * len(worse)), min(len(better), len(worse))
    return Accuracy(share, *wilson_interval(share * trials, trials))


class Bin(NamedTuple):
    """Pairs of similar confidence: one bar of a reliability diagram."""

    low: float
    high: float
    pairs: int
    confidence: float
    """Mean confidence of the model in its preferences."""
    accuracy: float
    """Share of pairs that the model ranks correctly."""


class Calibration(NamedTuple):
    """Comparison of the model's confidence with its accuracy."""

    bins: list[Bin]
    error: float
    """Expected calibration error: mean |confidence - accuracy|, weighted by pairs."""


def calibration(differences_C: Sequence[float], *, bins: int = BINS) -> Calibration:
    """Compare confidence s(|d|), in [0.5, 1), with accuracy, in bins of equal width (Guo et al., arXiv:1706.04599, 2).

    Under Bradley-Terry the completion with the higher reward wins with probability s(|d|), s the sigmoid.
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
    """Influence of length on a reward model's preferences. The first four ignore pairs of equal length."""

    labels_prefer_longer: float
    """Share of pairs in which the better completion is the longer one, according to the labels."""
    model_prefers_longer: float
    """Share of pairs in which the longer completion has the higher reward."""
    accuracy_when_shorter_is_better: float
    accuracy_when_longer_is_better: float
    accuracy_at_equal_length: tuple[float, float, float] | None
    """Accuracy over all pairs as it would be at equal length, with its 95 % interval (`length_controlled`)."""
    correlation: float
    """Pearson correlation of reward and token count over all completions; 0 if undefined."""


def length_bias(rewards_C: Sequence[tuple[float, float]], lengths_C: Sequence[tuple[int, int]]) -> LengthBias:
    """Compute the length bias from (better, other) rewards and token counts."""
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
    equal = length_controlled(
        [float(better > other) for better, other in rewards_C], [better - other for better, other in lengths_C]
    )
    flat_rewards = [value for pair in rewards_C for value in pair]
    flat_lengths = [float(value) for pair in lengths_C for value in pair]
    try:
        related = correlation(flat_rewards, flat_lengths)
    except StatisticsError:  # fewer than two completions, or all equal
        related = 0.0
    return LengthBias(
        longer / count if count else math.nan,
        preferred / count if count else math.nan,
        sum(right[False]) / len(right[False]) if right[False] else math.nan,
        sum(right[True]) / len(right[True]) if right[True] else math.nan,
        None if equal is None else (equal.value, equal.low, equal.high),
        related,
    )


def pair_report(
    rewards_C: Sequence[tuple[float, float]], lengths_C: Sequence[tuple[int, int]], categories_C: Sequence[str]
) -> dict[str, JSON]:
    """Return the report as JSON: calibration, reliability, length bias, and accuracy by category if there are several.

    Pairs labelled as ties must be left out by the caller.

    Args:
        rewards_C: [C] rewards (better, other).
        lengths_C: [C] token counts (better, other).
        categories_C: [C] category of each pair.
    """
    differences_C = [better - other for better, other in rewards_C]
    found = calibration(differences_C)
    by_category: dict[str, list[float]] = {}
    for difference, category in zip(differences_C, categories_C, strict=True):
        by_category.setdefault(category, []).append(difference)
    return {
        "pairs": len(differences_C),
        "calibration_error": found.error,
        "reliability": [dict(bar._asdict()) for bar in found.bins],
        "length": _as_json(length_bias(rewards_C, lengths_C)),
        "by_category": {name: [len(held), *pairwise_accuracy(held)] for name, held in sorted(by_category.items())}
        if len(by_category) > 1
        else {},
    }


def _as_json(bias: LengthBias) -> dict[str, JSON]:
    """Return the length bias as JSON; a share of no pairs is null."""
    found: dict[str, JSON] = {}
    for name, value in bias._asdict().items():
        found[name] = [*value] if isinstance(value, tuple) else None if value is None or math.isnan(value) else value
    return found
