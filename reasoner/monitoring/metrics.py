"""Metrics of a step, under the names in common use. docs/metrics.md explains each one."""

from __future__ import annotations

import resource
import statistics
import sys
from collections import Counter
from collections.abc import Sequence

import torch

from reasoner.algorithm.advantage import student_gap
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.group_baselines import group_signal
from reasoner.policy.policy import UpdateStats
from reasoner.policy.step_update import Updated
from reasoner.records import FinishReason, Rollout, RolloutGroup
from verifiers import Outcome, all_right, all_wrong


def rollout_metrics(groups: Sequence[RolloutGroup], *, turn_tokens: int | None = None) -> dict[str, float]:
    """Compute metrics of rewards, signal, outcomes and lengths from a step's rollouts, before any filter.

    `turn_tokens` is `rollout.turn_tokens`.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    rewards = [rollout.reward for rollout in rollouts if rollout.reward is not None]
    lengths = [rollout.completion.policy_tokens for rollout in rollouts]
    outcomes = Counter(rollout.verdict.outcome for rollout in rollouts)
    total = len(rollouts)
    metrics = {
        "reward/mean": statistics.fmean(rewards) if rewards else float("nan"),
        "reward/std": statistics.pstdev(rewards) if rewards else float("nan"),
        "completion/length_mean": statistics.fmean(lengths),
        "completion/length_max": float(max(lengths)),
        "completion/truncated": sum(r.completion.finish_reason is FinishReason.LENGTH for r in rollouts) / total,
        "grading/ungraded": (outcomes[Outcome.VERIFIER_ERROR] + outcomes[Outcome.BAD_REFERENCE]) / total,
        "grading/undecided": sum(r.verdict.detail.get("tier") == "undecided" for r in rollouts) / total,
        "grading/sympy": sum(r.verdict.detail.get("tier") == "sympy" for r in rollouts) / total,
        **{f"outcome/{outcome}": outcomes[outcome] / total for outcome in Outcome},
    }
    metrics |= _pass_rate(rollouts) | signal_metrics(groups) | _by_task(groups) | _by_component(rollouts)
    return metrics | turn_metrics(rollouts, turn_tokens)


def turn_metrics(rollouts: Sequence[Rollout], turn_tokens: int | None) -> dict[str, float]:
    """Turns, calls and replies of the rollouts with an environment; empty without any."""
    played = [rollout.completion for rollout in rollouts if rollout.problem.environment is not None]
    if not played:
        return {}
    replies = [reply for completion in played for reply in completion.replies]
    shown = sum(len(completion.token_ids) - completion.policy_tokens for completion in played)
    faults = sum(r.verdict.verifier == "environment" for r in rollouts if r.problem.environment is not None)
    turns = [sum(part.origin == "policy" for part in completion.segments) or 1 for completion in played]
    calls = sum(reply.calls for reply in replies)
    return {
        "turns/mean": statistics.fmean(turns),
        "turns/limit": sum(c.finish_reason is FinishReason.TURNS for c in played) / len(played),
        "turns/cut": sum(c.cut_in_turn(turn_tokens) for c in played) / len(played),
        "calls/mean": calls / len(played),
        "calls/share": sum(any(reply.calls for reply in c.replies) for c in played) / len(played),
        "calls/error": sum(reply.errors for reply in replies) / max(1, calls),
        "reply/tokens": shown / len(played),
        "reply/cut": sum(reply.cut for reply in replies) / max(1, len(replies)),
        "environment/faults": faults / len(played),
    }


def _pass_rate(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Return the share of correct rollouts among those graded correct or wrong; empty if there are none."""
    judged = [rollout.verdict.right for rollout in rollouts if rollout.verdict.mark is not None]
    return {"reward/pass_rate": sum(judged) / len(judged)} if judged else {}


def signal_metrics(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """Return the shares of groups with unequal rewards, with only correct answers, and with only wrong answers.

    Correct and wrong are those of the verdicts (`Verdict.mark`). If the reward includes more than that, a group of
    correct answers can have signal.
    """
    rewards_PG = [[r.reward for r in group.rollouts if r.reward is not None] for group in groups]
    graded = [rewards for rewards in rewards_PG if rewards]
    marks_PG = [[r.verdict.mark for r in group.rollouts if r.verdict.graded] for group in groups]
    count = max(1, len(graded))
    return {
        "groups/signal": sum(group_signal(rewards) for rewards in graded) / count,
        "groups/all_right": sum(map(all_right, marks_PG)) / count,
        "groups/all_wrong": sum(map(all_wrong, marks_PG)) / count,
    }


def _by_task(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    tasks: dict[str, list[float]] = {}
    for group in groups:
        rewards = [r.reward for r in group.rollouts if r.reward is not None]
        tasks.setdefault(group.problem.task, []).extend(rewards)
    if len(tasks) < 2:
        return {}
    return {f"reward/{task}": statistics.fmean(rewards) for task, rewards in tasks.items() if rewards}


def _by_component(rollouts: Sequence[Rollout]) -> dict[str, float]:
    parts: dict[str, list[float]] = {}
    for rollout in rollouts:
        for name, reward in rollout.verdict.components.items():
            parts.setdefault(name, []).append(reward)
    return {f"component/{name}": statistics.fmean(rewards) for name, rewards in sorted(parts.items())}


def peak_memory_mb() -> float:
    """Return the peak memory in MiB: of the accelerator if there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / (1 << 20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / (1 << 10)


def update_metrics(updated: Updated) -> dict[str, float]:
    """Average metrics over the optimizer steps of one training step, and add their number."""
    return mean_stats(updated.stats) | {
        "optim/updates": float(len(updated.stats)),
        "optim/stopped_early": float(updated.stopped_early),
    }


def advantage_metrics(batch: Batch) -> dict[str, float]:
    """Count the rows of an update that have a non-zero advantage on a trained token."""
    if batch.advantages_N is None:
        return {}
    acting_N = (batch.advantages_N != 0) & batch.loss_mask_N
    return {"groups/rows_acting": float(len(batch.row_N[acting_N].unique()))}


def teacher_metrics(batch: Batch) -> dict[str, float]:
    """Compute the reverse KL to the teacher per trained token of an update; empty without a teacher."""
    if batch.teacher_logprobs_N is None:
        return {}
    return {"teacher/reverse_kl": student_gap(batch)[batch.loss_mask_N].mean().item()}


def mean_stats(stats: Sequence[UpdateStats]) -> dict[str, float]:
    """Average per-token metrics over several updates; also average loss and gradient norm, and add the last rate."""
    tokens = max(1.0, sum(update.metrics.get("tokens", 0.0) for update in stats))
    names = {name for update in stats for name in update.metrics} - {"tokens"}
    figures = {
        name: max(update.metrics[name] for update in stats)
        if name.endswith("_max")
        else sum(update.metrics.get(name, 0.0) for update in stats) / tokens
        for name in sorted(names)
    }
    return figures | {
        "optim/loss": sum(update.loss for update in stats) / len(stats),
        "optim/grad_norm": sum(update.grad_norm for update in stats) / len(stats),
        "optim/lr": stats[-1].lr,
        "optim/tokens": tokens,
    }
