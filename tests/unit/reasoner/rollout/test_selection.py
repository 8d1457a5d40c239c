"""Groups with signal, and the reward of a batch, for rewards with several components."""

from __future__ import annotations

import pytest

from reasoner.algorithm.advantage import get_estimator
from reasoner.algorithm.batch import Batch
from reasoner.config.load import resolve
from reasoner.config.stage import StageConfig
from reasoner.records import Completion, FinishReason, Problem, Rollout, RolloutGroup
from reasoner.rollout.round import Sampled
from reasoner.rollout.selection import has_signal, select
from verifiers import Outcome, Verdict, fixed

PROBLEM = Problem(id="p", prompt="p", reference="1", verifier="weighted")


def summed(**components: float) -> Verdict:
    """A reward that is the sum of its components, of which `exact` decides correctness."""
    return Verdict(
        outcome=Outcome.CORRECT if components["exact"] == 1 else Outcome.INCORRECT,
        reward=sum(components.values()),
        components=components,
        weights=dict.fromkeys(components, 1.0),
        decided_by="exact",
    )


def group(*verdicts: Verdict, shaping: float = 0.0) -> RolloutGroup:
    completion = Completion(
        text="x", token_ids=(1, 2), rollout_logprobs=(-1.0, -1.0), loss_mask=(True, True), segments=(),
        finish_reason=FinishReason.STOP, policy_version=0,
    )  # fmt: skip
    return RolloutGroup(
        problem=PROBLEM,
        rollouts=tuple(
            Rollout(
                problem=PROBLEM, prompt_text="p", prompt_ids=(1,), completion=completion, verdict=verdict,
                sample_index=at, step=1, shaping=shaping if at == 0 else 0.0,
            )
            for at, verdict in enumerate(verdicts)
        ),
    )  # fmt: skip


def config_of(**algorithm: object) -> StageConfig:
    return resolve({"task": "arithmetic", "model": "m", "algorithm": algorithm}).stages[0]


SAME_SUM = group(
    summed(exact=1.0, form=0.0, short=0.0),
    summed(exact=0.0, form=1.0, short=0.0),
    summed(exact=0.0, form=0.0, short=1.0),
    summed(exact=0.0, form=0.0, short=1.0),
)
RIGHT_AND_UNEQUAL = group(summed(exact=1.0, short=0.5), summed(exact=1.0, short=0.25))


def test_right_answers_with_unequal_rewards_take_part() -> None:
    assert has_signal(RIGHT_AND_UNEQUAL)
    portion = Sampled(groups=(RIGHT_AND_UNEQUAL,), generation_seconds=0.0, grading_wait_seconds=0.0, tokens=4)
    assert len(select(portion, get_estimator("grpo"), config_of()).kept) == 2


@pytest.mark.parametrize("normalized", [False, True])
def test_equal_sums_have_signal_where_their_components_are_normalized(normalized: bool) -> None:
    assert has_signal(SAME_SUM, normalized=normalized) == normalized
    portion = Sampled(groups=(SAME_SUM,), generation_seconds=0.0, grading_wait_seconds=0.0, tokens=8)
    kept = select(portion, get_estimator("grpo"), config_of(normalize_components=normalized)).kept
    assert len(kept) == (4 if normalized else 0)


def test_a_batch_is_rewarded_with_the_sum_or_with_normalized_components_and_what_the_trainer_adds() -> None:
    fault = fixed(Outcome.VERIFIER_ERROR, "away")
    groups = [
        group(summed(exact=1.0, form=50.0), summed(exact=0.0, form=0.0), fault, shaping=-0.25),
        group(summed(exact=1.0, form=3.0), summed(exact=1.0, form=1.0)),
    ]
    rows = [(at, r) for at, one in enumerate(groups) for r in one.rollouts if r.reward is not None]
    plain = Batch.of_rollouts(rows, config=config_of())
    assert plain.reward_B.tolist() == [50.75, 0.0, 4.0, 2.0]
    assert plain.quality_B is not None
    assert plain.quality_B.tolist() == [0.75, 0.0, 1.0, 1.0]
    normalized = Batch.of_rollouts(rows, config=config_of(normalize_components=True))
    assert normalized.reward_B.tolist() == pytest.approx([1.75, -2.0, 1.0, -1.0], abs=1e-5)


@pytest.mark.parametrize("advantage", ["grpo", "dr_grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline"])
def test_every_estimator_takes_normalized_components(advantage: str) -> None:
    config = config_of(normalize_components=True, advantage=advantage)
    batch = Batch.of_rollouts([(0, rollout) for rollout in SAME_SUM.rollouts], config=config)
    advantages_N = get_estimator(advantage).function(batch).advantages_N
    assert advantages_N is not None
    assert advantages_N[:4].tolist() == pytest.approx([advantages_N[0].item()] * 4, abs=1e-6), "exact as rare as form"
    assert advantages_N[0] > 0 > advantages_N[-1], "what half of the group has is worth less than what one has"
