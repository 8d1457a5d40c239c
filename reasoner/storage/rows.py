"""Conversion of rollouts and updates to lines of the record files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from reasoner.records import (
    Completion,
    Dropped,
    FinishReason,
    Problem,
    Rollout,
    RolloutGroup,
    Segment,
    VersionSpan,
    prompt_as_text,
)
from tasks.environments.base import Reply
from verifiers import JSON, Verdict


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
            "environment": problem.environment,
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
        **({"versions": [list(span) for span in completion.versions]} if completion.versions else {}),
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


def recorded_groups(lines: Iterable[Mapping[str, Any]]) -> list[RolloutGroup]:
    """Rebuild the groups of one step from its lines of rollouts.jsonl, in the order of the lines.

    The problems have the fields that a line keeps: no demonstration, and no environment but "recorded". `shaping` is 0,
    because the trainer adds it anew.

    Raises:
        KeyError, TypeError, ValueError: a line lacks a field, or has one of the wrong type.
    """
    found: dict[int, list[Rollout]] = {}
    for line in lines:
        rollouts = found.setdefault(line["group"], [])
        rollouts.append(recorded_rollout(line, rollouts[0].problem if rollouts else _problem_of(line)))
    return [RolloutGroup(problem=rollouts[0].problem, rollouts=tuple(rollouts)) for rollouts in found.values()]


def recorded_rollout(line: Mapping[str, Any], problem: Problem) -> Rollout:
    """Rebuild a rollout of a problem from its line of rollouts.jsonl. Errors are those of `recorded_groups`."""
    return Rollout(
        problem=problem,
        prompt_text=line["prompt"],
        prompt_ids=tuple(line["prompt_ids"]),
        completion=_completion(line),
        verdict=Verdict.from_json(line["verdict"]),
        sample_index=line["sample"],
        step=line["step"],
    )


def _problem_of(line: Mapping[str, Any]) -> Problem:
    return Problem(
        id=line["problem"],
        prompt=line["prompt"] if line.get("question") is None else line["question"],
        reference=line["reference"],
        verifier=line["verifier"],
        verifier_options=line["verifier_options"],
        difficulty=line["difficulty"],
        info=line["info"],
        task=line["task"],
        environment=None if line["turns"] is None else "recorded",
    )


PROBLEM_FIELDS = [name for name in Problem.__slots__ if not name.startswith("demonstration")]


def problem_row(problem: Problem) -> dict[str, JSON]:
    """Return a problem as JSON, without its demonstration; `problem_of_row` is the inverse."""
    row: dict[str, Any] = {name: getattr(problem, name) for name in PROBLEM_FIELDS}
    mappings = ("verifier_options", "info", "environment_options")
    return {name: dict(value) if name in mappings else value for name, value in row.items()}


def problem_of_row(row: Mapping[str, Any]) -> Problem:
    """Rebuild a problem from the JSON of `problem_row`."""
    fields: dict[str, Any] = {**row}
    if not isinstance(row["prompt"], str):
        fields["prompt"] = tuple(row["prompt"])
    return Problem(**fields)


def _completion(line: Mapping[str, Any]) -> Completion:
    ids, logprobs, mask, turns = (line[name] for name in ("token_ids", "rollout_logprobs", "loss_mask", "turns"))
    if len(logprobs) != len(ids) or not len(ids) == len(mask or ids):
        raise ValueError(f"token_ids, rollout_logprobs and loss_mask must be of one length; got {len(ids)} ids")
    return Completion(
        text=line["completion"],
        token_ids=tuple(ids),
        rollout_logprobs=tuple(map(float, logprobs)),
        loss_mask=(True,) * len(ids) if mask is None else tuple(map(bool, mask)),
        segments=(Segment(start=0, end=len(ids), origin="policy"),) if turns is None else tuple(map(_segment, turns)),
        finish_reason=FinishReason(line["finish_reason"]),
        policy_version=line["policy_version"],
        versions=tuple(VersionSpan(*span) for span in line.get("versions", ())),
    )


def _segment(turn: Mapping[str, Any]) -> Segment:
    place = {name: turn[name] for name in ("start", "end", "origin", "text")}
    of_reply = {name: value for name, value in turn.items() if name not in ("start", "end", "origin")}
    return Segment(**place, reply=Reply.from_json(of_reply) if len(of_reply) > 1 else None)
