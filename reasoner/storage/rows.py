"""Conversion of rollouts and updates to lines of the record files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from reasoner.records import Completion, Dropped, Rollout, RolloutGroup, prompt_as_text
from verifiers import JSON


def rollout_row(group: RolloutGroup, index: int) -> list[dict[str, JSON]]:
    """Return the lines of one group for rollouts.jsonl. `index` is the group's number in its step."""
    problem = group.problem
    return [
        {
            "step": rollout.step,
            "group": index,
            "sample": rollout.sample_index,
            "problem": problem.id,
            "task": problem.task,
            "difficulty": problem.difficulty,
            "prompt": rollout.prompt_text,
            "question": None if (question := prompt_as_text(problem.prompt)) == rollout.prompt_text else question,
            **completion_row(rollout.completion),
            "reference": problem.reference,
            "info": dict(problem.info),
            "verifier": problem.verifier,
            "verifier_options": dict(problem.verifier_options),
            "verdict": rollout.verdict.to_json(),
            "shaping": rollout.shaping,
            "components": dict(rollout.verdict.components),
            "reward": rollout.reward,
            "prompt_ids": list(rollout.prompt_ids),
        }
        for rollout in group.rollouts
    ]


def completion_row(completion: Completion) -> dict[str, JSON]:
    """Return the fields of a line that describe the completion."""
    return {
        "completion": completion.text,
        "tokens": completion.policy_tokens,
        "finish_reason": str(completion.finish_reason),
        "policy_version": completion.policy_version,
        "token_ids": list(completion.token_ids),
        "rollout_logprobs": list(completion.rollout_logprobs),
        "turns": completion.turn_rows() if len(completion.segments) > 1 else None,
        "loss_mask": None if all(completion.loss_mask) else [int(kept) for kept in completion.loss_mask],
    }


class RowMetrics(NamedTuple):
    """Results of an update for one rollout."""

    group: int
    rollout: Rollout
    advantage: float
    """Advantage of the first token."""
    trainer_logprobs: list[float] | None
    """[T] log-probabilities of the policy before the update; None if not measured."""


def update_rows(step: int, rows: Sequence[RowMetrics], dropped: Sequence[Dropped]) -> list[dict[str, JSON]]:
    """Return the lines of updates.jsonl: advantage and log-probabilities of each rollout, or why it was left out."""
    found: list[tuple[int, int, dict[str, JSON]]] = []
    for row in rows:
        logprobs: JSON = None if row.trainer_logprobs is None else [*row.trainer_logprobs]
        further: dict[str, JSON] = {"advantage": row.advantage, "trainer_logprobs": logprobs}
        found.append((row.group, row.rollout.sample_index, further))
    for group, rollout, reason in dropped:
        found.append((group, rollout.sample_index, {"dropped": reason}))
    return [
        {"step": step, "group": group, "sample": sample, **further}
        for group, sample, further in sorted(found, key=lambda one: one[:2])
    ]
