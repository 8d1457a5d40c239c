"""Helpers of procedural and file-backed tasks: drawing distinct problems, and finding a split's local file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tasks.arithmetic import split_of
from tasks.base import Problem, TaskError, UnusableRow
from tasks.inputs import Rows, read
from tasks.row_task import Row, lacks_test
from verifiers.jsonl import is_list, is_object

PATIENCE = 5_000
"""Draws in a row without a new problem, after which the family counts as exhausted."""


def draw_distinct(draw: Callable[[], Problem], *, split: str, sizes: Mapping[str, int]) -> list[Problem]:
    """Draw problems with distinct ids for a split. One id in ten belongs to the test split, whatever the seed.

    Returns:
        `sizes[split]` problems; fewer if PATIENCE draws in a row bring no new one.
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


def split_rows(path: str, *, name: str, split: str) -> Rows:
    """Return the rows of `NAME_SPLIT.jsonl[.gz]` in a folder; without that file, those that `tasks.inputs.read` finds.

    Raises:
        TaskError: there is no such file.
    """
    own = _own_file(path, name, split)
    return read(str(own) if own else path, split=split)


def has_test(path: str, *, name: str) -> bool:
    """Return True if there is a test split, as `split_rows` finds it."""
    return _own_file(path, name, "test") is not None or lacks_test(path) is None


def columns(row: Row, *names: str) -> list[object]:
    """Return the values of the named columns of a row, in order.

    Raises:
        UnusableRow: a column is missing.
    """
    for name in names:
        if name not in row:
            raise UnusableRow(f"must have column {name!r}; it has: {', '.join(map(str, row)) or 'none'}")
    return [row[name] for name in names]


def _own_file(path: str, name: str, split: str) -> Path | None:
    files = (Path(path) / f"{name}_{split}{ending}" for ending in (".jsonl", ".jsonl.gz"))
    return next((file for file in files if file.is_file()), None)


def text_of_first(answers: object) -> str:
    """Return the text of the first answer in a list of objects with a text.

    Raises:
        ValueError: the value is not such a list.
    """
    first = answers[0] if is_list(answers) and answers else None
    if not is_object(first) or "text" not in first:
        raise ValueError(f"got {str(answers)[:80]!r}")
    return str(first["text"])
