"""Pass rates of problems from their samples: one distribution, or two kinds of problems.

A kind is a Beta distribution with one peak or none (U-shaped ones are two kinds), so the samples of its problems are
beta-binomial (Skellam 1948). One kind, two, and one beside problems that are never, always, or never and always solved
(Ospina and Ferrari 2010) are fitted by maximum likelihood; the lowest BIC decides (Schwarz 1978).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from reasoner.observe.explain.signal_chance import ALWAYS, NEVER, Belief, Beta, PassRates, kind_shares

Counts = Mapping[tuple[int, int], int]
"""Number of problems by (right, samples)."""
STRENGTHS = (0.05, 200.0)
"""Bounds of a + b: samples of a few hundred problems do not tell stronger ones apart (our choice)."""
STRONG = 6.0
"""BIC difference that is called strong evidence: Kass and Raftery 1995, section 3.2."""
FEWEST = 5
"""Problems that a kind must have to be reported (our choice)."""
DOUBTFUL = 0.2
"""Kinds are not reported if more problems than this share of the smaller kind may belong to the other (our choice)."""
APART = 0.2
"""Difference of the mean pass rates from which on two kinds are reported (our choice)."""


class Kinds(NamedTuple):
    """Two kinds of problems: the one that is solved more rarely, then the other."""

    shares: tuple[float, float]
    """Shares of the sampled problems."""
    means: tuple[float, float]
    """Mean pass rates."""
    of_problems: tuple[int | None, ...]
    """Kind (0 or 1) of each problem; None if the samples do not say it with nine to one."""


class Fit(NamedTuple):
    """A distribution of pass rates fitted to samples."""

    belief: Belief
    bic: float
    """-2 ln L + k ln P, for k parameters and P problems, but for a constant of the samples."""


def fitted(counts: Sequence[tuple[int, int]]) -> Belief:
    """Fit the distribution of pass rates to (right, samples) of each problem.

    Example:
        >>> round(fitted([(0, 8), (8, 8), (4, 8), (4, 8)]).mean, 3)
        0.5
    """
    return min(fits(counts), key=lambda fit: fit.bic).belief


def two_kinds(counts: Sequence[tuple[int, int]], found: Sequence[Fit] | None = None) -> Kinds | None:
    """Return the two kinds of problems, if (right, samples) of each are strong evidence of two that differ; else None.

    One broad distribution is one kind: the samples must also say of nearly every problem to which kind it belongs.

    Args:
        counts: the samples.
        found: their `fits`, if they are at hand.
    """
    one, *others = found or fits(counts)
    if not others:
        return None
    best = min(others, key=lambda fit: fit.bic)
    if best.bic > one.bic - STRONG or len(best.belief.parts) > 2:
        return None
    rare = min(range(2), key=lambda kind: best.belief.parts[kind][1].mean)
    chances = [kind_shares(best.belief, *count)[rare] for count in counts]
    sizes = (sum(chances), len(counts) - sum(chances))
    doubtful = sum(min(chance, 1 - chance) for chance in chances)
    if min(sizes) < FEWEST or doubtful > DOUBTFUL * min(sizes):
        return None
    rates = [right / samples for right, samples in counts]
    low = sum(chance * rate for chance, rate in zip(chances, rates, strict=True)) / sizes[0]
    high = sum((1 - chance) * rate for chance, rate in zip(chances, rates, strict=True)) / sizes[1]
    if high - low < APART:
        return None
    kinds = tuple(0 if chance > 0.9 else 1 if chance < 0.1 else None for chance in chances)
    return Kinds((sizes[0] / len(counts), sizes[1] / len(counts)), (low, high), kinds)


def fits(counts: Sequence[tuple[int, int]], *, only_one: bool = False) -> list[Fit]:
    """Return the fit of one kind, then those of more if there are two problems or more (and not `only_one`)."""
    graded = Counter((right, samples) for right, samples in counts if samples)
    size = graded.total()
    if not size:
        return [Fit(Beta(1.0, 1.0), 0.0)]
    samples = sum(n * count for (_, n), count in graded.items())
    right = sum(c * count for (c, _), count in graded.items())
    smallest, mean = 0.5 / (samples + 1), (right + 0.5) / (samples + 1)

    def kind(logit: float, log_strength: float) -> Beta:
        """Return the Beta of a mean and a strength, within the bounds."""
        centre = min(max(_share(logit), smallest), 1 - smallest)
        peaked = 1 / max(centre, 1 - centre)  # at least one of a and b is 1: not U-shaped
        strength = min(max(math.exp(min(log_strength, 20.0)), STRENGTHS[0], peaked), STRENGTHS[1])
        return Beta(centre * strength, (1 - centre) * strength)

    def best(build: Callable[..., Belief], starts: Sequence[tuple[float, ...]]) -> Fit:
        likelihood, at = max(_climb(lambda at: _likelihood(build(*at), graded), start) for start in starts)
        return Fit(build(*at), len(at) * math.log(size) - 2 * likelihood)

    centres, firm = (_logit(mean), -1.5, 1.5), 1.5
    one = best(kind, [(_logit(mean), 0.0), (_logit(mean), 3.0)])
    if size == 1 or only_one:
        return [one]

    def beside(fixed: Beta) -> Callable[..., Belief]:
        return lambda weight, *of: PassRates(((_share(weight), fixed), (1 - _share(weight), kind(*of))))

    def both(weight: float, *of: float) -> Belief:
        return PassRates(((_share(weight), kind(*of[:2])), (1 - _share(weight), kind(*of[2:]))))

    def between(never: float, always: float, *of: float) -> Belief:
        odds = (math.exp(never), math.exp(always), 1.0)
        shares = [odd / sum(odds) for odd in odds]
        return PassRates(tuple(zip(shares, (NEVER, ALWAYS, kind(*of)), strict=True)))

    alone = [(0.0, centre, firm) for centre in centres]
    pairs = [(0.0, low, firm, high, firm) for low, high in itertools.combinations((-4.0, 0.0, 4.0), 2)]
    three = best(between, [(0.0, 0.0, centre, firm) for centre in centres])
    return [one, best(beside(NEVER), alone), best(beside(ALWAYS), alone), best(both, pairs), three]


def _likelihood(belief: Belief, graded: Counts) -> float:
    """Return the log-likelihood of the samples in their order (it differs from the counts' by a constant)."""
    found = 0.0
    for (right, samples), count in graded.items():
        logs = [math.log(share) + part.log_chance(right, samples) for share, part in belief.parts]
        top = max(logs)
        found += count * (top + math.log(sum(math.exp(value - top) for value in logs)))
    return found


def _climb(value: Callable[[tuple[float, ...]], float], start: tuple[float, ...]) -> tuple[float, tuple[float, ...]]:
    """Find a maximum by pattern search: one coordinate at a time, steps halved (Hooke and Jeeves 1961)."""
    at, best, step = start, value(start), 1.0
    while step > 0.03:
        better = False
        for place, sign in itertools.product(range(len(at)), (1, -1)):
            tried = (*at[:place], at[place] + sign * step, *at[place + 1 :])
            if abs(tried[place]) < 12 and (found := value(tried)) > best + 1e-3:
                at, best, better = tried, found, True
        step = step if better else step / 2
    return best, at


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
