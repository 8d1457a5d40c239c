"""The problems of a stage: reading, filtering and checking them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from reasoner.config.errors import ConfigError
from reasoner.config.sections import TaskSection
from reasoner.config.stage import StageConfig
from reasoner.data.prompt import fitting
from reasoner.data.rows import RowPolicy, report_bad_rows
from tasks import BadRow, Problem
from tasks.inputs.spool import Picked, Spool
from tasks.registry import get_task
from tasks.validate import Verifiers, notes_on, suspects, unusable
from verifiers.jsonl import JsonLinesError, read_jsonl

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase


LOOKED_AT = 1000
"""Reading of a split stops after this many rows if all of them are bad (our choice)."""
PROBLEM_SHAPE = "a problem: a prompt, and a reference answer that its verifier can use"
"""Description of a task's row, for error messages."""


class Loaded(NamedTuple):
    """The problems of a stage, separate for each task; kept in a temporary file and read on use."""

    train: list[Sequence[Problem]]
    tested: list[Sequence[Problem]]
    """The first evaluation problems of each task; empty if nothing is evaluated."""
    notes: list[str]
    """Notes on the data for the user, one sentence each: rows left out, how a split was made."""


class Read(NamedTuple):
    """Rows of one split of one task."""

    problems: Spool[Problem]
    bad: list[BadRow]
    notes: list[str]
    """The task's notes on how it found and read the rows."""

    @property
    def total(self) -> int:
        """Number of rows read."""
        return len(self.problems) + len(self.bad)


def listed(problems: Iterable[Problem], section: TaskSection) -> Iterator[Problem]:
    """Yield the problems that the config's problems_file lists, in the task's order; all if there is no such file.

    Raises:
        ConfigError: the file cannot be read, or lists no problem of this task.
    """
    if section.problems_file is None:
        yield from problems
        return
    try:
        wanted = {str(row["id"]) for _, row in read_jsonl(section.problems_file)}
    except (JsonLinesError, KeyError) as error:
        raise ConfigError(
            "bad-value",
            f"task.problems_file {section.problems_file} must contain JSON lines with an id: {error}"
            " `reasoner preflight CONFIG --write-problems FILE` writes one.",
        ) from error
    none = True
    for problem in problems:
        if problem.id in wanted:
            none = False
            yield problem
    if none:
        raise ConfigError(
            "bad-value",
            f"task.problems_file {section.problems_file} lists {len(wanted)} problems, none of which task"
            f" {section.name} has. Write it with the same task and options.",
        )


def read_problems(
    section: TaskSection,
    split: str,
    *,
    most: int | None = None,
    through: Callable[[Iterable[Problem]], Iterable[Problem]] = iter,
) -> Read:
    """Read the first problems of a split; of a train split only those that problems_file lists.

    Reading stops early if the first LOOKED_AT rows are all bad, unless `bad_rows` is "drop_most".

    Args:
        section: the task.
        split: name of the task's split.
        most: maximum number of problems; None: all.
        through: applied to the stream of problems before they are stored.
    Raises:
        TaskError: the data cannot be read.
        ConfigError: problems_file lists no problem of this task.
    """
    read, task = Read(Spool(), [], []), get_task(section.name, **section.options)

    def problems() -> Iterator[Problem]:
        for one in task.each(split):
            if isinstance(one, Problem):
                yield one
                continue
            read.bad.append(one)
            if not read.problems and len(read.bad) == LOOKED_AT and section.bad_rows != "drop_most":
                return

    chosen = listed(problems(), section) if split == section.train_split else problems()
    for problem in through(islice(chosen, most)):
        read.problems.append(problem)
    read.notes.extend(task.notes)
    return read


def named_apart(problems: Iterable[Problem], config: StageConfig, place: int) -> Iterator[Problem]:
    """Yield the problems of task number `place`; its name gets a number if an earlier task has the same name.

    This makes task and id unique in a mixture of several files: `dataset`, `dataset-2`.
    """
    same = sum(other.name == config.task[place].name for other in config.task[:place])
    return (replace(problem, task=f"{problem.task}-{same + 1}") if same else problem for problem in problems)


def with_verifiers(problems: Iterable[Problem], section: TaskSection) -> Iterator[Problem]:
    """Yield the problems with the verifier and the environment that the config names instead of the task's own."""
    own, played = section.verifier, section.environment
    for problem in problems:
        if own is not None:
            problem = replace(problem, verifier=own.name, verifier_options=own.options)
        if played is not None:
            problem = replace(problem, environment=played.name, environment_options=played.options)
        yield problem


def load_problems(config: StageConfig, *, folder: Path | None = None) -> Loaded:
    """Load the training and evaluation problems of each task; unusable rows are left out and reported in the notes.

    Args:
        config: the stage.
        folder: the run folder; its `bad_rows.tsv` lists every row left out.
    Raises:
        TaskError: the data cannot be read.
        ConfigError: too many rows are unusable; see `task.bad_rows`.
    """
    loaded = Loaded([], [], [])
    for place, section in enumerate(config.task):
        graded = section.model_copy(update={"verifier": config.reward or section.verifier})
        through = partial(_of_stage, config=config, place=place, graded=graded)
        read = read_problems(section, section.train_split, most=section.limit, through=through)
        loaded.train.append(_usable(read, section, section.train_split, folder, loaded.notes))
    tested, notes = load_held_out(config, folder=folder) if config.evaluates else ([], [])
    loaded.tested.extend(tested)
    return loaded._replace(notes=[*dict.fromkeys([*loaded.notes, *notes])])


