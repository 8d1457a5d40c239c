"""Distributions of pass rates over problems, and the chance that a group has signal under them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Beta(NamedTuple):
    """Beta distribution of pass rates."""

    a: float
    b: float

    @property
    def mean(self) -> float:
        """Mean pass rate."""
        return self.a / (self.a + self.b)

    @property
    def parts(self) -> tuple[tuple[float, Beta], ...]:
        """This distribution alone, as `PassRates.parts`."""
        return ((1.0, self),)

    def quantile(self, share: float) -> float:
        """Return a quantile, to 1e-6."""
        return _quantile(self.below, share)

    def below(self, x: float) -> float:
        """Return the share of problems whose pass rate is below x: the regularised incomplete beta function."""
        if not 0.0 < x < 1.0:
            return float(x >= 1.0)
        a, b = self
        flipped = x > (a + 1) / (a + b + 2)
        if flipped:  # the fraction converges fast below the mean
            a, b, x = b, a, 1 - x
        front = math.exp(
            math.lgamma(a + b) - math.lgamma(a + 1) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
        )
        found = front * _continued_fraction(a, b, x)
        return 1 - found if flipped else found

    def log_chance(self, right: int, samples: int) -> float:
        """Return the log-probability of one order of `right` right answers among `samples`, under this distribution."""
        a, b, lgamma = self.a, self.b, math.lgamma
        return (
            lgamma(a + right) - lgamma(a)
            + lgamma(b + (samples - right)) - lgamma(b)
            + lgamma(a + b) - lgamma(a + b + samples)
        )  # fmt: skip


NEVER, ALWAYS = Beta(1e-12, 1.0), Beta(1.0, 1e-12)
"""Problems that are never and that are always solved, as a Beta distribution."""


class PassRates(NamedTuple):
    """Mixture of Beta distributions of pass rates: kinds of problems.

    Example:
        >>> rates = PassRates(((0.9, NEVER), (0.1, Beta(1.0, 1.0))))
        >>> round(rates.mean, 6), round(signal_chance(rates, 8), 4)
        (0.05, 0.0778)
    """

    parts: tuple[tuple[float, Beta], ...]
    """(share of the problems, distribution of their pass rates) of each kind."""

    @property
    def mean(self) -> float:
        """Mean pass rate."""
        return sum(share * belief.mean for share, belief in self.parts)

    def quantile(self, share: float) -> float:
        """Return a quantile, to 1e-6."""
        return _quantile(lambda x: sum(part * belief.below(x) for part, belief in self.parts), share)


Belief = Beta | PassRates
"""Distribution of pass rates over problems."""


def kind_shares(belief: Belief, right: int, samples: int) -> list[float]:
    """Return the probabilities of the kinds, for a problem of which `right` of `samples` are right (Bayes' rule)."""
    logs = [math.log(share) + part.log_chance(right, samples) for share, part in belief.parts]
    top = max(logs)
    chances = [math.exp(value - top) for value in logs]
    return [chance / sum(chances) for chance in chances]


def after(belief: Belief, right: int, samples: int) -> PassRates:
    """Return the distribution of the pass rate of a problem of which `right` of `samples` are right."""
    shares = kind_shares(belief, right, samples)
    found = [
        (share, Beta(part.a + right, part.b + (samples - right)))
        for share, (_, part) in zip(shares, belief.parts, strict=True)
    ]
    return PassRates(tuple(found))


def signal_chance(belief: Belief, group_size: int) -> float:
    """Return the chance that G samples of a problem have differing rewards: 1 - E[p^G] - E[(1 - p)^G], p from `belief`.

    Example:
        >>> round(signal_chance(Beta(1, 1), 8), 4)
        0.7778
    """
    alike = sum(
        share * (math.exp(part.log_chance(group_size, group_size)) + math.exp(part.log_chance(0, group_size)))
        for share, part in belief.parts
    )
    return max(0.0, 1.0 - alike)


def total(counts: Sequence[tuple[int, int]]) -> int:
    """Return the number of samples in (right, samples) of each problem."""
    return sum(samples for _, samples in counts)


def _quantile(below: Callable[[float], float], share: float) -> float:
    low, high = 0.0, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if below(middle) >= share else (middle, high)
    return (low + high) / 2


def _continued_fraction(a: float, b: float, x: float) -> float:
    """Evaluate the continued fraction of the incomplete beta function by Lentz's method.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.5.8.
    """
    tiny = 1e-300
    c, d = 1.0, 1.0 / _not_zero(1 - (a + b) * x / (a + 1), tiny)
    found = d
    for m in range(1, 1000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _not_zero(1 + term * d, tiny)
            c = _not_zero(1 + term / c, tiny)
            found *= c * d
        if abs(c * d - 1) < 1e-12:
            break
    return found


def _not_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
