"""The KL coefficient from step to step, and the budget, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reasoner.algorithm.advantage import get_estimator
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.kl_control import KLControl, KLState, row_kl
from tests.unit.reasoner.algorithm.test_batch import rollout, stage
from verifiers import graded


def batch(*, ref: float | None = -1.0) -> Batch:
    """Rows of 5, 2 and 1 tokens with old log-probabilities 0; the second row's first token alone is trained on."""
    masks = ((True,) * 5, (True, False), (False,))
    made = Batch.of_rollouts([(0, rollout(graded(1.0, "r"), mask=mask)) for mask in masks], config=stage())
    reference_N = None if ref is None else torch.full((8,), ref)
    return replace(made, old_logprobs_N=torch.zeros(8), ref_logprobs_N=reference_N)


def control(state: KLState | None = None, **algorithm: object) -> KLControl:
    return KLControl(stage(**algorithm).algorithm, state or KLState())


def test_a_state_begins_within_the_budget_with_the_coefficient_of_the_config() -> None:
    assert KLState() == KLState(coef=None, last_within=0, over_budget=False)
    with pytest.raises(TypeError, match="positional"):
        KLState(0.1)  # type: ignore[misc]
    assert (control(kl_coef=0.3).coef, control(KLState(coef=0.2), kl_coef=0.3).coef) == (0.3, 0.2)


def test_the_kl_of_a_row_is_that_of_its_trained_tokens() -> None:
    assert row_kl(batch()).tolist() == [5.0, 1.0, 0.0]
    assert row_kl(batch(ref=0.5)).tolist() == [-2.5, -0.5, 0.0]
    # without old log-probabilities the engine's stand for them: 0, -1, -2, ... in each row
    assert row_kl(replace(batch(), old_logprobs_N=None)).tolist() == [5.0 - 10.0, 1.0, 0.0]


def test_the_penalty_stands_in_the_loss_or_in_the_reward() -> None:
    in_loss, in_reward = control(kl_coef=0.3), control(kl_coef=0.3, kl_in="reward", advantage="dr_grpo")
    assert (in_loss.loss_coef, in_reward.loss_coef) == (0.3, 0.0)
    estimator = get_estimator("dr_grpo")
    for unchanged in (in_loss, control(KLState(coef=0.0), kl_coef=0.3, kl_in="reward")):
        found = unchanged.estimate(batch(ref=None), estimator)
        assert found.reward_B.tolist() == [1.0, 1.0, 1.0]
        assert not found.advantages_N.any()
    shifted = in_reward.estimate(batch(), estimator)
    assert shifted.reward_B.tolist() == pytest.approx([1 - 1.5, 1 - 0.3, 1.0])
    centred = torch.tensor([-0.5, 0.7, 1.0]) - 0.4
    assert shifted.advantages_N.tolist() == pytest.approx(centred[shifted.row_N].tolist())


def test_an_update_measures_the_rows_that_are_trained_on() -> None:
    one = control(kl_coef=0.5)
    assert one.update(batch(), step=3) == {"kl/ref": 3.0, "kl/coef": 0.5, "kl/penalty": 1.5}
    assert one.state == KLState(), "nothing is adapted without a target, and nothing is watched without a budget"
    assert one.update(batch(ref=None), step=3) == {}


def test_the_coefficient_moves_by_the_rows_of_the_step() -> None:
    one = control(kl_coef=0.5, kl_target=2.5, kl_horizon=30)
    found = one.update(batch(), step=1)
    assert found["kl/coef"] == 0.5, "the one that the step was taken with"
    assert one.coef == pytest.approx(0.5 * (1 + (3.0 / 2.5 - 1) * 3 / 30))


def test_a_kl_at_the_budget_is_within_it() -> None:
    one = control(kl_budget=3.0)
    one.update(batch(), step=4)
    assert one.state == KLState(last_within=3)
    one.update(batch(ref=-1.01), step=5)
    assert one.state == KLState(last_within=3, over_budget=True)
    one.update(batch(), step=6)
    assert one.state == KLState(last_within=5)
