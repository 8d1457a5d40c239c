"""Lines of the record files: rollouts and updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from reasoner.algorithm.batch import Batch, listed
from reasoner.policy.step_probe import StepProbe
from reasoner.records import Completion, Dropped, Kept, RolloutGroup, prompt_as_text
from verifiers import JSON


def rollout_row(group: RolloutGroup, index: int) -> list[dict[str, JSON]]:
    """The lines of one group in rollouts.jsonl."""
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
    """The completion's part of a line."""
    return {
        "completion": completion.text,
        "tokens": len(completion.token_ids),
        "finish_reason": str(completion.finish_reason),
        "policy_version": completion.policy_version,
        "token_ids": list(completion.token_ids),
        "rollout_logprobs": list(completion.rollout_logprobs),
        "loss_mask": None if all(completion.loss_mask) else [int(kept) for kept in completion.loss_mask],
    }


def update_rows(
    step: int, kept: Kept, batch: Batch | None, dropped: Sequence[Dropped], probe: StepProbe | None = None
) -> list[Mapping[str, JSON]]:
    """Lines of updates.jsonl: every rollout's advantage and the trainer's log-probabilities, or why it left."""
    rows: list[Mapping[str, JSON]] = []
    if batch is not None and batch.advantages_N is not None:
        ends = torch.tensor(batch.row_starts()[:-1], dtype=torch.long)
        for place, ((group, rollout), advantage) in enumerate(
            zip(kept, listed(batch.advantages_N[ends], float), strict=True)
        ):
            row: dict[str, JSON] = {"step": step, "group": group, "sample": rollout.sample_index}
            row |= {"advantage": advantage, "trainer_logprobs": probe.trainer_logprobs(place) if probe else None}
            rows.append(row)
    for group, rollout, reason in dropped:
        rows.append({"step": step, "group": group, "sample": rollout.sample_index, "dropped": reason})
    return sorted(rows, key=lambda row: (row["group"], row["sample"]))  # pyright: ignore[reportArgumentType]
