"""Defaults and bounds of estimators, corrections and losses on pairs, at the last value taken and the first refused."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import Tensor

from reasoner.algorithm.advantage import Estimator, get_estimator, token_rewards
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.group_baselines import (
    Term,
    gae_row,
    group_advantages,
    group_signal,
    leave_one_out_advantages,
    normalized_sums,
    overlong_penalty,
    rejection_advantages,
)
from reasoner.algorithm.importance import IMPORTANCE
from reasoner.algorithm.kl import adapted_kl_coef
from reasoner.algorithm.pairwise import DPO_LOSSES, PairScores, bradley_terry
from reasoner.algorithm.token_weights import token_weights
from tests.unit.reasoner.algorithm.test_batch import rows, stage

# ----------------------------------------------------------------------------------------------- groups and rows


def test_signal_begins_above_a_millionth() -> None:
    assert not group_signal([0.0, 1e-6])
    assert group_signal([0.0, 1.001e-6])
    assert not group_signal([])


def test_the_std_of_a_group_is_raised_by_a_millionth() -> None:
    # rewards 0 and 4e-6: mean 2e-6, population std 2e-6
    assert group_advantages([0.0, 4e-6], scale_by_std=True) == pytest.approx([-2 / 3, 2 / 3])
    assert group_advantages([0.0, 4e-6]) == pytest.approx([-2e-6, 2e-6])


def test_two_rollouts_are_each_others_baseline_and_one_has_none() -> None:
    assert leave_one_out_advantages([1.0, 0.25]) == [0.75, -0.75]
    assert leave_one_out_advantages([3.0]) == [0.0]


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_reward_must_be_finite(bad: float) -> None:
    for function in (group_advantages, leave_one_out_advantages):
        with pytest.raises(ValueError, match="must be finite"):
            function([0.0, bad])
        with pytest.raises(ValueError, match="must not be empty"):
            function([])


def test_a_component_that_a_rollout_lacks_is_0_in_the_mean_and_adds_nothing() -> None:
    # b is 3, 1 and 0 (absent): mean 4/3, population variance (25 + 1 + 16) / 27
    terms = [{"b": Term(0.5, 3.0)}, {"b": Term(0.5, 1.0)}, {}]
    std = (42 / 27) ** 0.5
    assert normalized_sums(terms) == pytest.approx([0.5 * 5 / 3 / std, 0.5 * -1 / 3 / std, 0.0], abs=1e-5)


def test_rejection_takes_rewards_from_1_on() -> None:
    assert rejection_advantages([0.999, 1.0, 2.0]) == [0.0, 1.0, 1.0]
    assert rejection_advantages([0.4, 0.5], threshold=0.5) == [0.0, 1.0]


def test_gae_of_a_single_token_is_its_reward_less_its_value() -> None:
    assert gae_row([2.0], [0.5], gamma=0.9, lam=0.9) == ([1.5], [2.0])
    assert gae_row([], [], gamma=0.9, lam=0.9) == ([], [])
    with pytest.raises(ValueError, match="zip"):
        gae_row([1.0], [0.5, 0.5], gamma=0.9, lam=0.9)


def test_an_overlong_penalty_may_begin_at_the_first_token_and_needs_one() -> None:
    assert overlong_penalty(5, max_tokens=10, penalty_tokens=10) == -0.5
    assert overlong_penalty(10, max_tokens=10, penalty_tokens=1) == -1
    assert overlong_penalty(9, max_tokens=10, penalty_tokens=1) == 0
    for tokens in (0, -1, 11):
        with pytest.raises(ValueError, match=r"penalty_tokens must be in 1 \.\. max_tokens"):
            overlong_penalty(5, max_tokens=10, penalty_tokens=tokens)


# ---------------------------------------------------------------------------------------------------- estimators


def priced() -> Batch:
    """Rows of 3, 2 and 1 tokens, rewards 1.25, -0.5 and 1.3, log policy - log ref 1 on each; one token is masked."""
    made = Batch.of_rollouts(rows(), config=stage())
    return replace(made, old_logprobs_N=torch.zeros(6), ref_logprobs_N=torch.full((6,), -1.0))


def test_token_rewards_by_hand() -> None:
    made = priced()
    assert token_rewards(made, kl_coef=0.0).tolist() == [0, 0, 1.25, 0, -0.5, 1.3]
    assert token_rewards(made, kl_coef=0.5).tolist() == pytest.approx([-0.5, 0, 0.75, -0.5, -1.0, 0.8])
    # without old log-probabilities the engine's stand for them: 0, -1, -2, 0, -1, 0
    engine = token_rewards(replace(made, old_logprobs_N=None), kl_coef=0.5)
    assert engine.tolist() == pytest.approx([-0.5, 0, 1.75, -0.5, -0.5, 0.8])
    missing = replace(made, ref_logprobs_N=None)
    assert token_rewards(missing, kl_coef=0.0).tolist() == [0, 0, 1.25, 0, -0.5, 1.3]
    with pytest.raises(ValueError, match="ref_logprobs_N must be set"):
        token_rewards(missing, kl_coef=0.5)


def test_estimators_take_no_kl_off_unless_they_are_told() -> None:
    made = replace(priced(), values_N=torch.zeros(6))
    for name in ("reinforce_pp", "gae"):
        estimator = get_estimator(name).function
        assert torch.equal(estimator(made).advantages_N, estimator(made, kl_coef=0.0).advantages_N)
        assert not torch.equal(estimator(made).advantages_N, estimator(made, kl_coef=0.5).advantages_N)


def test_rewards_to_go_by_hand() -> None:
    found = get_estimator("reinforce_pp").function(priced(), kl_coef=0.5, whiten=False)
    assert found.advantages_N.tolist() == pytest.approx([0.25, 0.75, 0.75, -1.5, -1.0, 0.8])


def test_gae_by_hand_in_advantages_and_returns() -> None:
    made = replace(priced(), values_N=torch.full((6,), 0.5))
    found = get_estimator("gae").function(made, gamma=1.0, lam=1.0, whiten=False)
    # the second token is not trained on: it has no advantage, and takes no time
    assert found.advantages_N.tolist() == pytest.approx([0.75, 0.0, 0.75] + [-1.0] * 2 + [0.8])
    assert found.returns_N.tolist() == pytest.approx([1.25, 0.0, 1.25] + [-0.5] * 2 + [1.3])
    with pytest.raises(ValueError, match="values_N must be set for GAE"):
        get_estimator("gae").function(priced())


def test_whitening_takes_mean_and_std_over_the_trained_tokens() -> None:
    made = Batch.of_rollouts(rows(), config=stage())
    found = get_estimator("reinforce_pp").function(made)
    raw = [1.25, 1.25, 1.25, -0.5, -0.5, 1.3]
    kept = [1.25, 1.25, -0.5, -0.5, 1.3]
    mean = sum(kept) / 5
    std = (sum((value - mean) ** 2 for value in kept) / 5) ** 0.5
    assert found.advantages_N.tolist() == pytest.approx([(value - mean) / std for value in raw], abs=1e-6)


def test_one_trained_token_is_not_whitened_and_two_are() -> None:
    pair = Batch.of_rollouts([(0, row) for _, row in rows()[2:]] * 2, config=stage())
    pair = replace(pair, reward_B=torch.tensor([1.0, 4.0], dtype=torch.float64))
    estimator = get_estimator("reinforce_pp").function
    assert estimator(pair).advantages_N.tolist() == pytest.approx([-1.0, 1.0])
    assert estimator(pair, whiten=False).advantages_N.tolist() == [1.0, 4.0]
    assert estimator(pair.select([1])).advantages_N.tolist() == [4.0]


def test_whitening_raises_the_std_by_a_hundred_millionth() -> None:
    pair = Batch.of_rollouts([(0, row) for _, row in rows()[2:]] * 2, config=stage())
    pair = replace(pair, reward_B=torch.tensor([0.0, 4e-8], dtype=torch.float64))
    # mean 2e-8, population std 2e-8
    assert get_estimator("reinforce_pp").function(pair).advantages_N.tolist() == pytest.approx([-2 / 3, 2 / 3])


def test_an_estimator_of_ones_own_compares_the_rows_of_a_group() -> None:
    own = get_estimator(f"{__name__}:unchanged")
    assert own == Estimator(unchanged, needs=frozenset(), group_relative=True, by_group=False)
    with pytest.raises(FrozenInstanceError):
        own.by_group = True  # type: ignore[misc]
    assert not hasattr(own, "__dict__")


def unchanged(batch: Batch) -> Batch:
    return batch


def test_rejection_reads_rewards_where_there_is_no_quality() -> None:
    made = replace(Batch.of_rollouts(rows(), config=stage()), quality_B=None)
    assert get_estimator("rejection").function(made).advantages_N.tolist() == [1.0] * 3 + [0.0] * 2 + [1.0]


# ---------------------------------------------------------------------------------------------- weights and ratios


def test_a_step_without_tokens_has_no_weights() -> None:
    none = torch.zeros(0)
    for mode in ("token", "sequence", "constant"):
        found = token_weights(none.bool(), none.long(), rows=0, mode=mode, max_tokens=10)
        assert found.tolist() == []


def ratio_of(name: str, ratio: float) -> float:
    gap_N = torch.tensor([math.log(ratio)], dtype=torch.float64)
    return IMPORTANCE[name](gap_N, torch.tensor([0]), torch.tensor([True])).item()


@pytest.mark.parametrize(
    ("name", "ratio", "weight"),
    [
        ("truncated", 1.9, 1.9),
        ("truncated", 9.0, 2.0),
        ("truncated_sequence", 1.9, 1.9),
        ("truncated_sequence", 9.0, 2.0),
        ("masked_sequence", 2.9, 2.9),
        ("masked_sequence", 3.1, 0.0),
        ("masked", 4.9, 4.9),
        ("masked", 5.1, 0.0),
        ("masked", 0.51, 0.51),
        ("masked", 0.49, 0.0),
    ],
)
def test_bounds_of_ratios_by_default(name: str, ratio: float, weight: float) -> None:
    assert ratio_of(name, ratio) == pytest.approx(weight)


def test_a_kl_coefficient_moves_by_a_fifth_at_most() -> None:
    def moved(kl: float) -> float:
        return adapted_kl_coef(0.5, kl=kl, target=2.0, rows=10, horizon=20)

    assert [moved(kl) for kl in (-8.0, 1.6, 1.8, 2.0, 2.2, 2.4, 80.0)] == pytest.approx(
        [0.45, 0.45, 0.475, 0.5, 0.525, 0.55, 0.55]
    )
    assert adapted_kl_coef(0.5, kl=0.25, target=0.5, rows=1, horizon=1) == pytest.approx(0.4)
    assert adapted_kl_coef(1e-3, kl=1e-3, target=1e-3, rows=1, horizon=1) == pytest.approx(1e-3)
    for coef, target in ((-0.5, 1.0), (1.0, -0.5), (0.0, 1.0), (1.0, 0.0)):
        with pytest.raises(ValueError, match="must be > 0"):
            adapted_kl_coef(coef, kl=1.0, target=target, rows=1, horizon=1)


# ---------------------------------------------------------------------------------------------------------- pairs


def one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def pair(first: float, second: float, *, target: float = 1.0, tokens: tuple[float, float] = (1.0, 1.0)) -> PairScores:
    return PairScores(one(first), one(second), one(tokens[0]), one(tokens[1]), one(target))


def test_a_pair_of_rewards_has_no_margin_and_no_centre_by_default() -> None:
    # s(2) = 1 / (1 + e^-2)
    assert bradley_terry(one(3.0), one(1.0), one(1.0)).item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_labels_are_taken_as_they_are_by_default_and_robust_takes_a_tenth_for_wrong() -> None:
    scores = pair(2.0, 0.0, target=0.75)
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    plain = 0.75 * right + 0.25 * wrong
    assert DPO_LOSSES["sigmoid"](scores, beta=0.5).item() == pytest.approx(plain)
    flipped = 0.25 * right + 0.75 * wrong
    assert DPO_LOSSES["robust"](scores, beta=0.5).item() == pytest.approx((0.9 * plain - 0.1 * flipped) / 0.8)
    assert DPO_LOSSES["robust"](scores, beta=0.5, label_smoothing=0.0).item() == pytest.approx(plain)
    DPO_LOSSES["robust"](scores, beta=0.5, label_smoothing=0.49)
    for smoothing in (-0.01, -0.9, 0.5, 1.0):
        with pytest.raises(ValueError, match="must be in"):
            DPO_LOSSES["robust"](scores, beta=0.5, label_smoothing=smoothing)


def test_ipo_divides_by_the_tokens_and_a_completion_without_any_by_1() -> None:
    # beta 0.5: the target of the difference is 2 t - 1
    assert DPO_LOSSES["ipo"](pair(3.0, 1.0, tokens=(1.0, 2.0)), beta=0.5).item() == pytest.approx((3 - 0.5 - 1) ** 2)
    assert DPO_LOSSES["ipo"](pair(3.0, 1.0, tokens=(2.0, 1.0)), beta=0.5).item() == pytest.approx((1.5 - 1 - 1) ** 2)
    assert DPO_LOSSES["ipo"](pair(0.0, 0.0, tokens=(0.0, 0.0)), beta=0.5).item() == pytest.approx(1.0)


def test_hinge_asks_for_a_margin_of_1_in_the_direction_of_the_label() -> None:
    def hinge(difference: float, target: float) -> float:
        return DPO_LOSSES["hinge"](pair(difference, 0.0, target=target), beta=0.5).item()

    assert [hinge(1.0, 1.0), hinge(2.0, 1.0), hinge(3.0, 1.0)] == [0.5, 0.0, 0.0]
    assert [hinge(-1.0, 0.0), hinge(-3.0, 0.0), hinge(1.0, 0.0)] == [0.5, 0.0, 1.5]
    assert hinge(1.0, 0.25) == 0.25 * 0.5 + 0.75 * 1.5
