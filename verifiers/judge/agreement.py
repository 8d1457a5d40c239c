"""Agreement of two raters: accuracy, Cohen's kappa with its interval, correlations. Needs no SciPy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from verifiers.stats import Interval, wilson_interval
from verifiers.verdict import JSON

Weights = Literal["none", "linear", "quadratic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kappa:
    """Cohen's kappa: agreement beyond chance."""

    value: float
    """1 for full agreement, 0 for chance; NaN if both raters give every row the same category."""
    interval: Interval
    """95 % interval from the large-sample standard error; NaN if `value` is."""


def cohen_kappa(
    first: Sequence[str], second: Sequence[str], *, order: Sequence[str] = (), weights: Weights = "none"
) -> Kappa:
    """Compute Cohen's kappa (1960, 1968): (p_o - p_e) / (1 - p_e), weighted if the categories have an order.

    w_ij = 1 - (|i - j| / (k - 1))^d, d = 1 for linear, 2 for quadratic; without weights w_ij = [i = j]. The standard
    error is that of Fleiss, Cohen and Everitt (1969), equation 10:
    n (1 - p_e)^2 var = sum_ij p_ij (w_ij - (w_i. + w_.j) (1 - kappa))^2 - (kappa - p_e (1 - kappa))^2.

    Args:
        first, second: the categories that each rater gave to the same rows.
        order: all categories in order; (): those that occur, sorted.
        weights: none, linear or quadratic.

    Raises:
        ValueError: the raters have different numbers of rows, or none, or `order` lacks a category.

    Example:
        >>> round(cohen_kappa(["a", "a", "b", "b"], ["a", "a", "b", "a"]).value, 4)
        0.5
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"both raters must have rated the same rows, at least one; got {len(first)}, {len(second)}.")
    categories = list(order) or sorted({*first, *second})
    missing = {*first, *second} - {*categories}
    if missing:
        raise ValueError(f"order must contain every category; {min(missing)!r} is missing.")
    count, size = len(first), len(categories)
    at = {category: place for place, category in enumerate(categories)}
    cells = Counter((at[a], at[b]) for a, b in zip(first, second, strict=True))
    rows = [sum(cells[i, j] for j in range(size)) / count for i in range(size)]
    columns = [sum(cells[i, j] for i in range(size)) / count for j in range(size)]
    weight = [[_weight(i, j, size, weights) for j in range(size)] for i in range(size)]
    observed = math.fsum(weight[i][j] * share / count for (i, j), share in cells.items())
    chance = math.fsum(weight[i][j] * rows[i] * columns[j] for i in range(size) for j in range(size))
    if math.isclose(chance, 1.0):
        return Kappa(value=math.nan, interval=Interval(math.nan, math.nan))
    kappa = (observed - chance) / (1 - chance)
    by_row = [math.fsum(weight[i][j] * columns[j] for j in range(size)) for i in range(size)]
    by_column = [math.fsum(weight[i][j] * rows[i] for i in range(size)) for j in range(size)]
    spread = math.fsum(
        share / count * (weight[i][j] - (by_row[i] + by_column[j]) * (1 - kappa)) ** 2
        for (i, j), share in cells.items()
    )
    variance = (spread - (kappa - chance * (1 - kappa)) ** 2) / (count * (1 - chance) ** 2)
    reach = NormalDist().inv_cdf(0.975) * math.sqrt(max(0.0, variance))
    return Kappa(value=kappa, interval=Interval(max(-1.0, kappa - reach), min(1.0, kappa + reach)))


def _weight(one: int, other: int, size: int, weights: Weights) -> float:
    if weights == "none" or size < 2:
        return float(one == other)
    return 1 - (abs(one - other) / (size - 1)) ** (1 if weights == "linear" else 2)


def pearson(first: Sequence[float], second: Sequence[float]) -> float:
    """Compute Pearson's correlation; NaN if one side is constant."""
    count = len(first)
    mean_1, mean_2 = math.fsum(first) / count, math.fsum(second) / count
    left, right = [value - mean_1 for value in first], [value - mean_2 for value in second]
    scale = math.sqrt(math.fsum(a * a for a in left) * math.fsum(b * b for b in right))
    return math.fsum(a * b for a, b in zip(left, right, strict=True)) / scale if scale > 0 else math.nan


def ranks(values: Sequence[float]) -> list[float]:
    """Return the ranks, starting at 1; equal values share the mean of their ranks.

    Example:
        >>> ranks([3, 1, 3])
        [2.5, 1.0, 2.5]
    """
    ordered = sorted(range(len(values)), key=lambda place: values[place])
    found = [0.0] * len(values)
    start = 0
    while start < len(ordered):
        end = start
        while end + 1 < len(ordered) and values[ordered[end + 1]] == values[ordered[start]]:
            end += 1
        for place in ordered[start : end + 1]:
            found[place] = (start + end) / 2 + 1
        start = end + 1
    return found


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Compute Spearman's correlation: Pearson's of the ranks."""
    return pearson(ranks(first), ranks(second))


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Compute Kendall's tau-b, NaN if one side is constant.

    (concordant - discordant) / sqrt(pairs untied in the first x pairs untied in the second).
    """
    balance = untied_1 = untied_2 = 0
    rows = list(zip(first, second, strict=True))
    for at, (a, b) in enumerate(rows):
        for c, d in rows[at + 1 :]:
            one, other = (a > c) - (a < c), (b > d) - (b < d)
            balance += one * other
            untied_1 += one != 0
            untied_2 += other != 0
    return balance / math.sqrt(untied_1 * untied_2) if untied_1 and untied_2 else math.nan


KENDALL_ROWS = 3000
"""With more rows tau-b is left out, since it compares every pair of rows."""


def agreement(first: Sequence[str], second: Sequence[str]) -> dict[str, JSON]:
    """Return the accuracy and kappa of labels as JSON, each as [value, low, high] with its 95 % interval."""
    right = sum(a == b for a, b in zip(first, second, strict=True))
    low, high = wilson_interval(right, len(first))
    kappa = cohen_kappa(first, second)
    return {
        "rows": len(first),
        "accuracy": [right / len(first), low, high],
        "kappa": [_number(value) for value in (kappa.value, *kappa.interval)],
    }


def graded_agreement(first: Sequence[float], second: Sequence[float]) -> dict[str, JSON]:
    """Return the agreement of two raters that give numbers, as JSON.

    The fields of `agreement`, the share of differences of at most 1, quadratic kappa over the values, the mean absolute
    error and three correlations. NaN becomes None; tau-b is None with more than KENDALL_ROWS rows.
    """
    order = [f"{value:g}" for value in sorted({*first, *second})]
    one, other = [f"{value:g}" for value in first], [f"{value:g}" for value in second]
    found = agreement(one, other)
    weighted = cohen_kappa(one, other, order=order, weights="quadratic")
    differences = [abs(a - b) for a, b in zip(first, second, strict=True)]
    return {
        **found,
        "within_one": sum(difference <= 1 for difference in differences) / len(first),
        "kappa_quadratic": [_number(value) for value in (weighted.value, *weighted.interval)],
        "mean_error": math.fsum(differences) / len(differences),
        "pearson": _number(pearson(first, second)),
        "spearman": _number(spearman(first, second)),
        "kendall": _number(kendall(first, second)) if len(first) <= KENDALL_ROWS else None,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


__all__ = ["Kappa", "agreement", "cohen_kappa", "graded_agreement", "kendall", "pearson", "ranks", "spearman"]
