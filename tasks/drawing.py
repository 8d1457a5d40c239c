"""What procedural and file-backed tasks share: distinct problems drawn for a split, and a split's local file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tasks.arithmetic import split_of
from tasks.base import Problem, TaskError
from tasks.inputs import read
from verifiers.jsonl import is_list, is_object

PATIENCE = 5_000
"""Draws in a row without a new problem, after which the family is taken to be exhausted."""


def draw_distinct(draw: Callable[[], Problem], *, split: str, sizes: Mapping[str, int]) -> list[Problem]:
    """Distinct problems of a split, by id; one id in ten belongs to the test split, whatever the seed.

    Raises:
        TaskError: there is no such split.
    """
    if split not in sizes:
        raise TaskError(f"split must be train or test; got {split!r}.")
    found: dict[str, Problem] = {}
    misses = 0
    while len(found) < sizes[split] and misses < PATIENCE:
        problem = draw()
        if split_of(problem.id) != split or problem.id in found:
            misses += 1
            continue
        misses = 0
        found[problem.id] = problem
    return list(found.values())


def split_rows(path: str, *, name: str, split: str, columns: Sequence[str]) -> Iterable[Mapping[str, object]]:
    """The rows of `NAME_SPLIT.jsonl[.gz]` in a folder, or else what `tasks.inputs.read` finds; each has all columns.

    Raises:
        TaskError: there is no such file, or a row lacks a column.
    """
    own = [found for ending in (".jsonl", ".jsonl.gz") if (found := Path(path) / f"{name}_{split}{ending}").is_file()]
    for number, row in enumerate(read(str(own[0]) if own else path, split=split)):
        missing = [column for column in columns if column not in row]
        if missing:
            has = ", ".join(row) or "none"
            raise TaskError(f"{name} {split} row {number} must have column {missing[0]!r}; it has: {has}.")
        yield row


def text_of_first(answers: object) -> str:
    """Return the text of the first of a list of answers, which are objects with a text.

    Raises:
        ValueError: it is no such list.
    """
    first = answers[0] if is_list(answers) and answers else None
    if not is_object(first) or "text" not in first:
        raise ValueError(f"got {str(answers)[:80]!r}")
    return str(first["text"])
