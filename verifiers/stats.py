"""Small statistics for reports, without SciPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist, fmean, pstdev, stdev
from typing import NamedTuple


class Interval(NamedTuple):
    """Lower and upper end of a confidence interval."""

    low: float
    high: float


def wilson_interval(successes: float, total: float, confidence: float = 0.95) -> Interval:
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


class Mean(NamedTuple):
    """Mean of some values, with the ends of its 95 % confidence interval; these are infinite for fewer than two."""

    value: float
    low: float
    high: float


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Mean:
    """Return the mean of independent values with Student's t interval.

    Raises:
        ValueError: there are no values.

    Example:
        >>> [round(one, 3) for one in mean_interval([1.0, 2.0, 3.0])]
        [2.0, -0.484, 4.484]
    """
    if not values:
        raise ValueError("values must not be empty: a mean of nothing has no value.")
    mean = fmean(values)
    if len(values) < 2:
        return Mean(mean, -math.inf, math.inf)
    half = student_quantile(0.5 + confidence / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Mean(mean, mean - half, mean + half)


def student_quantile(share: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution with `freedom` degrees, for a share above one half.

    Exact for one and two degrees; else by Cornish and Fisher's expansion in 1 / freedom (Abramowitz and Stegun 26.7.5),
    within 0.3 % at 0.975.

    Example:
        >>> [round(student_quantile(0.975, freedom), 3) for freedom in (1, 2, 10)]
        [12.706, 4.303, 2.228]
    """
    if freedom == 1:
        return math.tan(math.pi * (share - 0.5))
    if freedom == 2:
        return (2 * share - 1) * math.sqrt(2 / (4 * share * (1 - share)))
    z = NormalDist().inv_cdf(share)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))


class LengthControlled(NamedTuple):
    """Win rate of the first of two texts, as it is and as it would be at equal length."""

    plain: float
    """Mean outcome: a win counts 1, a tie 0.5, a loss 0."""
    value: float
    """Win rate at equal length."""
    low: float
    """Lower end of its 95 % confidence interval."""
    high: float
    length_effect: float
    """Change of the log-odds of a win as the first becomes longer, in units of tanh of the standardized difference;
    0: length does not matter."""


LENGTH_RIDGE = 0.1
"""Half of it times the squared length effect is subtracted from the log-likelihood: a normal prior with a standard
deviation of 3.2, so that outcomes that length separates keep a finite effect (our choice)."""


NEWTON_STEPS = 100
"""Most steps of the fit; it takes fewer than ten."""


def length_controlled(outcomes: Sequence[float], differences: Sequence[float]) -> LengthControlled | None:
    """Return the win rate at equal length, by a logistic regression on the difference in length.

    P(win) = s(a + b tanh(d / std(d))), s the sigmoid and d the difference; the result is s(a), with the interval
    s(a +- 1.96 se) and se from the inverse Hessian. Dubois et al., arXiv:2404.04475, without their term for
    the difficulty of each instruction, which needs comparisons with other models. As there, d is divided by its
    standard deviation and not centred: 0 is equal length. If all outcomes are equal, length can explain nothing, and
    the interval is Wilson's. If all differences are almost equal, length and quality cannot be told apart: the interval
    is then nearly all of [0, 1].

    Args:
        outcomes: 1 if the first wins, 0.5 for a tie, 0 if it loses.
        differences: length of the first minus length of the second, in any unit.
    Returns:
        The rates; None without comparisons.
    Raises:
        ValueError: an outcome is not in [0, 1], or a difference is not finite.

    Example:
        >>> found = length_controlled([1.0] * 8 + [0.0] * 2 + [1.0] * 2 + [0.0] * 8, [50.0] * 10 + [-50.0] * 10)
        >>> found.plain, round(found.value, 3)
        (0.5, 0.5)
    """
    if not outcomes:
        return None
    if not all(0 <= outcome <= 1 for outcome in outcomes):
        raise ValueError("outcomes must be between 0 and 1: 1 for a win, 0.5 for a tie, 0 for a loss.")
    if not all(map(math.isfinite, differences)):
        raise ValueError("differences in length must be finite.")
    pairs = list(zip(outcomes, map(float, differences), strict=True))
    plain = fmean(outcomes)
    if plain in (0.0, 1.0):
        interval = wilson_interval(round(plain * len(pairs)), len(pairs))
        return LengthControlled(plain, plain, interval.low, interval.high, 0.0)
    spread = pstdev(difference for _, difference in pairs)
    scaled = [
        (outcome, math.tanh(difference / spread) if spread else math.copysign(float(difference != 0), difference))
        for outcome, difference in pairs
    ]
    level, effect, error = _logistic(scaled)
    half = NormalDist().inv_cdf(0.975) * error
    return LengthControlled(plain, sigmoid(level), sigmoid(level - half), sigmoid(level + half), effect)


def sigmoid(value: float) -> float:
    """Return 1 / (1 + exp(-value)) without overflow."""
    return (1 + math.tanh(value / 2)) / 2


def _logistic(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Fit y = s(a + b x), with the ridge on b; return a, b and the standard error of a.

    Newton's method, each step halved until the penalized log-likelihood does not fall: it is concave, so this ends at
    its maximum.
    """

    def likelihood(a: float, b: float) -> float:
        total = -LENGTH_RIDGE / 2 * b * b
        for y, x in pairs:
            odds = a + b * x
            total += y * odds - (max(odds, 0.0) + math.log1p(math.exp(-abs(odds))))
        return total

    a = b = 0.0
    error, now = math.inf, likelihood(a, b)
    for _ in range(NEWTON_STEPS):
        g0, g1, h00, h01, h11 = 0.0, -LENGTH_RIDGE * b, 0.0, 0.0, LENGTH_RIDGE
        for y, x in pairs:
            p = sigmoid(a + b * x)
            weight = max(p * (1 - p), 1e-12)
            g0, g1 = g0 + y - p, g1 + (y - p) * x
            h00, h01, h11 = h00 + weight, h01 + weight * x, h11 + weight * x * x
        determinant = h00 * h11 - h01 * h01
        error = math.sqrt(h11 / determinant)
        step_a = (h11 * g0 - h01 * g1) / determinant
        step_b = (h00 * g1 - h01 * g0) / determinant
        size = 1.0
        while (reached := likelihood(a + size * step_a, b + size * step_b)) < now and size > 1e-6:
            size /= 2
        if size <= 1e-6 or max(abs(step_a), abs(step_b)) < 1e-9:
            break
        a, b, now = a + size * step_a, b + size * step_b, reached
    return a, b, error
