"""A step's metrics, by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import pytest
import torch

from reasoner.algorithm.batch import Batch
from reasoner.monitoring.metrics import advantage_metrics, mean_stats, rollout_metrics, signal_metrics, update_metrics
from reasoner.policy.policy import UpdateStats
from reasoner.policy.step_update import Updated
from reasoner.records import Completion, FinishReason, Problem, Rollout, RolloutGroup, Segment
from verifiers import Outcome, Verdict

Row = tuple[Outcome, float | None, int]
"""(outcome, reward, tokens)"""


def group(*rows: Row, task: str = "sums", components: Mapping[str, float] | None = None) -> RolloutGroup:
    problem = Problem(id="p", prompt="p", reference="1", verifier="v", task=task)
    return RolloutGroup(
        problem=problem,
        rollouts=tuple(
            Rollout(
                problem=problem,
                prompt_text="p",
                prompt_ids=(1,),
                completion=Completion(
                    text="",
                    token_ids=(0,) * tokens,
                    rollout_logprobs=(0.0,) * tokens,
                    loss_mask=(True,) * tokens,
                    segments=(Segment(start=0, end=tokens, origin="policy"),),
                    finish_reason=FinishReason.LENGTH if tokens == 10 else FinishReason.STOP,
                    policy_version=0,
                ),
                verdict=Verdict(outcome=outcome, reward=reward, components=components or {}),
                sample_index=place,
                step=1,
            )
            for place, (outcome, reward, tokens) in enumerate(rows)
        ),
    )


RIGHT: Row = (Outcome.CORRECT, 1.0, 4)
WRONG: Row = (Outcome.INCORRECT, 0.0, 6)
CUT: Row = (Outcome.NO_ANSWER, 0.0, 10)
HALF: Row = (Outcome.PARTIAL, 0.5, 2)
FAULT: Row = (Outcome.VERIFIER_ERROR, None, 3)
NO_GOLD: Row = (Outcome.BAD_REFERENCE, None, 5)


def test_episodes_that_a_turn_ended_are_counted_apart() -> None:
    made = group(CUT, CUT, RIGHT)
    played = replace(made.problem, environment="guess")
    ends = (Segment(start=0, end=10, origin="policy"), Segment(start=2, end=10, origin="policy"))
    rollouts = [
        replace(one, problem=played, completion=replace(one.completion, segments=(end,)))
        for one, end in zip(made.rollouts, (*ends, made.rollouts[2].completion.segments[0]), strict=True)
    ]
    found = rollout_metrics([RolloutGroup(problem=played, rollouts=tuple(rollouts))], turn_tokens=8)
    assert (found["turns/cut"], found["completion/truncated"]) == (1 / 3, 2 / 3)
    assert "turns/cut" not in rollout_metrics([made], turn_tokens=8)


def test_rewards_outcomes_and_lengths() -> None:
    found = rollout_metrics([group(RIGHT, WRONG, CUT), group(HALF, FAULT, NO_GOLD)])
    rewards = [1.0, 0.0, 0.0, 0.5]
    mean = sum(rewards) / 4
    assert found["reward/mean"] == mean == 0.375
    assert found["reward/std"] == pytest.approx(math.sqrt(sum((r - mean) ** 2 for r in rewards) / 4))
    assert found["reward/pass_rate"] == 1 / 4, "of those that could be graded"
    assert found["completion/length_mean"] == (4 + 6 + 10 + 2 + 3 + 5) / 6
    assert found["completion/length_max"] == 10.0
    assert found["completion/truncated"] == 1 / 6
    assert found["grading/ungraded"] == 2 / 6
    shares = {name: value for name, value in found.items() if name.startswith("outcome/")}
    assert sum(shares.values()) == pytest.approx(1.0)
    for outcome in Outcome:
        assert shares[f"outcome/{outcome}"] == (1 / 6 if outcome in {row[0] for row in ALL} else 0.0)


def test_undecided_answers_are_a_share_of_all() -> None:
    made = group(RIGHT, WRONG)
    verdict = Verdict(outcome=Outcome.INCORRECT, reward=0.0, detail={"tier": "undecided"})
    found = rollout_metrics([replace(made, rollouts=(made.rollouts[0], replace(made.rollouts[1], verdict=verdict)))])
    assert found["grading/undecided"] == 0.5
    assert rollout_metrics([made])["grading/undecided"] == 0.0


ALL = (RIGHT, WRONG, CUT, HALF, FAULT, NO_GOLD)


def test_shaping_is_part_of_the_reward_and_no_pass() -> None:
    made = group(RIGHT, RIGHT)
    shaped = replace(made, rollouts=(replace(made.rollouts[0], shaping=-0.5), made.rollouts[1]))
    found = rollout_metrics([shaped])
    assert found["reward/mean"] == 0.75
    assert found["reward/pass_rate"] == 1.0
    assert found["groups/signal"] == 1.0


def test_a_step_of_which_nothing_could_be_graded_has_no_reward() -> None:
    found = rollout_metrics([group(FAULT, NO_GOLD)])
    assert math.isnan(found["reward/mean"])
    assert math.isnan(found["reward/std"])
    assert "reward/pass_rate" not in found
    assert found["grading/ungraded"] == 1.0
    assert found["groups/signal"] == found["groups/all_right"] == found["groups/all_wrong"] == 0.0


def test_groups_with_signal_and_those_of_one_kind_are_shares_of_those_that_were_graded() -> None:
    groups = [
        group(RIGHT, RIGHT, FAULT),
        group(WRONG, CUT),
        group(WRONG, WRONG),
        group(RIGHT, WRONG),
        group(HALF, HALF),
        group(FAULT, FAULT),
    ]
    expected = {"groups/signal": 1 / 5, "groups/all_right": 1 / 5, "groups/all_wrong": 2 / 5}
    assert signal_metrics(groups) == pytest.approx(expected)
    assert rollout_metrics(groups).items() >= signal_metrics(groups).items()


def test_rewards_by_task_only_where_there_are_several() -> None:
    assert not any(name == "reward/sums" for name in rollout_metrics([group(RIGHT)]))
    found = rollout_metrics([group(RIGHT, WRONG), group(RIGHT, FAULT, task="code"), group(FAULT, task="idle")])
    assert (found["reward/sums"], found["reward/code"]) == (0.5, 1.0)
    assert "reward/idle" not in found


def test_components_are_means_over_the_rollouts_that_have_them() -> None:
    groups = [
        group(RIGHT, WRONG, components={"format": 1.0, "right": 0.25}),
        group(RIGHT, components={"format": 0.25}),
        group(WRONG),
    ]
    found = {name: value for name, value in rollout_metrics(groups).items() if name.startswith("component/")}
    assert found == {"component/format": (1.0 + 1.0 + 0.25) / 3, "component/right": 0.25}


STATS = [
    UpdateStats(2.0, 0.5, 1e-3, {"tokens": 10.0, "policy/entropy": 5.0, "gap/logprob_max": 0.25, "value/mean": 6.0}),
    UpdateStats(4.0, 1.5, 5e-4, {"tokens": 30.0, "policy/entropy": 45.0, "gap/logprob_max": 0.125}),
]


def test_updates_are_averaged_by_tokens() -> None:
    assert mean_stats(STATS) == {
        "policy/entropy": 50.0 / 40.0,
        "value/mean": 6.0 / 40.0,
        "gap/logprob_max": 0.25,
        "optim/loss": 3.0,
        "optim/grad_norm": 1.0,
        "optim/lr": 5e-4,
        "optim/tokens": 40.0,
    }


def test_a_step_counts_its_updates_and_says_that_it_ended_early() -> None:
    ended = {"optim/updates": 2.0, "optim/stopped_early": 1.0}
    batch = cast("Batch", None)
    assert update_metrics(Updated(batch, STATS, stopped_early=True)) == mean_stats(STATS) | ended
    assert (
        update_metrics(Updated(batch, STATS[:1])).items() >= {"optim/updates": 1.0, "optim/stopped_early": 0.0}.items()
    )


def test_an_update_without_a_trained_token_divides_by_one() -> None:
    found = mean_stats([UpdateStats(0.0, 0.0, 1e-3, {"tokens": 0.0, "policy/entropy": 0.0})])
    assert found["policy/entropy"] == 0.0
    assert found["optim/tokens"] == 1.0


def composed(*marks: float | None) -> RolloutGroup:
    """Correctness 1 + format 1, all in the right format; None: a learned score decides."""
    verdicts = [
        Verdict(outcome=Outcome.SCORED, reward=7.0, components={"judge": 6.0, "format": 1.0}, decided_by="judge")
        if mark is None
        else Verdict(
            outcome=Outcome.CORRECT if mark == 1 else Outcome.INCORRECT,
            reward=mark + 1.0,
            components={"exact": mark, "format": 1.0},
            weights={"exact": 1.0, "format": 1.0},
            decided_by="exact",
        )
        for mark in marks
    ]
    made = group(*[RIGHT] * len(marks))
    return replace(made, rollouts=tuple(replace(r, verdict=v) for r, v in zip(made.rollouts, verdicts, strict=True)))


def test_right_and_wrong_are_those_of_the_part_that_decides() -> None:
    found = rollout_metrics([composed(1.0, 1.0), composed(0.0, 0.0), composed(1.0, 0.0)])
    assert found["reward/mean"] == 1.5
    assert found["reward/pass_rate"] == 0.5
    assert found["outcome/correct"] == found["outcome/incorrect"] == 0.5
    assert found["groups/all_right"] == found["groups/all_wrong"] == found["groups/signal"] == 1 / 3
    assert found["component/format"] == 1.0


def test_a_group_of_right_answers_with_unequal_rewards_is_all_right_and_has_signal() -> None:
    made = composed(1.0, 1.0)
    longer = replace(made.rollouts[0].verdict, reward=1.25)
    found = signal_metrics([replace(made, rollouts=(replace(made.rollouts[0], verdict=longer), made.rollouts[1]))])
    assert found == {"groups/signal": 1.0, "groups/all_right": 1.0, "groups/all_wrong": 0.0}


def test_learned_rewards_have_no_pass_rate_and_are_neither_right_nor_wrong() -> None:
    found = rollout_metrics([composed(None, None)])
    assert "reward/pass_rate" not in found
    assert found["groups/all_right"] == found["groups/all_wrong"] == 0.0
    assert rollout_metrics([composed(None, None), composed(1.0, 0.0)])["reward/pass_rate"] == 0.5


def test_a_row_acts_by_an_advantage_on_a_trained_token() -> None:
    batch = Batch(
        input_ids=(
            torch.zeros(3, dtype=torch.long),
            torch.zeros(2, dtype=torch.long),
            torch.zeros(3, dtype=torch.long),
        ),
        prompt_lengths_B=torch.ones(3, dtype=torch.long),
        row_N=torch.tensor([0, 0, 1, 2, 2]),
        loss_mask_N=torch.tensor([True, True, True, False, True]),
        reward_B=torch.zeros(3, dtype=torch.float64),
        group_B=torch.zeros(3, dtype=torch.long),
        weights_N=torch.ones(5),
        rollout_logprobs_N=torch.zeros(5),
    )
    assert advantage_metrics(batch) == {}
    held = replace(batch, advantages_N=torch.tensor([0.5, -0.5, 0.0, 1.0, 0.0]))  # row 2's stands on a masked token
    assert advantage_metrics(held) == {"groups/rows_acting": 1.0}
