"""Figures of a reward model on right and wrong completions, each worked by hand or by a slow formula in the test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from reasoner.evaluation.choices_report import ScoredChoice, choices_report
from reasoner.evaluation.reward_bench import SECOND, SECTIONS, Gap, Share, benchmark_of, ties_score, weighted
from verifiers.stats import wilson_interval


def row(
    chosen: Sequence[float],
    rejected: Sequence[float],
    subset: str = "",
    *,
    name: str = "0",
    tokens: tuple[int, int] = (1, 1),
) -> ScoredChoice:
    return ScoredChoice(
        id=name,
        subset=subset,
        chosen=chosen,
        rejected=rejected,
        chosen_tokens=[tokens[0]] * len(chosen),
        rejected_tokens=[tokens[1]] * len(rejected),
    )


@pytest.mark.parametrize(
    ("chosen", "rejected", "right"),
    [
        ([1.0], [0.0], 1.0),
        ([1.0], [1.0], 0.0),  # of two, equal is wrong
        ([3.0], [1.0, 2.0, 0.0], 1.0),
        ([2.0], [2.0, 2.0, 0.0], 1 / 3),  # of more, one of the three highest is taken
        ([0.0], [1.0, 0.0, 0.0], 0.0),
        ([2.0, 0.0], [1.0, 1.0], 1.0),
        ([2.0, 2.0], [2.0, 1.0], 2 / 3),
    ],
)
def test_a_row_is_ranked_rightly(chosen: list[float], rejected: list[float], right: float) -> None:
    assert row(chosen, rejected, "ties").right == pytest.approx(right)  # a subset of that name without ids of pairs


def test_ties_by_hand() -> None:
    rows = {
        "tied:0": Gap.of([5.0, 4.0], [2.0, 1.0]),  # 1 apart, 2 above the wrong ones
        "ref:0": Gap.of([5.0], [2.0, 1.0]),  # 3 above
        "tied:1": Gap.of([3.0, 1.0], [0.0]),  # 2 apart, 1 above
        "ref:1": Gap.of([2.0], [3.0]),  # 1 below
        "tied:2": Gap.of([1.0, 0.0], [2.0]),  # its other half is missing
        "ref:3": Gap.of([1.0], [0.0]),
        "tied:3": Gap.of([1.0], [0.0]),  # must have several right ones
    }
    found = ties_score(rows)
    assert found is not None
    assert (found.accuracy_several, found.accuracy_one, found.margin, found.margin_hard) == (1.0, 0.5, 0.5, 0.5)
    assert found.margin_size == pytest.approx((0.7615942 - 0.9051483) / 2)  # tanh(2 / 1 - 1), tanh(-1 / 2 - 1)
    assert found.score.value == pytest.approx((1.007615942 + 0.290948517) / 2)
    assert (found.score.rows, found.unpaired) == (2, 3)
    assert ties_score({"ref:0": rows["ref:0"]}) is None


@pytest.mark.parametrize(("rejected", "size"), [(1.0, 1.0), (2.0, 0.0), (3.0, -1.0)])
def test_right_ones_that_are_equal_divide_by_nothing(rejected: float, size: float) -> None:
    found = ties_score({"tied:0": Gap.of([2.0, 2.0], [rejected]), "ref:0": Gap.of([9.0], [0.0])})
    assert found is not None
    assert found.margin_size == size


def test_the_interval_of_a_weighted_mean() -> None:
    parts = [Share.of([1.0] * 6 + [0.0] * 4), Share.of([1.0] * 10 + [0.0] * 20)]
    by_rows = weighted([(10, parts[0]), (30, parts[1])])
    assert by_rows == pytest.approx((16 / 40, *wilson_interval(16, 40), 40))  # as one sample
    evenly = weighted([(1, parts[0]), (1, parts[1])])
    rows = 1 / (0.25 / 10 + 0.25 / 30)
    assert evenly == pytest.approx((7 / 15, *wilson_interval(7 / 15 * rows, rows), 40))
    assert Share.of([1 / 3, 1.0, 0.0, 0.5])[1:3] == pytest.approx(wilson_interval(11 / 6, 4))


def test_sections_and_score_of_reward_bench() -> None:
    """Against plain loops over made accuracies; math-prm counts as much as the 984 rows of code."""
    assert sum(SECTIONS["Reasoning"].values()) == 2 * 984
    assert sum(weight for weights in SECTIONS.values() for weight in weights.values()) == 2985 - 447 + 984
    names = [name for weights in SECTIONS.values() for name in weights]
    shares = {name: Share(place / 23, 0.0, 1.0, 5) for place, name in enumerate(names)}
    found = benchmark_of(shares, best_of=2)
    assert found is not None
    assert found.score is not None
    means = [
        sum(shares[name].value * weight for name, weight in weights.items()) / sum(weights.values())
        for weights in SECTIONS.values()
    ]
    assert [share.value for share in found.sections.values()] == pytest.approx(means)
    assert found.score.value == pytest.approx(sum(means) / 4)
    del shares["donotanswer"]
    less = benchmark_of(shares, best_of=2)
    assert less is not None
    assert (less.score, less.missing) == (None, ["donotanswer"])
    assert benchmark_of({"mine": Share(1.0, 0.0, 1.0, 5)}, best_of=2) is None


def test_best_of_four_ties_and_the_score_of_reward_bench_2() -> None:
    rows = [row([2.0], [1.0, 0.0, 0.0], name, name=f"{name}{n}") for name in SECOND[:-1] for n in range(2)]
    rows[0] = row([1.0], [1.0, 1.0, 0.0], SECOND[0])  # 1/3
    rows += [
        row([5.0, 4.0], [2.0, 1.0], "Ties", name="tied:0"),
        row([5.0], [2.0, 1.0], "Ties", name="ref:0"),
    ]
    found = choices_report(rows)
    assert found.benchmark is not None
    assert found.benchmark.score is not None
    assert found.subsets["Factuality"].value == pytest.approx(2 / 3)
    assert found.subsets["Ties"].value == pytest.approx(1.007615942)
    assert found.benchmark.score.value == pytest.approx((2 / 3 + 4 + 1.007615942) / 6)
    assert found.best_of[4].value == pytest.approx((1 / 3 + 9) / 10)
    assert found.accuracy.value == pytest.approx((1 / 3 + 11) / 12)
    # 10 rows of 3 pairs, one of 4 and one of 2; of the first row two pairs are equal and one is won
    assert (found.pairs["pairs"], found.equal_pairs) == (36, 2)
    assert found.pair_accuracy.value == pytest.approx((1 / 3 + 11) / 12)
    broken = choices_report(rows[:-1])  # the only prompt of Ties lacks its other half
    assert broken.benchmark is not None
    assert (broken.ties, broken.benchmark.score, broken.benchmark.missing) == (None, None, ["Ties"])


def test_names_of_reward_bench_2_alone_do_not_make_it() -> None:
    assert choices_report([row([1.0], [0.0], "Math"), row([1.0], [0.0], "Safety")]).benchmark is None


def test_rank_correlation_counts_each_completion_once() -> None:
    rows = [row([3.0], [1.0, 2.0], tokens=(4, 2)), row([0.0], [0.0], tokens=(1, 9))]
    found = choices_report(rows)
    rewards, lengths = np.array([3.0, 1.0, 2.0, 0.0, 0.0]), np.array([4.0, 2.0, 2.0, 1.0, 9.0])

    def ranks(values: np.ndarray) -> list[float]:
        return [float((values < value).sum() + ((values == value).sum() + 1) / 2) for value in values]

    assert found.rank_correlation == pytest.approx(np.corrcoef(ranks(rewards), ranks(lengths))[0, 1])
    assert math.isnan(choices_report(rows[1:] + rows[1:]).rank_correlation)  # all rewards are equal
    assert found.subsets == {}  # without names there is one set
