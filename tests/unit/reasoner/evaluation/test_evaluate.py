"""Figures of an evaluation, by hand."""

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
