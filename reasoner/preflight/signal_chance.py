"""The chance that a group has signal, from a Beta distribution fitted to solve rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Beta(NamedTuple):
    """Beta distribution of pass rates."""

    a: float
    b: float

    @property
    def mean(self) -> float:
        """Mean pass rate."""
        return self.a / (self.a + self.b)

    def quantile(self, share: float) -> float:
        """Return a quantile, to about 1e-3, from the distribution function summed over a grid."""
        grid = [(i + 0.5) / 4096 for i in range(4096)]
        logs = [(self.a - 1) * math.log(x) + (self.b - 1) * math.log1p(-x) for x in grid]
        top = max(logs)
        masses = [math.exp(value - top) for value in logs]
        total, run = sum(masses), 0.0
        for x, mass in zip(grid, masses, strict=True):
            run += mass
            if run >= share * total:
                return x
        return 1.0


def signal_chance(belief: Beta, group_size: int) -> float:
    """Return the chance that G samples of a problem have differing rewards: 1 - E[p^G] - E[(1 - p)^G], p from `belief`.

    Example:
        >>> round(signal_chance(Beta(1, 1), 8), 4)
        0.7778
    """

    def power(a: float, b: float) -> float:
        return math.exp(
            math.lgamma(a + group_size) - math.lgamma(a) + math.lgamma(a + b) - math.lgamma(a + b + group_size)
        )

    return max(0.0, 1.0 - power(belief.a, belief.b) - power(belief.b, belief.a))


def fitted(counts: Sequence[tuple[int, int]]) -> Beta:
    """Fit a Beta to problems' pass rates from (right, samples) of each, by the moments of the beta-binomial.

    Example:
        >>> fitted([(0, 8), (8, 8), (4, 8), (4, 8)]).mean
        0.5
    """
    total = sum(n for _, n in counts)
    if not total:
        return Beta(1.0, 1.0)
    mean = (sum(c for c, _ in counts) + 0.5) / (total + 1)
    pairs = [(c, n) for c, n in counts if n > 1]
    if len(pairs) < 2:
        return Beta(2 * mean, 2 * (1 - mean))
    # E[c (c - 1) / (n (n - 1))] = E[p^2], which excludes the binomial's own spread
    second = sum(c * (c - 1) / (n * (n - 1)) for c, n in pairs) / len(pairs)
    variance = max(second - mean * mean, 1e-4 * mean * (1 - mean))
    strength = min(max(mean * (1 - mean) / variance - 1, 0.05), 200.0)
    return Beta(mean * strength, (1 - mean) * strength)
