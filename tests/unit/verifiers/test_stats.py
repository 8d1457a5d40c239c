"""Intervals of means, and win rates at equal length."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest

from verifiers.stats import LENGTH_RIDGE, length_controlled, mean_interval, sigmoid, student_quantile


def test_a_rate_that_is_length_alone_is_a_half_at_equal_length() -> None:
    # the longer text wins 80 % whichever it is, and the first is the longer one in 50 of 60 pairs: it wins 42 of 60
    outcomes = [1.0] * 40 + [0.0] * 10 + [1.0] * 2 + [0.0] * 8
    found = length_controlled(outcomes, [100.0] * 50 + [-100.0] * 10)
    assert found is not None
    assert found.plain == pytest.approx(0.7)
    assert found.value == pytest.approx(0.5, abs=0.01)
    assert found.low < 0.35
    assert found.high > 0.65
    assert found.length_effect > 1


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6])
def test_a_rate_that_length_has_no_part_in_stays(scale: float) -> None:
    outcomes = ([1.0] * 7 + [0.0] * 3) * 20
    found = length_controlled(outcomes, [scale * (1 if n < 100 else -1) for n in range(200)])
    assert found is not None
    assert found.value == pytest.approx(found.plain)
    assert found.plain == pytest.approx(0.7)
    assert found.length_effect == pytest.approx(0, abs=1e-6)


def test_a_model_that_wins_though_it_is_shorter_gains() -> None:
    outcomes = [1.0] * 30 + [0.0] * 30 + [1.0] * 9 + [0.0]  # shorter: half; longer: nine of ten
    found = length_controlled(outcomes, [-80.0] * 60 + [80.0] * 10)
    assert found is not None
    assert found.value > found.plain + 0.1


def test_swapped_sides_give_the_complement() -> None:
    source = random.Random(3)
    differences = [source.gauss(40, 60) for _ in range(80)]
    outcomes = [source.choice([0.0, 0.5, 1.0]) for _ in differences]
    one = length_controlled(outcomes, differences)
    other = length_controlled([1 - outcome for outcome in outcomes], [-difference for difference in differences])
    assert one is not None
    assert other is not None
    assert (one.value, one.low, one.high) == pytest.approx((1 - other.value, 1 - other.high, 1 - other.low))


def test_the_fit_is_the_highest_point_of_its_likelihood() -> None:
    source = random.Random(0)
    differences = [source.gauss(200, 150) for _ in range(300)]
    spread = math.sqrt(sum((d - sum(differences) / 300) ** 2 for d in differences) / 300)
    xs = [math.tanh(difference / spread) for difference in differences]
    outcomes = [float(source.random() < sigmoid(-0.4 + 1.2 * x)) for x in xs]
    found = length_controlled(outcomes, differences)
    assert found is not None

    def likelihood(a: float, b: float) -> float:
        fits = [
            math.log(sigmoid(a + b * x) if y else 1 - sigmoid(a + b * x)) for x, y in zip(xs, outcomes, strict=True)
        ]
        return sum(fits) - LENGTH_RIDGE / 2 * b * b

    a, b = math.log(found.value / (1 - found.value)), found.length_effect
    best = likelihood(a, b)
    assert all(likelihood(a + x, b + y) < best for x, y in product((-0.02, 0, 0.02), repeat=2) if (x, y) != (0, 0))
    assert found.low < sigmoid(-0.4) < found.high  # the rate that made the outcomes
    assert found.plain > 0.55


def test_outcomes_that_length_separates_stay_finite_and_uncertain() -> None:
    found = length_controlled(
        [1.0] * 20 + [0.0] * 20, [float(n) for n in range(1, 21)] + [-float(n) for n in range(1, 21)]
    )
    assert found is not None
    assert found.value == pytest.approx(0.5)
    assert math.isfinite(found.length_effect)
    assert found.low < 0.25 < 0.75 < found.high


def test_the_same_difference_everywhere_says_nothing_about_equal_length() -> None:
    found = length_controlled([1.0] * 7 + [0.0] * 3, [100.0] * 10)
    assert found is not None
    assert found.low < 0.05
    assert found.high > 0.95


def test_equal_outcomes_have_wilsons_interval_and_ties_are_one_half() -> None:
    wins = length_controlled([1.0] * 10, [5.0, -5.0] * 5)
    assert wins is not None
    assert (wins.value, wins.high) == (1.0, 1.0)
    assert wins.low == pytest.approx(0.7225, abs=1e-4)
    ties = length_controlled([0.5] * 10, [5.0, -5.0] * 5)
    assert ties is not None
    assert (ties.plain, ties.value) == (0.5, pytest.approx(0.5))
    assert length_controlled([], []) is None


@pytest.mark.parametrize(("outcomes", "differences"), [([1.1], [0.0]), ([1.0, 0.0], [0.0, math.nan])])
def test_what_is_no_outcome_is_refused(outcomes: list[float], differences: list[float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        length_controlled(outcomes, differences)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (5, 2.5706), (10, 2.2281), (30, 2.0423)]
)
def test_quantiles_of_student_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, rel=2e-3)


def test_one_value_has_no_interval() -> None:
    assert mean_interval([2.0]) == (2.0, -math.inf, math.inf)
    assert mean_interval([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="must not be empty"):
        mean_interval([])
