"""Metrics of an evaluation, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reasoner.evaluation.evaluate import summarize
from reasoner.records import Completion, FinishReason, Problem, Rollout, RolloutGroup
from verifiers import Outcome, Verdict, fixed, graded

PROBLEM = Problem(id="p", prompt="p", reference=None, verifier="v")
NOTHING = Completion(
    text="",
    token_ids=(),
    rollout_logprobs=(),
    loss_mask=(),
    segments=(),
    finish_reason=FinishReason.STOP,
    policy_version=0,
)


def group(*verdicts: Verdict) -> RolloutGroup:
    rollouts = tuple(
        Rollout(
            problem=PROBLEM,
            prompt_text="p",
            prompt_ids=(1,),
            completion=NOTHING,
            verdict=verdict,
            sample_index=at,
            step=0,
        )
        for at, verdict in enumerate(verdicts)
    )
    return RolloutGroup(problem=PROBLEM, rollouts=rollouts)


def said(reward: float, **components: float) -> Verdict:
    return replace(graded(reward, ""), components=components)


def test_components_are_means_over_problems_of_means_over_their_samples() -> None:
    fault = fixed(Outcome.VERIFIER_ERROR, "away")
    found = summarize([group(said(1.0, clean=1.0), said(0.0, clean=0.5)), group(said(1.0, clean=0.25), fault)])
    assert found.estimates["avg@2"].value == 0.75
    assert found.estimates["component/clean"].value == pytest.approx((0.75 + 0.25) / 2)
    assert found.ungraded == 1
    assert not any(name.startswith("component/") for name in summarize([group(said(1.0))]).estimates)


def test_a_majority_is_of_answers_and_needs_a_verifier_that_names_them() -> None:
    told = replace(said(1.0), answer="4"), replace(said(0.0), answer="5"), said(0.0)
    assert summarize([group(*told, replace(said(1.0), answer="4"))]).estimates["maj@4"].value == 1.0
    assert summarize([group(said(0.0), said(0.0))]).estimates["maj@2"].value == 0.0
    assert "maj@2" not in summarize([group(said(1.0), said(0.0)), group(said(1.0), said(1.0))]).estimates


def summed(mark: float, extra: float) -> Verdict:
    return Verdict(
        outcome=Outcome.CORRECT if mark == 1 else Outcome.INCORRECT,
        reward=mark + extra,
        answer="4" if mark == 1 else "5",
        components={"exact": mark, "format": extra},
        decided_by="exact",
    )


def test_a_composed_reward_is_right_where_its_deciding_part_is() -> None:
    found = summarize([group(summed(1.0, 1.0), summed(0.0, 1.0)), group(summed(0.0, 1.0), summed(0.0, 0.0))]).estimates
    assert {name: round(value.value, 9) for name, value in found.items()} == {
        "avg@2": 0.25,
        "reward": 1.0,
        "component/exact": 0.25,
        "component/format": 0.75,
        "pass@1": 0.25,
        "pass@2": 0.5,
        "maj@2": 0.25,
    }
    alone = summarize([group(summed(1.0, 1.0)), group(summed(0.0, 1.0))]).estimates
    assert (alone["avg@1"].value, alone["reward"].value) == (0.5, 1.5)
    assert "reward" not in summarize([group(said(1.0), said(0.5))]).estimates


def test_a_learned_score_has_a_mean_and_no_pass_at_k() -> None:
    score = Verdict(outcome=Outcome.SCORED, reward=3.0)
    found = summarize([group(score, replace(score, reward=1.0))]).estimates
    assert found["avg@2"].value == 2.0
    assert not {"pass@1", "pass@2", "maj@2", "reward"} & set(found)
