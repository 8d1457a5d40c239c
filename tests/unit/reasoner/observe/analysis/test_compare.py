from __future__ import annotations

import itertools

import numpy as np
import pytest

import reasoner.observe.analysis.compare as module
from reasoner.observe.analysis.compare import (
    compare,
    holm,
    mcnemar,
    paired_interval,
    problem_values,
    sign_flip_test,
    student_quantile,
)
from tests.unit.reasoner.runs import make_history, make_records


def test_mcnemar_by_hand() -> None:
    # 1 gained and 7 lost: 2 * (C(8,0) + C(8,1)) / 2^8
    assert mcnemar(1, 7) == pytest.approx(2 * 9 / 256)
    assert mcnemar(3, 3) == 1.0
    assert mcnemar(0, 0) == 1.0


def test_sign_flips_against_all_signs() -> None:
    values = [0.25, -0.5, 0.75, 1.0, 0.0, 0.25]
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in itertools.product((-1, 1), repeat=6)
    ]
    assert sign_flip_test(values) == pytest.approx(np.mean([s >= 1.75 - 1e-9 for s in sums]))


def test_random_sign_flips_agree_with_the_exact_test(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(np.random.default_rng(3).normal(0.3, 1, 14))
    exact = sign_flip_test(values)
    monkeypatch.setattr(module, "EXACT_PAIRS", 0)
    assert sign_flip_test(values) == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize(("freedom", "wanted"), [(5, 2.5706), (19, 2.0930), (99, 1.9842), (999, 1.9623)])
def test_student_quantiles_of_the_table(freedom: int, wanted: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(wanted, rel=1e-3)


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


@pytest.mark.parametrize(("problems", "samples", "gain"), [(40, 1, 0.1), (40, 4, 0.0), (150, 1, 0.0), (150, 4, 0.05)])
def test_intervals_cover_the_truth_at_their_rate(
    problems: int, samples: int, gain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESAMPLES", 1000)
    rng = np.random.default_rng(7)
    grid = np.linspace(0, 1, 20_001)
    truth = float((np.clip(grid + gain, 0, 1) - grid).mean())
    covered = 0
    runs = 400
    for seed in range(runs):
        p = rng.random(problems)
        a = rng.binomial(samples, p) / samples
        b = rng.binomial(samples, np.clip(p + gain, 0, 1)) / samples
        low, high = paired_interval(list(b - a), seed=seed)
        covered += low <= truth <= high
    # 95 % stated; 400 runs have a standard error of 1.1 %
    assert 0.915 <= covered / runs <= 0.985


def test_the_tests_reject_at_their_rate_where_nothing_differs() -> None:
    rng = np.random.default_rng(11)
    rejected = {"mcnemar": 0, "flips": 0}
    for _ in range(400):
        p = rng.random(60)
        a, b = rng.binomial(1, p), rng.binomial(1, p)
        rejected["mcnemar"] += mcnemar(int(((b - a) == 1).sum()), int(((b - a) == -1).sum())) < 0.05
        c = (rng.binomial(4, p[:14]) - rng.binomial(4, p[:14])) / 4
        rejected["flips"] += sign_flip_test(list(c)) < 0.05
    assert rejected["mcnemar"] / 400 <= 0.07
    assert rejected["flips"] / 400 <= 0.07


def test_equal_runs_have_no_difference() -> None:
    values = problem_values(make_history(make_records()).rows, "correct")
    (found,) = compare({"a": values, "b": dict(values)})
    assert found.verdict.startswith("no difference")
    assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_better_worse_and_what_is_left_out() -> None:
    a = {f"p{i}": float(i % 4 == 0) for i in range(200)}
    b = {name: 1.0 if i % 3 else value for i, (name, value) in enumerate(a.items())} | {"new": 1.0}
    better, worse = compare({"a": a, "b": b, "c": dict.fromkeys(a, 0.0)})
    assert better.verdict == "better"
    assert better.only_b == 1
    assert better.low > 0
    assert worse.verdict == "worse"
    assert worse.test == "McNemar, exact"


def test_win_rates_count_ties_half() -> None:
    a = {f"p{i}": 0.5 for i in range(10)}
    (found,) = compare({"a": a, "b": {name: [0.6, 0.9, 0.5, 0.1, 0.7][i % 5] for i, name in enumerate(a)}})
    assert found.win_rate == pytest.approx((6 * 1 + 2 * 0.5) / 10)  # whatever the size of the gain
    assert (found.win_low, found.win_high) == paired_interval([1.0, 1.0, 0.5, 0.0, 1.0] * 2)
    assert found.to_json()["win_rate"] == found.win_rate
