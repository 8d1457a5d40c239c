"""Overlong filtering: truncated completions count in baselines, but are not trained on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reasoner.algorithm.advantage import ESTIMATORS, get_estimator
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.kl_control import KLControl, KLState
from reasoner.algorithm.loss import POLICY_LOSSES, policy_loss
from reasoner.config.load import resolve
from reasoner.policy.step_update import StepUpdate
from reasoner.records import Completion, FinishReason, Rollout, Segment
from tasks import Problem
from verifiers import Outcome, Verdict

REWARDS = (1.0, 0.0, 0.5, 0.0)
LENGTHS = (3, 5, 2, 5)
TRUNCATED = (False, True, False, True)


def stage(*, masked: bool = True, **algorithm: object):
    raw = {"task": "arithmetic", "model": "x", "rollout": {"max_tokens": 5}}
    return resolve(raw | {"algorithm": {"mask_truncated": masked, **algorithm}}).stages[0]


def rollouts(truncated: tuple[bool, ...] = TRUNCATED) -> list[tuple[int, Rollout]]:
    problem = Problem(id="p", prompt="q", reference="1", verifier="exact")
    found = []
    for place, (reward, length, cut) in enumerate(zip(REWARDS, LENGTHS, truncated, strict=True)):
        completion = Completion(
            text="x",
            token_ids=tuple(range(length)),
            rollout_logprobs=(-1.0,) * length,
            loss_mask=(True,) * length,
            segments=(Segment(start=0, end=length, origin="policy"),),
            finish_reason=FinishReason.LENGTH if cut else FinishReason.STOP,
            policy_version=0,
        )
        verdict = Verdict(outcome=Outcome.SCORED, reward=reward)
        found.append(
            (
                0,
                Rollout(
                    problem=problem,
                    prompt_text="q",
                    prompt_ids=(1, 2),
                    completion=completion,
                    verdict=verdict,
                    sample_index=place,
                    step=1,
                ),
            )
        )
    return found


def batch(**settings: object) -> Batch:
    made = Batch.of_rollouts(rollouts(), config=stage(**settings))
    noise_N = torch.linspace(-1, 0, len(made.row_N))
    return replace(made, values_N=noise_N, ref_logprobs_N=noise_N - 0.5, teacher_logprobs_N=noise_N - 0.5)


def test_masked_rows_have_no_weight_and_count_as_rows() -> None:
    cut_N = torch.tensor(TRUNCATED)[batch().row_N]
    assert not batch().loss_mask_N[cut_N].any()
    assert batch().loss_mask_N[~cut_N].all()
    assert batch(masked=False).loss_mask_N.all()
    assert batch(aggregation="token").weights_N[~cut_N].tolist() == pytest.approx([1 / 5] * 5)
    by_row = [1 / (4 * 3)] * 3 + [1 / (4 * 2)] * 2
    assert batch(aggregation="sequence").weights_N[~cut_N].tolist() == pytest.approx(by_row)
    assert batch(aggregation="constant").weights_N[~cut_N].tolist() == pytest.approx([1 / 20] * 5)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
def test_their_rewards_count_in_the_baseline(name: str) -> None:
    estimator = get_estimator(name).function
    assert torch.equal(estimator(batch()).advantages_N, estimator(batch(masked=False)).advantages_N)


@pytest.mark.parametrize("loss", list(POLICY_LOSSES))
@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_nothing_of_them_reaches_a_loss(name: str, loss: str) -> None:
    made = get_estimator(name).function(batch())
    cut_N = ~made.loss_mask_N

    def gradient(noise: float) -> torch.Tensor:
        logprobs_N = torch.full((len(made.row_N),), -1.0) + noise * cut_N
        logprobs_N.requires_grad_(True)
        terms = policy_loss(logprobs_N, torch.ones_like(logprobs_N), made, loss=loss, kl_coef=0.1)
        terms.loss.backward()
        assert torch.isfinite(terms.loss)
        assert int(terms.metrics["tokens"]) == 5
        assert logprobs_N.grad is not None
        return logprobs_N.grad

    assert torch.equal(gradient(0.0), gradient(-7.0))
    assert not gradient(0.0)[cut_N].any()


def test_the_kl_is_that_of_the_rows_that_are_trained_on() -> None:
    control = KLControl(stage(kl_coef=0.1).algorithm, KLState())
    made = replace(batch(), old_logprobs_N=torch.zeros(15), ref_logprobs_N=torch.full((15,), -1.0))
    assert control.update(made, step=1)["kl/ref"] == pytest.approx((3 + 2) / 2)


def test_a_step_of_nothing_but_truncated_completions_updates_nothing() -> None:
    class Counting:
        config = stage()
        accumulated = 0

        def begin_step(self, step: int) -> None:
            """The schedule follows the steps, with or without updates."""

        def accumulate(self, *_: object) -> None:
            self.accumulated += 1

    policy = Counting()
    update = StepUpdate(policy, None, step=1)  # pyright: ignore[reportArgumentType]
    update.add(Batch.of_rollouts(rollouts((True,) * 4), config=stage()))
    assert update.finish() is None
