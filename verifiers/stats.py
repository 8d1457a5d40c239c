"""Small statistics for reports, without SciPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple


class Interval(NamedTuple):
    """Lower and upper end of a confidence interval."""

    low: float
    high: float


def wilson_interval(successes: int, total: int, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a proportion (Wilson 1927); (0, 1) if there are no trials.

    Raises:
        ValueError: successes is not between 0 and total.

    Example:
        >>> [round(end, 4) for end in wilson_interval(8, 10)]
        [0.4902, 0.9433]
    """
    if not 0 <= successes <= total:
        raise ValueError(f"successes must be between 0 and total; got {successes} of {total}.")
    if total == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / total
    centre = share + z * z / (2 * total)
    spread = z * ((share * (1 - share) + z * z / (4 * total)) / total) ** 0.5
    scale = 1 + z * z / total
    return Interval(max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))


WINDOW = 5
"""Number of latest steps, and of the best successive ones before them, that `from_best` compares (our choice)."""
CERTAIN = 3.0
"""Standard errors by which a change must exceed the noise if nothing is chosen (our choice)."""


class FromBest(NamedTuple):
    """A curve's latest steps compared with its best ones before them."""

    best: float
    last: float
    sure: bool
    """True if the difference is more than noise, although the best of many windows was chosen."""

    @property
    def moved(self) -> float:
        """Last minus best."""
        return self.last - self.best


def from_best(values: Sequence[float], *, lowest: bool) -> FromBest | None:
    """Compare the mean of the last window with the lowest (or highest) window before it; None for too few steps.

    The noise of a step is estimated from the differences of successive ones (von Neumann et al. 1941), so that a drift
    does not count as noise. The best of n windows is chosen, after each of n steps, so the difference must exceed
    sqrt(CERTAIN^2 + 2 ln n^2) standard errors: the largest of m normal deviates grows like sqrt(2 ln m).

    Example:
        >>> from_best([0.0, 0.1] * 5 + [0.9, 1.0] * 3, lowest=True)
        FromBest(best=0.04, last=0.96, sure=True)
    """
    if len(values) < 2 * WINDOW:
        return None
    means = [math.fsum(values[at : at + WINDOW]) / WINDOW for at in range(len(values) - WINDOW + 1)]
    before, last = means[:-WINDOW], means[-1]
    best = min(before) if lowest else max(before)
    noise = math.sqrt(math.fsum((b - a) ** 2 for a, b in pairwise(values)) / (len(values) - 1) / 2)
    least = math.sqrt(CERTAIN**2 + 4 * math.log(len(before))) * noise * math.sqrt(2 / WINDOW)
    return FromBest(best, last, abs(last - best) > least)
