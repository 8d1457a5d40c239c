"""Tasks whose problems are rows of files or hub data sets, with bad rows set apart and a test split held out."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from tasks.base import BadRow, Message, Problem, Task, TaskError, UnusableRow
from tasks.held_out import DEFAULT_SHARE, hold_out
from tasks.inputs import Rows, has_split, is_local
from tasks.inputs.hub import hub_splits
from tasks.inputs.names import Use, meant

Row = Mapping[str, object]


class RowTask(Task):
    """A task that reads rows. If the data has no test split, a part of its training rows is held out, by prompt."""

    _held_out_share: float = DEFAULT_SHARE

    @abstractmethod
    def read(self, split: str) -> Iterator[Problem | BadRow]:
        """Yield the problems and bad rows of a split that the data has, with only a few in memory at a time."""

    @abstractmethod
    def source(self) -> str | None:
        """Return the name of the data (path or hub name) if it has no test split; None if it has one."""

    def problems(self, split: str) -> Sequence[Problem]:
        """Return the usable problems of a split.

        Raises:
            TaskError: more rows are unusable than usable, or the split is unknown.
        """
        problems: list[Problem] = []
        bad: list[BadRow] = []
        for one in self.each(split):
            if isinstance(one, BadRow):
                bad.append(one)
            else:
                problems.append(one)
        if len(bad) > len(problems):
            total = len(bad) + len(problems)
            raise TaskError(f"{len(bad)} of {total} rows cannot be used: {first_of(bad)}.")
        return problems

    def each(self, split: str) -> Iterator[Problem | BadRow]:
        """Yield the problems and bad rows of a split as they are read; hold out a test split if the data has none."""
        if split not in self.splits:
            raise TaskError(f"split of {self.name} must be {' or '.join(self.splits)}; got {split!r}.")
        if self.source() is None:
            return self.read(split)
        return (one for side, one in self.sides(need_test=split == "test") if side == split)

    def sides(self, *, need_test: bool = True) -> Iterator[tuple[str, Problem | BadRow]]:
        """Yield (train or test, problem or bad row) of data without a test split, in one pass. Bad rows count as train.

        Raises:
            TaskError: nothing can be held out, and `need_test`; it says so first if no row can be used.
        """
        where, share = self.source(), self._held_out_share
        held = hold_out(self._prompts(), share)
        if need_test and (held is None or share == 0):
            self._refuse_if_all_are_bad()
            why = "held_out_share is 0" if held else "it has not two different prompts, one to be held out"
            raise TaskError(
                f"{where} has no test split, and {why}. Name a test split, or leave evaluation out with"
                " eval.problems: 0."
            )
        if 0 < share < 1 and held:
            self.say(
                f"{where} has no test split: {share:.0%} of its prompts, by their digest, are held out for evaluation"
                " (task.options.held_out_share)"
            )
        for one in self.read("train"):
            tests = held is not None and isinstance(one, Problem) and held.tests(one.prompt)
            yield ("test", self.held(one)) if tests and isinstance(one, Problem) else ("train", one)

    def held(self, problem: Problem) -> Problem:
        """Return a problem with test instead of train in its id, for one held out of the training rows."""
        return replace(problem, id=problem.id.replace("train/", "test/", 1))

    def say(self, *notes: str) -> None:
        """Add to `notes`, each sentence once."""
        self.notes = [*self.notes, *(note for note in notes if note and note not in self.notes)]

    def _refuse_if_all_are_bad(self) -> None:
        rows = list(self.read("train")) if next(self._prompts(), None) is None else []
        bad = [one for one in rows if isinstance(one, BadRow)]
        if bad:
            raise TaskError(f"{len(bad)} of {len(bad)} rows cannot be used: {first_of(bad)}.")

    def _prompts(self) -> Iterator[str | tuple[Message, ...]]:
        return (one.prompt for one in self.read("train") if isinstance(one, Problem))


def made(rows: Rows, make: Callable[[Row, int], Problem | None]) -> Iterator[Problem | BadRow]:
    """Convert each row to a problem, with rows numbered from 0.

    Args:
        rows: rows of a file, a folder or the hub; damaged ones become bad rows.
        make: returns None for a row to skip; raises UnusableRow or TaskError for one that contains no problem.
    """
    for number, (where, entry) in enumerate(rows.entries()):
        if entry.row is None:
            yield BadRow(where, entry.fault)
            continue
        try:
            problem = make(entry.row, number)
        except (UnusableRow, TaskError) as error:
            yield BadRow(where, str(error))
            continue
        if problem is not None:
            yield problem


def first_of(bad: Sequence[BadRow]) -> str:
    """Describe the bad rows: the first row of each of the first three reasons, as a sentence without its full stop.

    Example:
        >>> first_of([BadRow("f row 1", "is empty."), BadRow("f row 2", "is empty."), BadRow("f row 3", "is long")])
        'f row 1: is empty (2 rows); f row 3: is long'
    """
    counts = Counter(row.reason for row in bad)
    firsts = {row.reason: row.where for row in reversed(bad)}
    shown = [
        f"{firsts[reason]}: {reason.rstrip('.')}{f' ({count} rows)' if count > 1 else ''}"
        for reason, count in itertools.islice(counts.items(), 3)
    ]
    return "; ".join([*shown, *(["..."] if len(counts) > 3 else [])])


def lacks_test(path: str | Sequence[str], *, config: str | None = None) -> str | None:
    """Return the paths as text if they have no test split; None if they have one, or if that cannot be known."""
    paths = [path] if isinstance(path, str) else path
    return ", ".join(paths) if has_test_split(paths, config=config, use="problems") is False else None


def has_test_split(paths: Sequence[str], *, config: str | None, use: Use) -> bool | None:
    """Return True if there is a test split of rows for this use; None if that cannot be known."""
    if all(map(is_local, paths)):
        return has_split(paths, "test", config=config, use=use) or False
    names = hub_splits(paths[0], config=config) if len(paths) == 1 else None
    return None if names is None else meant("test", names, use=use) is not None


__all__ = ["Row", "RowTask", "first_of", "has_test_split", "lacks_test", "made"]
