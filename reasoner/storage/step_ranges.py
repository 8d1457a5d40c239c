"""Parts of a record file that is too long to read: whole steps, found by bisection instead of reading."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from verifiers.jsonl import parse_line


class StepFile:
    """Record file of JSON objects with a field `step` that never falls from one line to the next.

    A last line without a newline is not seen: it is still being written.

    Args:
        path: the file.
    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        self.size = self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> StepFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def bounds(self) -> tuple[int, int] | None:
        """Return the first and the last step; None if the file has no complete line.

        Raises:
            ValueError: a line that was looked at is not a record with a step.
        """
        first = self._line_from(0)
        if first is None:
            return None
        place, width = self.size, 1 << 16
        while place > 0:
            place = max(0, self.size - width)
            if (found := self._last_line_from(place)) is not None:
                return _step(first[1]), _step(found)
            width *= 4
        return None

    def line_bytes(self, looks: int = 16) -> float:
        """Return the mean size of a line, from lines at evenly spaced places; 0 if there is none."""
        found = [self._line_from(self.size * place // looks) for place in range(looks)]
        sizes = [len(line) for _, line in filter(None, found)]
        return sum(sizes) / len(sizes) if sizes else 0.0

    def start(self, step: int) -> int:
        """Return the byte at which the first line of this step or of a later one begins; the file's size if none does.

        Raises:
            ValueError: a line that was looked at is not a record with a step.
        """
        low, high = 0, self.size
        while low < high:
            middle = (low + high) // 2
            found = self._line_from(middle)
            if found is None or _step(found[1]) >= step:
                high = middle
            else:
                low = found[0] + 1
        found = self._line_from(low)
        return self.size if found is None else found[0]

    def lines(self, steps: Sequence[int]) -> Iterator[bytes]:
        """Yield the lines of these ascending steps."""
        for first, last in _runs(steps):
            end = self.start(last + 1)
            self._file.seek(self.start(first))
            while self._file.tell() < end and (line := self._file.readline()).endswith(b"\n"):
                yield line

    def _line_from(self, place: int) -> tuple[int, bytes] | None:
        """Return the first complete line that begins at this byte or later, and where it begins."""
        self._file.seek(max(0, place - 1))
        if place:
            self._file.readline()
        start, line = self._file.tell(), self._file.readline()
        return (start, line) if line.endswith(b"\n") else None

    def _last_line_from(self, place: int) -> bytes | None:
        found = self._line_from(place)
        if found is None:
            return None
        last = found[1]
        while (line := self._file.readline()).endswith(b"\n"):
            last = line
        return last


def spread(first: int, last: int, count: int) -> list[int]:
    """Choose steps from a range: a third of them from its begin, a third from its end, the others evenly between.

    Args:
        first: first step of the range.
        last: last step.
        count: steps to choose; all if there are no more.

    Example:
        >>> spread(1, 100, 9)
        [1, 2, 3, 19, 50, 81, 98, 99, 100]
    """
    if count >= last - first + 1:
        return list(range(first, last + 1))
    edge = max(1, count // 3)
    inner = max(0, count - 2 * edge)
    low, high = first + edge, last - edge
    between = [low + (high - low) * (2 * place + 1) // (2 * inner) for place in range(inner)]
    return sorted({*range(first, low), *between, *range(high + 1, last + 1)})


def _runs(steps: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of each run of consecutive steps."""
    first = previous = None
    for step in steps:
        if first is None or previous is None or step != previous + 1:
            if first is not None and previous is not None:
                yield first, previous
            first = step
        previous = step
    if first is not None and previous is not None:
        yield first, previous


def _step(line: bytes) -> int:
    record = parse_line(line)
    step = record.get("step") if isinstance(record, dict) else None
    if not isinstance(step, int):
        raise ValueError(f"must have a step; the line begins with {line[:40]!r}")
    return step
