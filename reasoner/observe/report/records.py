"""Rollouts of a file without reading it into memory: columns for lists and charts, each row by its place in the file.

A line of rollouts.jsonl is mostly token ids and log-probabilities (10 kB for 300 tokens). The columns need none of
them, so they are cut out before a line is parsed; a rollout that is opened is read again from its place. The text of
the rows, for searching, goes to a temporary file.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reasoner.observe.report.texts import Texts
from reasoner.storage.files import RunError
from reasoner.storage.history import Row, UpdateRecord, attach_updates, row_of
from verifiers import JSON
from verifiers.jsonl import is_object, parse_line

LONG_LISTS = (b'"token_ids": [', b'"rollout_logprobs": [', b'"loss_mask": [', b'"prompt_ids": [')
LONG_LIST_OF_UPDATE = (b'"trainer_logprobs": [',)
READ_BYTES = 8 << 20
"""Bytes of whole lines that are read at a time."""
TAIL_BYTES = 64
"""Bytes before the place reached in a file, by which a file that was cut and written anew is recognised."""


class Span(NamedTuple):
    """Place of a line in a file, in bytes."""

    start: int
    length: int


def slim(line: bytes, keys: Sequence[bytes] = LONG_LISTS) -> bytes:
    r"""Return a line of JSON with its long lists of numbers emptied: those of `keys`, as json.dumps writes them.

    Inside a text these keys cannot be met: there a quote stands behind a backslash.

    Example:
        >>> slim(b'{"token_ids": [1, 2, 3], "completion": "\\"token_ids\\": [1]"}')
        b'{"token_ids": [], "completion": "\\"token_ids\\": [1]"}'
    """
    for key in keys:
        found = line.find(key)
        if found >= 0:
            start = found + len(key)
            line = line[:start] + line[line.find(b"]", start) :]
    return line


class Growing:
    """Complete lines of a file that may still be written to, each read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reached = 0
        """Bytes read so far."""
        self._tail = b""

    @property
    def size(self) -> int:
        """Size of the file in bytes; 0 if it is missing."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def was_cut(self) -> bool:
        """Return True if what was read is no longer there: a resumed run cuts its records to the checkpoint."""
        if not self.reached:
            return False
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, self.reached - len(self._tail)))
                return file.read(len(self._tail)) != self._tail
        except OSError:
            return True

    def lines(self) -> Iterator[tuple[Span, bytes]]:
        """Yield (place, line) of at most READ_BYTES of further lines, or of one longer line."""
        if not self.path.is_file():  # a pipe or a device might never end
            return
        with self.path.open("rb") as file:
            file.seek(self.reached)
            for line in file.readlines(READ_BYTES):
                if line[-1:] != b"\n":
                    return
                span = Span(self.reached, len(line))
                self.reached += len(line)
                self._tail = line[-TAIL_BYTES:]
                if not line.isspace():
                    yield span, line

    def read(self, span: Span) -> bytes:
        """Return the line at a place."""
        with self.path.open("rb") as file:
            file.seek(span.start)
            return file.read(span.length)


Number = float | None
FIELDS = ("step", "group", "sample", "problem", "task", "outcome", "tokens", "truncated")
"""Columns of integers; problem, task and outcome are places in a list of names."""


class Columns:
    """One value per rollout and column, and the names that three of the columns point to."""

    def __init__(self) -> None:
        self.names: dict[str, dict[str, int]] = {"problem": {}, "task": {}, "outcome": {}}
        self.integers = {name: array("q") for name in FIELDS}
        self._in_order = [*self.integers.values()]
        self.reward: list[Number] = []
        self.advantage: list[Number] = []
        self.difficulty: list[Number] = []

    def __len__(self) -> int:
        return len(self.reward)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a line of rollouts.jsonl.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or of the wrong type.
        """
        reward, difficulty, names = row.get("reward"), row.get("difficulty"), self.names
        problem, task, outcome = str(row["problem"]), str(row.get("task") or ""), str(row["verdict"]["outcome"])
        numbers = (
            *(int(row["step"]), int(row["group"]), int(row["sample"])),
            names["problem"].setdefault(problem, len(names["problem"])),
            names["task"].setdefault(task, len(names["task"])),
            names["outcome"].setdefault(outcome, len(names["outcome"])),
            *(int(row["tokens"]), int(row["finish_reason"] == "length")),
        )
        rounded = None if reward is None else round(float(reward), 4)
        hardness = None if difficulty is None else float(difficulty)
        for column, value in zip(self._in_order, numbers, strict=True):
            column.append(value)
        self.reward.append(rounded)
        self.advantage.append(None)
        self.difficulty.append(hardness)

    def place(self, row: int) -> tuple[int, int, int]:
        """Return (step, group, sample) of a row."""
        of = self.integers
        return of["step"][row], of["group"][row], of["sample"][row]

    def outcome(self, row: int) -> str:
        """Return the outcome of a row's verdict."""
        return [*self.names["outcome"]][self.integers["outcome"][row]]

    def to_json(self, start: int = 0) -> dict[str, Any]:
        """Return the columns from a row on, and all names."""
        return {
            "problems": [*self.names["problem"]],
            "tasks": [*self.names["task"]],
            "outcomes": [*self.names["outcome"]],
            **{name: column[start:].tolist() for name, column in self.integers.items()},
            "reward": self.reward[start:],
            "advantage": self.advantage[start:],
            "start": start,
            "count": len(self),
        }


