"""Grading rows for the pool, and the check on the share of ungraded rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from reasoner.config.errors import ConfigError
from reasoner.config.stage import StageConfig
from reasoner.errors import ReasonerError
from reasoner.records import Completion, RolloutGroup, prompt_as_text
from reasoner.storage.cluster_file import PlacedParts
from tasks import Message, Problem
from verifiers import JSON, GradingRow, Outcome
from verifiers.errors import BadOption
from verifiers.pool import GradingPool, PoolLimits
from verifiers.serve.nodes import Node


class UngradedError(ReasonerError, RuntimeError):
    """The share of rollouts that could not be graded is above the config's limit."""


def grading_row(problem: Problem, completion: Completion) -> GradingRow:
    """Build the verifier's input for a completion: of several turns the policy's last, with all turns in its info."""
    info: Mapping[str, JSON] = problem.info
    if not isinstance(problem.prompt, str):
        info = {**info, "messages": turns(problem.prompt)}
    if len(completion.segments) > 1:
        info = {**info, "turns": completion.turn_rows()}
    return GradingRow(
        completion=completion.answer_text,
        reference=problem.reference,
        prompt=prompt_as_text(problem.prompt),
        info=info,
    )


def solution_row(problem: Problem) -> GradingRow:
    """Build the verifier's input for a problem's own demonstration of one turn."""
    info: Mapping[str, JSON] = problem.info
    if not isinstance(problem.prompt, str):
        info = {**info, "messages": turns(problem.prompt)}
    return GradingRow(
        completion=problem.demonstration or "",
        reference=problem.reference,
        prompt=prompt_as_text(problem.prompt),
        info=info,
    )


def turns(prompt: Sequence[Message]) -> list[JSON]:
    """Convert a chat to JSON, for verifiers that need its roles (for example a reward model)."""
    return [cast("dict[str, JSON]", dict(turn)) for turn in prompt]


def check_graded(
    groups: Sequence[RolloutGroup], *, max_share: float, kept: str = "rollouts.jsonl", again: str = "--resume"
) -> float:
    """Return the share of rollouts without a reward, and raise if it is too large.

    Args:
        groups: groups of a step or of an evaluation.
        max_share: largest share that is accepted.
        kept: file in which the rollouts are recorded, for the message.
        again: what to do after the cause is fixed, for the message.
    Raises:
        UngradedError: the share is above max_share; the message names the most frequent causes.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    ungraded = [rollout.verdict for rollout in rollouts if not rollout.verdict.graded]
    share = len(ungraded) / len(rollouts)
    if share > max_share:
        causes: dict[str, int] = {}
        for verdict in ungraded:
            cause = f"{verdict.outcome} by {verdict.verifier}: {verdict.reason}"
            causes[cause] = causes.get(cause, 0) + 1
        common = sorted(causes.items(), key=lambda item: -item[1])[:3]
        listed = "; ".join(f"{count} x {cause}" for cause, count in common)
        bad_reference = any(verdict.outcome is Outcome.BAD_REFERENCE for verdict in ungraded)
        fix = "Fix the references (`reasoner tasks validate NAME`)" if bad_reference else "Fix the verifier"
        raise UngradedError(
            f"{len(ungraded)} of {len(rollouts)} rollouts ({share:.0%}) could not be graded, above"
            f" grading.max_ungraded_share={max_share:.0%}: {listed}. They are in {kept}. {fix}, then {again}."
        )
    return share


def grading_pool(config: StageConfig, *, context: object = None) -> GradingPool:
    """Build the pool of the config's grading section. `context` is passed to verifiers that run in this process.

    Raises:
        ConfigError: the address of a grading node is none.
    """
    grading = config.grading
    try:
        placed = [] if config.cluster.file is None else PlacedParts(Path(config.cluster.file)).addresses("grader")
        nodes = [lane for address in [*grading.nodes, *placed] for lane in Node(address).lanes]
    except BadOption as error:
        raise ConfigError("bad-value", f"grading.nodes: {error}") from error
    return GradingPool(
        workers=grading.workers,
        nodes=nodes,
        context=context,
        limits=PoolLimits(wall_seconds=grading.wall_seconds, memory_bytes=grading.memory_megabytes << 20),
    )
