"""Agreement and kappa against scikit-learn and SciPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from tests.unit.verifiers.judge.test_judgments import data
from verifiers.judge.agreement import agreement, cohen_kappa, graded_agreement, kendall, pearson, ranks, spearman


@pytest.mark.parametrize("seed", range(6))
def test_agreement_is_that_of_scikit_learn_and_scipy(seed: int) -> None:
    random = np.random.default_rng(seed)
    first = random.integers(1, 6, 200)
    second = np.clip(first + random.integers(-2, 3, 200), 1, 5)
    one, other = [str(v) for v in first], [str(v) for v in second]
    for weights, theirs in (("none", None), ("linear", "linear"), ("quadratic", "quadratic")):
        ours = cohen_kappa(one, other, order=list("12345"), weights=weights)  # type: ignore[arg-type]
        assert ours.value == pytest.approx(cohen_kappa_score(one, other, labels=list("12345"), weights=theirs))
    left, right = first.astype(float).tolist(), (second + random.normal(0, 0.1, 200).round(1)).tolist()
    assert pearson(left, right) == pytest.approx(stats.pearsonr(left, right).statistic)
    assert spearman(left, right) == pytest.approx(stats.spearmanr(left, right).statistic)
    assert kendall(left, right) == pytest.approx(stats.kendalltau(left, right).statistic)
    assert ranks(left) == stats.rankdata(left).tolist()
    found: Any = graded_agreement(left, second.astype(float).tolist())
    assert found["accuracy"][0] == np.mean(first == second)
    interval = stats.binomtest(int(np.sum(first == second)), 200).proportion_ci(method="wilson")
    assert found["accuracy"][1:] == pytest.approx([interval.low, interval.high])
    assert found["mean_error"] == pytest.approx(np.mean(np.abs(first - second)))


def test_the_interval_of_kappa_is_that_of_resampling() -> None:
    random = np.random.default_rng(1)
    first = random.integers(0, 3, 400)
    second = np.where(random.random(400) < 0.7, first, random.integers(0, 3, 400))
    for weights in ("none", "quadratic"):
        ours = cohen_kappa([str(v) for v in first], [str(v) for v in second], weights=weights)  # type: ignore[arg-type]
        drawn = []
        for _ in range(400):
            rows = random.integers(0, 400, 400)
            drawn.append(cohen_kappa_score(first[rows], second[rows], weights=None if weights == "none" else weights))
        low, high = np.percentile(drawn, [2.5, 97.5])
        assert ours.interval.low == pytest.approx(low, abs=0.02)
        assert ours.interval.high == pytest.approx(high, abs=0.02)


def test_kappa_where_nothing_varies_is_not_a_number() -> None:
    assert math.isnan(cohen_kappa(["a", "a"], ["a", "a"]).value)
    assert agreement(["a", "a"], ["a", "a"])["kappa"] == [None, None, None]
    assert cohen_kappa(["a", "b"] * 50, ["b", "a"] * 50).value == -1
    with pytest.raises(ValueError, match="same rows"):
        cohen_kappa(["a"], [])


@pytest.mark.parametrize("name", ["mt_bench_eval", "vicuna_eval"])
def test_repeated_scores_of_prometheus(name: str) -> None:
    rows = data(name)
    assert len(rows) == 320
    scores = np.array([row["gpt4_score"] for row in rows], dtype=float)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        first, second = scores[:, a].tolist(), scores[:, b].tolist()
        found: Any = graded_agreement(first, second)
        assert found["accuracy"][0] == np.mean(scores[:, a] == scores[:, b])
        assert found["kappa"][0] == pytest.approx(cohen_kappa_score(scores[:, a], scores[:, b]))
        weighted = cohen_kappa_score(scores[:, a], scores[:, b], weights="quadratic")
        assert found["kappa_quadratic"][0] == pytest.approx(weighted)
        assert found["pearson"] == pytest.approx(stats.pearsonr(first, second).statistic)
        assert found["spearman"] == pytest.approx(stats.spearmanr(first, second).statistic)
        assert found["kendall"] == pytest.approx(stats.kendalltau(first, second).statistic)
