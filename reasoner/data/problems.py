"""The problems of a stage: read, filtered, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reasoner.config.errors import ConfigError
from reasoner.config.sections import TaskSection
from reasoner.config.stage import StageConfig
from tasks import Problem
from tasks.registry import get_task
from tasks.validate import Verifiers, notes_on, unusable
from verifiers.jsonl import JsonLinesError, read_jsonl


def listed(problems: Sequence[Problem], section: TaskSection) -> Sequence[Problem]:
    """The problems that the config's problems_file lists, in their own order; all where there is none.

    Raises:
        ConfigError: the file cannot be read, or lists no problem of this task.
    """
    if section.problems_file is None:
        return problems
    try:
        wanted = {str(row["id"]) for _, row in read_jsonl(section.problems_file)}
    except (JsonLinesError, KeyError) as error:
        raise ConfigError(
            "bad-value",
            f"task.problems_file {section.problems_file} must hold JSON lines with an id: {error}"
            " `reasoner preflight CONFIG --write-problems FILE` writes one.",
        ) from error
    kept = [problem for problem in problems if problem.id in wanted]
    if not kept:
        raise ConfigError(
            "bad-value",
            f"task.problems_file {section.problems_file} lists {len(wanted)} problems, none of which task"
            f" {section.name} has. Write it with the same task and options.",
        )
    return kept


def named_apart(problems: Sequence[Problem], config: StageConfig, place: int) -> Sequence[Problem]:
    """The problems of the config's task at `place`, whose task is numbered where earlier ones have that name too.

    So that task and id name one problem in a mixture of several files: `dataset`, `dataset-2`.
    """
    same = sum(other.name == config.task[place].name for other in config.task[:place])
    return [replace(problem, task=f"{problem.task}-{same + 1}") for problem in problems] if same else problems


def with_verifiers(problems: Sequence[Problem], section: TaskSection) -> list[Problem]:
    """The problems, graded by the verifier that the config names instead of the task's own."""
    if section.verifier is None:
        return list(problems)
    name, options = section.verifier.name, section.verifier.options
    return [replace(problem, verifier=name, verifier_options=options) for problem in problems]


def load_problems(
    config: StageConfig, *, notes: list[str] | None = None
) -> tuple[list[list[Problem]], list[list[Problem]]]:
    """Training and evaluation problems of each task of the config, their golds checked.

    Args:
        config: whose tasks they are.
        notes: is added what the tasks say of how they read their data.
    Raises:
        TaskError: the data cannot be read. ConfigError: a gold that can never be matched, an empty prompt.
    """
    train: list[list[Problem]] = []
    for place, section in enumerate(config.task):
        task = get_task(section.name, **section.options)
        own = named_apart(listed(task.problems(section.train_split), section), config, place)
        if notes is not None:
            notes += [note for note in task.notes if note not in notes]
        own = with_verifiers(own, section)[: section.limit]
        problems = with_verifiers(own, section.model_copy(update={"verifier": config.reward or section.verifier}))
        check_problems(problems, where=f"{section.name} {section.train_split}")
        train.append(problems)
    return train, held_out_problems(config) if config.evaluates else []


def held_out_problems(config: StageConfig) -> list[list[Problem]]:
    """The first evaluation problems of each task of the config, their golds checked.

    Raises:
        TaskError: the data cannot be read. ConfigError: a gold that can never be matched, an empty prompt.
    """
    found: list[list[Problem]] = []
    for place, section in enumerate(config.task):
        problems = get_task(section.name, **section.options).problems(section.eval_split)
        held = with_verifiers(named_apart(problems, config, place), section)[: config.eval.problems]
        check_problems(held, where=f"{section.name} {section.eval_split}")
        found.append(held)
    return found


def spread(parts: Sequence[Sequence[Problem]], count: int) -> list[Problem]:
    """The first problems of each part, in turn, up to count."""
    turns = [problem for turn in range(count) for part in parts for problem in part[turn : turn + 1]]
    return turns[:count]


def gold_notes(problems: Sequence[Problem]) -> str:
    """What is to be known of golds that are graded in a way that may surprise, in a sentence; "" for none."""
    notes = notes_on(problems, Verifiers())
    if not notes:
        return ""
    return (
        f"{len(notes)} of {len(problems)} golds are graded in a way that may surprise (`reasoner tasks validate TASK`"
        f" lists them): {'; '.join(notes[:3])}."
    )


def check_problems(problems: Sequence[Problem], *, where: str) -> None:
    """Raise for problems that no run can use: an empty prompt, an id that stands twice, a gold that nothing matches.

    Raises:
        ConfigError: names the first of them and what to do.
    """
    if not problems:
        raise ConfigError("bad-value", f"{where}: there must be at least one problem; there is none.")
    bad = list(unusable(problems, Verifiers()).values())
    if bad:
        raise ConfigError(
            "bad-value",
            f"{where}: {len(bad)} of {len(problems)} problems cannot be used: {'; '.join(bad[:3])}."
            " Mend or remove them (`reasoner tasks validate NAME` lists them all).",
        )
