"""Each advantage estimator against NumPy, and numbers worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from reasoner.algorithm.advantage import ESTIMATORS, Estimator, get_estimator
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.group_baselines import (
    GROUP_ADVANTAGES,
    gae_row,
    group_advantages,
    group_signal,
    leave_one_out_advantages,
    normalized_sums,
    overlong_penalty,
    terms_of,
)
from reasoner.config.estimators import ESTIMATOR_TRAITS
from tests.unit.reasoner.policy.test_policy import config_with, make_batch


def batch_with(rewards: list[float]) -> Batch:
    batch = make_batch(config_with(), rows=len(rewards))
    return replace(batch, reward_B=torch.tensor(rewards, dtype=torch.float64))


REWARDS = [1.0, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0, 0.25]
"""Two groups of four."""


def slow(name: str, batch: Batch) -> np.ndarray:
    """Return [B] advantages before they are spread over tokens, or [N] if they differ within a row."""
    groups = np.array(REWARDS).reshape(2, 4)
    centred = groups - groups.mean(1, keepdims=True)
    row_N, mask = batch.row_N.numpy(), batch.loss_mask_N.numpy()

    def whiten(values_N: np.ndarray) -> np.ndarray:
        return (values_N - values_N[mask].mean()) / (values_N[mask].std() + 1e-8)

    match name:
        case "grpo":
            return (centred / (groups.std(1, keepdims=True) + 1e-6)).ravel()[row_N]
        case "dr_grpo":
            return centred.ravel()[row_N]
        case "rloo":
            others = (groups.sum(1, keepdims=True) - groups) / 3
            return (groups - others).ravel()[row_N]
        case "rejection":
            return (groups.ravel() >= 1).astype(float)[row_N]
        case "reinforce_pp":
            return whiten(np.array(REWARDS)[row_N])
        case "reinforce_pp_baseline":
            return whiten(centred.ravel()[row_N])
        case "gae":
            out = np.zeros(len(row_N))
            values = batch.values_N.double().numpy()  # pyright: ignore
            for row in range(len(batch)):
                where = np.flatnonzero((row_N == row) & mask)  # a reply of an environment takes no time
                running = 0.0
                for place in range(len(where) - 1, -1, -1):
                    last = place == len(where) - 1
                    reward = REWARDS[row] if last else 0.0
                    following = 0.0 if last else values[where[place + 1]]
                    running = reward + following - values[where[place]] + 0.95 * running
                    out[where[place]] = running
            return whiten(out)
        case "reverse_kl":
            teacher, student = (x.double().numpy() for x in (batch.teacher_logprobs_N, batch.old_logprobs_N))  # pyright: ignore
            gap = teacher - student
            return gap - gap[batch.loss_mask_N.numpy()].mean()
    raise AssertionError(name)


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_estimator_equals_numpy(name: str) -> None:
    batch = batch_with(REWARDS)
    values = torch.randn(len(batch.row_N), generator=torch.Generator().manual_seed(0))
    batch = replace(batch, values_N=values, teacher_logprobs_N=values - 3)
    found = get_estimator(name).function(batch)
    assert found.advantages_N is not None
    trained, expected = batch.loss_mask_N.numpy(), slow(name, batch)
    np.testing.assert_allclose(found.advantages_N.numpy()[trained], expected[trained], atol=2e-6)


def test_by_hand() -> None:
    assert group_advantages([1, 0, 0, 1]) == [0.5, -0.5, -0.5, 0.5]
    assert group_advantages([1, 0, 0, 0], scale_by_std=True) == pytest.approx([3**0.5, *[-(3**-0.5)] * 3], rel=1e-5)
    assert leave_one_out_advantages([1, 0, 0]) == [1, -0.5, -0.5]
    assert leave_one_out_advantages([1]) == [0]
    assert gae_row([0, 1], [0.5, 0.25], gamma=0.5, lam=0.5).advantages == pytest.approx([-0.375 + 0.25 * 0.75, 0.75])


def test_reward_on_every_row_lands_on_its_last_token_with_the_kl_of_each() -> None:
    batch = batch_with(REWARDS)
    found = get_estimator("reinforce_pp").function(batch, kl_coef=0.1, whiten=False)
    assert found.advantages_N is not None
    assert batch.old_logprobs_N is not None
    assert batch.ref_logprobs_N is not None
    kl = 0.1 * (batch.old_logprobs_N - batch.ref_logprobs_N) * batch.loss_mask_N
    starts = batch.row_starts()
    for row, reward in enumerate(REWARDS):
        span = slice(starts[row], starts[row + 1])
        assert found.advantages_N[starts[row]].item() == pytest.approx(reward - kl[span].sum().item(), abs=1e-5)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
@pytest.mark.parametrize("rewards", [[1.0] * 4, [0.1, 0.1 + 1e-12, 0.1, 0.1], [1e6] * 4])
def test_a_group_without_signal_gives_zeros(name: str, rewards: list[float]) -> None:
    found = get_estimator(name).function(batch_with(rewards))
    assert found.advantages_N is not None
    assert not found.advantages_N.any()


def test_signal_has_a_threshold() -> None:
    assert not group_signal([0.5, 0.5 + 1e-7])
    assert group_signal([0.5, 0.5001])


@pytest.mark.parametrize("rewards", [[], [float("nan"), 1.0], [float("inf"), 0.0]])
def test_bad_rewards_are_an_error(rewards: list[float]) -> None:
    with pytest.raises(ValueError, match="must"):
        group_advantages(rewards)


def test_overlong_penalty_by_hand() -> None:
    assert [overlong_penalty(n, max_tokens=100, penalty_tokens=20) for n in (50, 80, 90, 100, 120)] == [
        0, 0, -0.5, -1, -1,
    ]  # fmt: skip


def test_the_table_of_estimators_is_that_of_their_functions() -> None:
    assert set(ESTIMATORS) == set(ESTIMATOR_TRAITS)
    by_group = {name for name, traits in ESTIMATOR_TRAITS.items() if traits.by_group}
    assert by_group == {*GROUP_ADVANTAGES}
    relative = {"grpo", "dr_grpo", "rloo", "reinforce_pp_baseline"}
    assert {name for name, estimator in ESTIMATORS.items() if estimator.group_relative} == relative
    assert {name for name, estimator in ESTIMATORS.items() if estimator.needs} == {"gae", "reverse_kl"}


def test_an_estimator_of_ones_own_is_a_function_or_an_estimator() -> None:
    assert get_estimator("reasoner.algorithm.advantage:rloo").function is ESTIMATORS["rloo"].function
    assert get_estimator(f"{__name__}:OWN") is OWN


OWN = Estimator(lambda batch: batch, group_relative=False)


def test_unknown_estimator_suggests_the_closest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'rloo'"):
        get_estimator("rlooo")


def test_components_are_normalized_before_they_are_added_as_in_gdpo() -> None:
    rng = np.random.default_rng(0)
    weights = {"exact": 1.0, "short": 0.1, "format": -0.5}
    values = np.stack([rng.integers(0, 2, 8), 50 * rng.random(8), np.ones(8)], axis=1).astype(float)  # [G, components]
    rows = [dict(zip(weights, row.tolist(), strict=True)) for row in values]
    terms = [terms_of(sum(weights[n] * row[n] for n in row), components=row, weights=weights) for row in rows]
    found = np.array(normalized_sums(terms))
    std = values.std(0)
    scaled = np.where(std > 0, (values - values.mean(0)) / (std + 1e-6), 0.0)
    np.testing.assert_allclose(found, scaled @ np.array([*weights.values()]), atol=1e-9)
    assert found.mean() == pytest.approx(0.0, abs=1e-9)


def test_components_count_by_their_weight_and_not_by_their_spread() -> None:
    def sums(scale: float) -> list[float]:
        exact, other = [1.0, 0.0, 1.0, 0.0], [scale, scale, 0.0, 0.0]
        weights = {"exact": 1.0, "other": 0.5}
        return normalized_sums(
            [
                terms_of(a + 0.5 * b, components={"exact": a, "other": b}, weights=weights)
                for a, b in zip(exact, other, strict=True)
            ]
        )

    for scale in (1.0, 100.0):
        assert sums(scale) == pytest.approx([1.5, -0.5, 0.5, -1.5], abs=1e-4)


def test_other_ways_to_the_same_sum_keep_different_advantages() -> None:
    weights = {"a": 1.0, "b": 1.0, "c": 1.0}
    ways = [{"a": 1.0, "b": 0.0, "c": 0.0}, {"a": 0.0, "b": 1.0, "c": 0.0}, *[{"a": 0.0, "b": 0.0, "c": 1.0}] * 2]
    found = normalized_sums([terms_of(1.0, components=way, weights=weights) for way in ways])
    assert group_signal(found)
    assert not group_signal([1.0] * 4)
    whole = normalized_sums([terms_of(reward, components={}, weights={}) for reward in (2.0, 0.0, 0.0, 2.0)])
    assert whole == pytest.approx(group_advantages([2.0, 0.0, 0.0, 2.0], scale_by_std=True)), "no sum: one component"


def test_rejection_takes_the_right_answers_unless_it_is_given_a_threshold() -> None:
    sums = [1.0, 2.0, 1.0, 0.0, 1.3, 1.1, 0.3, 0.0]
    quality = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    batch = replace(batch_with(sums), quality_B=torch.tensor(quality, dtype=torch.float64))
    rejection = get_estimator("rejection").function
    starts = batch.row_starts()[:-1]
    by_right, by_reward = rejection(batch), rejection(batch, threshold=1.2)
    assert by_right.advantages_N is not None
    assert by_reward.advantages_N is not None
    assert by_right.advantages_N[starts].tolist() == quality
    assert by_reward.advantages_N[starts].tolist() == [float(reward >= 1.2) for reward in sums]
    assert by_right.reward_B.tolist() == sums