def load_held_out(config: StageConfig, *, folder: Path | None = None) -> tuple[list[Sequence[Problem]], list[str]]:
    """Load the first evaluation problems of each task, with notes; raises as `load_problems` does."""
    found: list[Sequence[Problem]] = []
    notes: list[str] = []
    for place, section in enumerate(config.task):
        through = partial(_of_stage, config=config, place=place, graded=section)
        read = read_problems(section, section.eval_split, most=config.eval.problems, through=through)
        found.append(_usable(read, section, section.eval_split, folder, notes))
    return found, notes


def _of_stage(
    problems: Iterable[Problem], *, config: StageConfig, place: int, graded: TaskSection
) -> Iterator[Problem]:
    return with_verifiers(named_apart(problems, config, place), graded)


def first_problems(section: TaskSection, split: str, *, most: int = LOOKED_AT) -> Sequence[Problem]:
    """Return the first problems of a split; fast, however long the split is.

    Raises:
        TaskError: the data cannot be read.
        ConfigError: all of its first rows are bad, or one is and `bad_rows` is "stop".
    """
    read = read_problems(section, split, most=most)
    policy = RowPolicy(section.bad_rows, "task.bad_rows")
    if not read.problems or (read.bad and section.bad_rows == "stop"):
        _left_out(read.bad, read.total, policy, f"{section.name} {split}", None)
    return read.problems


def every_problem(section: TaskSection, split: str) -> Sequence[Problem]:
    """Return all problems of a split.

    Raises:
        TaskError: the data cannot be read.
        ConfigError: more of its rows are bad than `task.bad_rows` allows.
    """
    read = read_problems(section, split)
    _left_out(read.bad, read.total, RowPolicy(section.bad_rows, "task.bad_rows"), f"{section.name} {split}", None)
    return read.problems


def _usable(read: Read, section: TaskSection, split: str, folder: Path | None, notes: list[str]) -> Sequence[Problem]:
    """Return the problems that a run can use; add notes on the others, as the config's policy wants.

    Raises:
        ConfigError: there is no problem, or there are more bad rows than `task.bad_rows` allows.
    """
    if not read.total:
        raise ConfigError("bad-value", f"{section.name} {split}: there must be at least one problem; there is none.")
    notes += read.notes
    faults = unusable(read.problems, Verifiers())
    bad = [*read.bad, *faults.values()]
    notes += _left_out(bad, read.total, RowPolicy(section.bad_rows, "task.bad_rows"), f"{section.name} {split}", folder)
    usable = Picked(read.problems, (place for place in range(len(read.problems)) if place not in faults))
    if suspected := suspects(usable):
        names = ", ".join(usable[place].id for place in [*suspected][:3])
        notes.append(
            f"{section.name} {split}: the last line of {len(suspected)} of {len(usable)} prompts is their reference"
            f" answer ({names}). Check them: if it is not part of the question, it is copied, not learned."
        )
    return usable


def _left_out(bad: Sequence[BadRow], total: int, policy: RowPolicy, where: str, folder: Path | None) -> list[str]:
    try:
        note = report_bad_rows(bad, total=total, policy=policy, shape=PROBLEM_SHAPE, folder=folder)
    except ConfigError as error:
        raise ConfigError("bad-value", f"{where}: {error}") from error
    return [f"{where}: {note}"] if note else []


def with_room(
    parts: Sequence[Sequence[Problem]],
    config: StageConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    limit: int,
    setting: str = "rollout.max_tokens",
    tests: bool = False,
    folder: Path | None = None,
) -> tuple[list[Sequence[Problem]], list[str]]:
    """Return each task's problems whose prompts leave room for a completion, and notes on those left out.

    Args:
        parts: the problems of each task.
        config: the stage; `task.long_prompts` decides if long prompts are left out or stop the run.
        tokenizer: the policy's.
        limit: maximum tokens of prompt and completion together.
        setting: config key of the completion's tokens, for messages.
        tests: True for evaluation problems.
        folder: the run folder; its `bad_rows.tsv` lists every row left out.
    Raises:
        ConfigError: a prompt is too long, or the chat template rejects it, and the policy for such rows is to stop.
    """
    kept: list[Sequence[Problem]] = []
    notes: list[str] = []
    tokens = config.eval_tokens if tests else config.rollout.max_tokens
    for part, section in zip(parts, config.task, strict=True):
        found = fitting(part, tokenizer, config.prompt, max_tokens=tokens, limit=limit, setting=setting)
        where = f"{section.name} {section.eval_split if tests else section.train_split}"
        if found.refused:
            notes += _left_out(found.refused, len(part), RowPolicy(section.bad_rows, "task.bad_rows"), where, folder)
        if found.long:
            shorter = RowPolicy(section.long_prompts, "task.long_prompts", instead=f"lower {setting}")
            notes += _left_out(found.long, len(part), shorter, where, folder)
        kept.append(found.problems)
    return kept, notes


def spread(parts: Sequence[Sequence[Problem]], count: int) -> list[Problem]:
    """Return `count` problems, taken in turn from the parts: the first of each, then the second of each, ..."""
    turns = [problem for turn in range(count) for part in parts for problem in part[turn : turn + 1]]
    return turns[:count]


def gold_notes(problems: Sequence[Problem]) -> str:
    """Describe reference answers whose grading may surprise, in one sentence; "" if there are none."""
    notes = notes_on(problems, Verifiers())
    first = [*islice(notes, 3)]
    if not first:
        return ""
    count = len(first) + sum(1 for _ in notes)
    return (
        f"{count} of {len(problems)} reference answers are graded in a way that may surprise (`reasoner tasks validate"
        f" TASK` lists them): {'; '.join(first)}."
    )
