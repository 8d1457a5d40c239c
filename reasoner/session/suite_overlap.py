"""Overlap between the questions of suites and the training data of the evaluated model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from reasoner.config.errors import ConfigError
from reasoner.config.methods import METHODS
from reasoner.config.stage import StageConfig
from reasoner.data.demonstrations import demonstrations_in, read_row
from reasoner.data.overlap import find_overlaps
from reasoner.data.problems import read_problems
from reasoner.data.rows import usable_rows
from reasoner.session.suite_stage import Learned
from tasks import Problem, TaskError
from tasks.suites.suite import QUESTION, Suite
from verifiers import JSON


def overlaps_of(asked: Sequence[tuple[Suite, Sequence[Problem]]], learned: Learned | None) -> dict[str, JSON]:
    """Look for each suite's questions in the training data.

    Args:
        asked: suites with their problems.
        learned: training data of the model; None if it was not written by a run.
    Returns:
        For each suite by name: the counts and examples found, or the reason why the search was not possible. Empty
        without training data.
    """
    if learned is None or not asked:
        return {}
    refused = learned.refused
    train: list[Problem] = []
    try:
        train = [] if refused else [one for stage in learned.stages for one in learned_in(stage)]
    except (TaskError, ConfigError) as error:
        refused = str(error)
    if refused:
        return {suite.name: {"not_looked_for": refused} for suite, _ in asked}
    unread: list[JSON] = [stage.method for stage in learned.stages if METHODS[stage.method].learns_from_preferences]
    return {suite.name: {**_found(suite, problems, train), "not_read": unread} for suite, problems in asked}


def learned_in(stage: StageConfig) -> Iterator[Problem]:
    """Yield the training data of a stage: problems of its tasks, and prompts of its demonstrations.

    Raises:
        TaskError, ConfigError: the data cannot be read.
    """
    for section in stage.task:
        yield from read_problems(section, section.train_split, most=section.limit).problems
    if METHODS[stage.method].learns_from == "demonstrations" and stage.sft.data:
        source = demonstrations_in(stage.sft, "train", stage.sft.data)
        rows, _ = usable_rows(source, read=lambda row, where: read_row(row))
        for number, row in enumerate(rows):
            yield Problem(id=f"sft/{number}", prompt=row.prompt, reference=None, verifier="", task="sft")


def _found(suite: Suite, problems: Sequence[Problem], train: Sequence[Problem]) -> dict[str, JSON]:
    found = find_overlaps(train, [_bare(problem, suite) for problem in problems]) if train else []
    examples: list[JSON] = [f"{each.held_out} and {each.train} ({each.share:.0%})" for each in found[:3]]
    return {"training_problems": len(train), "found": len(found), "examples": examples}


def _bare(problem: Problem, suite: Suite) -> Problem:
    """Return the problem with its question alone: the suite's prompt around it is not in any training data."""
    before, _, after = suite.prompt.partition(QUESTION)
    return replace(problem, prompt=str(problem.prompt).removeprefix(before).removesuffix(after))


def overlap_sentence(overlap: JSON, *, problems: JSON) -> str:
    """Return a sentence on the overlap; "" if there is nothing to report."""
    if not isinstance(overlap, dict):
        return ""
    if "not_looked_for" in overlap:
        return f"overlap with the training data was not checked: {overlap['not_looked_for']}"
    examples, given = overlap["examples"], overlap["not_read"]
    shown = f" ({'; '.join(map(str, examples))})" if isinstance(examples, list) and examples else ""
    unread = f"; the data of {', '.join(map(str, given))} was not read" if isinstance(given, list) and given else ""
    return (
        f"{overlap['found']} of {problems} questions appear, completely or mostly, in the"
        f" {overlap['training_problems']} training problems{shown}{unread}"
    )
