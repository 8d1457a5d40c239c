"""Pass rates: the distributions against SciPy, and one kind of problems told from two."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from reasoner.observe.explain.pass_rates import fits, fitted, two_kinds
from reasoner.observe.explain.signal_chance import ALWAYS, NEVER, Beta, PassRates, after, kind_shares, signal_chance

Counts = list[tuple[int, int]]


def sampled(rates: np.ndarray, samples: int = 8, seed: int = 0) -> Counts:
    return [(int(right), samples) for right in np.random.default_rng(seed).binomial(samples, rates)]


def drawn(a: float, b: float, *, size: int = 128, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).beta(a, b, size)


@pytest.mark.parametrize(("a", "b"), [(0.05, 0.9), (1, 1), (2, 5), (30, 0.7), (100, 100)])
def test_shares_and_quantiles_are_those_of_the_beta_distribution(a: float, b: float) -> None:
    for x in (1e-6, 0.01, 0.3, 0.5, 0.8, 0.999):
        assert Beta(a, b).below(x) == pytest.approx(stats.beta.cdf(x, a, b), abs=1e-9)
    for share in (0.05, 0.5, 0.95):
        assert Beta(a, b).quantile(share) == pytest.approx(stats.beta.ppf(share, a, b), abs=2e-6)
    assert (Beta(a, b).below(0.0), Beta(a, b).below(1.0)) == (0.0, 1.0)


def test_a_mixture_is_the_sum_of_its_parts() -> None:
    rates = PassRates(((0.7, NEVER), (0.2, Beta(2.0, 3.0)), (0.1, ALWAYS)))
    assert rates.mean == pytest.approx(0.2 * 0.4 + 0.1)
    assert signal_chance(rates, 4) == pytest.approx(0.2 * signal_chance(Beta(2.0, 3.0), 4))
    assert rates.quantile(0.65) == pytest.approx(0, abs=1e-5)
    assert rates.quantile(0.8) == pytest.approx(stats.beta.ppf(0.5, 2, 3), abs=1e-5)
    assert rates.quantile(0.95) == pytest.approx(1, abs=1e-5)


def test_the_kind_of_a_problem_is_bayes_rule() -> None:
    rates = PassRates(((0.5, NEVER), (0.5, Beta(1.0, 1.0))))
    assert kind_shares(rates, 0, 8) == pytest.approx([0.9, 0.1])  # 1 against 1 / 9
    assert kind_shares(rates, 1, 8) == pytest.approx([0.0, 1.0], abs=1e-9)
    later = after(rates, 0, 8)
    assert later.mean == pytest.approx(0.1 * 0.1)  # Beta(1, 9) has the mean 0.1
    assert signal_chance(after(rates, 4, 8), 8) == pytest.approx(signal_chance(Beta(5.0, 5.0), 8))


def test_the_likelihood_is_that_of_the_beta_binomial() -> None:
    counts: Counts = [(0, 4), (1, 4), (3, 4), (4, 4), (2, 3)]
    one = fits(counts, only_one=True)[0]
    assert isinstance(one.belief, Beta)
    chances = [stats.betabinom.logpmf(c, n, *one.belief) - math.log(math.comb(n, c)) for c, n in counts]
    assert one.bic == pytest.approx(2 * math.log(5) - 2 * sum(chances))
    others = [(Beta(a, b)) for a in np.linspace(0.2, 4, 20) for b in np.linspace(0.2, 4, 20) if max(a, b) >= 1]
    likelihoods = [sum(belief.log_chance(c, n) for c, n in counts) for belief in others]
    assert max(likelihoods) < (2 * math.log(5) - one.bic) / 2 + 0.01, "it is the largest"


@pytest.mark.parametrize(
    ("rare", "other", "share"),
    [((1, 3000), (30, 2), 0.9), ((1, 3000), (8, 8), 0.5), ((4, 40), (40, 4), 0.3), ((1, 2000), (2000, 1), 0.6)],
)
def test_two_kinds_are_found_with_their_shares(
    rare: tuple[float, float], other: tuple[float, float], share: float
) -> None:
    size = round(200 * share)
    rates = np.concatenate([drawn(*rare, size=size), drawn(*other, size=200 - size)])
    found = two_kinds(sampled(rates))
    assert found is not None
    assert found.shares[0] == pytest.approx(share, abs=0.05)
    assert found.means == pytest.approx((rates[:size].mean(), rates[size:].mean()), abs=0.06)
    sure = [(kind, place >= size) for place, kind in enumerate(found.of_problems) if kind is not None]
    assert len(sure) > 150
    assert sum(kind == right for kind, right in sure) > 0.97 * len(sure)


@pytest.mark.parametrize(
    "rates",
    [
        drawn(1, 1),
        drawn(0.5, 1.5),
        drawn(0.3, 2),
        drawn(0.1, 1),
        drawn(0.5, 0.5),  # U-shaped, and full in the middle
        drawn(2, 5),
        1 / (1 + np.exp(-np.random.default_rng(2).normal(-2, 2, 128))),
        np.tile([0.1, 0.3, 0.5, 0.7, 0.9], 26),  # levels one after the other
        np.full(128, 0.0),
        np.full(128, 1.0),
        np.repeat([0.0, 0.9], [125, 3]),  # three problems are no kind
        np.repeat([0.5, 0.62], 64),  # too alike to matter
        np.repeat([0.0, 0.5, 1.0], 50),  # three kinds
    ],
)
def test_one_distribution_is_one_kind(rates: np.ndarray) -> None:
    assert two_kinds(sampled(rates)) is None
    assert two_kinds(sampled(rates, samples=4)) is None


def test_the_signal_of_other_group_sizes_follows_from_the_kinds() -> None:
    rates = np.concatenate([np.zeros(140), drawn(8, 4, size=60)])
    found = fitted(sampled(rates))
    assert len(found.parts) == 2
    for size in (2, 4, 16, 32):
        real = float(np.mean(1 - rates**size - (1 - rates) ** size))
        assert signal_chance(found, size) == pytest.approx(real, abs=0.03)


def test_few_problems_are_fitted_too() -> None:
    assert fitted([]) == Beta(1.0, 1.0)
    assert fitted([(0, 8)]).mean < 0.1
    assert two_kinds([(0, 8), (8, 8)]) is None
    assert two_kinds([]) is None