def text_of(row: Mapping[str, Any]) -> str:
    """Return what is searched of a line of rollouts.jsonl: completion, prompt, answer, reference."""
    reference = row.get("reference")
    answer = row["verdict"].get("answer")
    shown = (value if isinstance(value, str) else "" if value is None else str(value) for value in (answer, reference))
    return "\n".join([row["completion"], row.get("prompt") or "", *shown])


class Records:
    """Rollouts of one file, with the lines of updates.jsonl that belong to them. Safe for several threads."""

    def __init__(self, rollouts: Path, updates: Path | None = None, *, searchable: bool = False) -> None:
        """Read nothing yet: `refresh` does.

        Args:
            rollouts: a rollouts.jsonl or eval_rollouts.jsonl; it may be missing.
            updates: the updates.jsonl beside it.
            searchable: True keeps the rows' texts for `texts`.
        """
        self.lock = threading.RLock()
        self._rollouts, self._updates = Growing(rollouts), None if updates is None else Growing(updates)
        self._searchable = searchable
        self.texts: Texts | None = None
        self.generation = 0
        """Number of times that the file was cut and read anew."""
        self.damaged = ""
        """Reason why reading stopped before the end; empty: it did not."""
        self._begin()

    def _begin(self) -> None:
        if self.texts is not None:
            self.texts.close()
        self.columns = Columns()
        self.texts = Texts() if self._searchable else None
        self.damaged = ""
        self._spans: list[Span] = []
        self._update_spans: dict[int, Span] = {}
        self._update_lines = 0
        self._early: dict[tuple[int, int, int], tuple[Number, Span]] = {}
        self.settled = 0
        """Number of rows, from the first, whose columns do not change any more: updates follow rollouts in order."""
        self._row_of: dict[tuple[int, int, int], int] = {}
        for file in (self._rollouts, self._updates):
            if file is not None:
                file.reached = 0

    @property
    def progress(self) -> tuple[int, int]:
        """(bytes read, bytes of the files)."""
        files = [file for file in (self._rollouts, self._updates) if file is not None]
        return sum(file.reached for file in files), sum(file.size for file in files)

    def refresh(self, *, seconds: float = float("inf")) -> bool:
        """Read further lines for about so many seconds; return True if there are more.

        A damaged line ends the reading; `damaged` says where.
        """
        until = time.monotonic() + seconds
        with self.lock:
            if any(file is not None and file.was_cut() for file in (self._rollouts, self._updates)):
                self._begin()
                self.generation += 1
        while not self.damaged:
            with self.lock:
                read = [self._read_rollouts(), self._read_updates()]
            if not any(read):
                return False
            if time.monotonic() >= until:
                return True
            time.sleep(0)  # other threads may ask in between
        return False

    def _read_rollouts(self) -> bool:
        texts: list[str] = []
        any_line = False
        for span, line in self._rollouts.lines():
            any_line = True
            try:
                row = _object(line)
                text = text_of(row)
                self.columns.add(row)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                self.damaged = _damage(self._rollouts.path, len(self._spans) + 1, error)
                break
            number, place = len(self._spans), self.columns.place(len(self._spans))
            self._row_of[place] = number
            self._spans.append(span)
            texts.append(text)
            if place in self._early:
                self._attach(number, *self._early.pop(place))
        if self.texts is not None:
            self.texts.add(texts)
        return any_line

    def _read_updates(self) -> bool:
        any_line = False
        if self._updates is None:
            return False
        for span, line in self._updates.lines():
            any_line = True
            self._update_lines += 1
            try:
                update = _object(line, LONG_LIST_OF_UPDATE)
                place = (int(update["step"]), int(update["group"]), int(update["sample"]))
                advantage = update.get("advantage")
                rounded = None if advantage is None else round(float(advantage), 4)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                self.damaged = _damage(self._updates.path, self._update_lines, error)
                break
            row = self._row_of.get(place)
            if row is None:
                self._early[place] = (rounded, span)  # its rollout is not read yet
            else:
                self._attach(row, rounded, span)
        return any_line

    def _attach(self, row: int, advantage: Number, span: Span) -> None:
        self.columns.advantage[row] = advantage
        self._update_spans[row] = span
        self.settled = max(self.settled, row + 1)

    @property
    def settled_rows(self) -> int:
        """Number of rows, from the first, whose columns do not change any more; all where there are no updates."""
        without = self._updates is None or not self._updates.size
        return len(self.columns) if without else self.settled

    def find(self, place: tuple[int, int, int]) -> int | None:
        """Return the row at (step, group, sample)."""
        return self._row_of.get(place)

    def row(self, number: int) -> Row:
        """Read one rollout from its place, with its update.

        Raises:
            RunError: the line is not a valid record, or the file was cut since.
        """
        with self.lock:
            span, update_span = self._spans[number], self._update_spans.get(number)
        try:
            row = row_of(_whole(self._rollouts.read(span)))
            if update_span is not None and self._updates is not None:
                update = UpdateRecord.model_validate(_whole(self._updates.read(update_span)))
                attach_updates([row], [update])
        except (ValueError, TypeError, OverflowError) as error:
            raise RunError(_damage(self._rollouts.path, number + 1, error)) from error
        return row

    def brief(self, number: int) -> dict[str, JSON]:
        """Read one line without its lists of numbers."""
        with self.lock:
            span = self._spans[number]
        return _object(self._rollouts.read(span))

    def close(self) -> None:
        """Delete the texts."""
        with self.lock:
            if self.texts is not None:
                self.texts.close()


def _whole(line: bytes) -> dict[str, JSON]:
    value = parse_line(line)
    if not is_object(value):
        raise ValueError("must be a JSON object")
    return value


def _object(line: bytes, keys: Sequence[bytes] = LONG_LISTS) -> dict[str, Any]:
    try:
        value = parse_line(slim(line, keys))
    except ValueError:
        value = parse_line(line)
    if not is_object(value):
        raise ValueError("must be a JSON object")
    return value


def _damage(path: Path, number: int, error: Exception) -> str:
    said = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
    return f"{path} line {number} is not a valid record ({said}). Restore the file, or remove the line."
