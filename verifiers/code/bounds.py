"""Bounded reading of untrusted sandbox output: it is measured before it is parsed, split or decoded.

A reply of 16 MB can be written so that parsing it takes thirty times its size in memory (`[],[],[], ...`) or seconds of
time (a hundred thousand short lines). Counting first takes a few milliseconds and no memory.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import overload

from verifiers.jsonl import is_object
from verifiers.verdict import JSON

Frame = dict[str, JSON]
MOST_PARTS = 2_000_000
"""Most values of one reply, counted by the commas between them."""
MOST_BOXES = 500_000
"""Most lists, objects and strings of one reply: each takes some sixty bytes of memory, a number half of that."""
TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
LINE = re.compile(rb"([^\n]++)\n")
PLACE = re.compile(rb'\{"i": ?(\d{1,9})[,}]')
"""Start of a reply to one call, as `verifiers/code/guest/program.py` writes it."""
LONGER, SPARE = 8, 1 << 20
"""An output of more than LONGER times the bytes of the expected one plus SPARE is wrong under every rule."""
TAIL = 2_000


def readable(line: bytes) -> bool:
    """Return True if a reply has few enough parts to be parsed.

    Brackets and commas inside its strings do not count; they are told apart only if the total is too large.
    """
    texts = (line.count(b'"') - line.count(b'\\"')) // 2
    if texts > MOST_BOXES:
        return False
    if _within(line, texts):
        return True
    return _within(TEXT.sub(b"", line), texts)


def _within(line: bytes, texts: int) -> bool:
    return texts + line.count(b"[") + line.count(b"{") <= MOST_BOXES and line.count(b",") <= MOST_PARTS


def parsed(line: bytes) -> Frame | None:
    """Return the JSON object of a line; None if it is not an object or has too many parts."""
    if not readable(line):
        return None
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return frame if is_object(frame) else None


def lines_of(data: bytes, most: int) -> Iterator[bytes]:
    """Yield the first `most` complete lines that are not empty."""
    return (found.group(1) for found in itertools.islice(LINE.finditer(data), most))


def first_frame(data: bytes) -> Frame:
    """Return the first JSON object of a trusted process's result channel (in 16 lines); empty if there is none."""
    for line in lines_of(data, 16):
        with contextlib.suppress(ValueError, RecursionError):
            frame = json.loads(line)
            if is_object(frame):
                return frame
    return {}


class Replies(Sequence[Frame | None]):
    """Replies to calls, in the order of the calls; None for a call that was not reached.

    Each reply is parsed when it is accessed, and not cached, so that only one is in memory at a time. A reply that is
    too large to parse reads as an exception CannotCross.

    Args:
        data: content of the result channel.
        calls: number of calls; further replies are ignored.
        expected: encoded values that whole replies are compared with, if any. A reply far longer than its expected
            value cannot be equal to it, and is not parsed.
    """

    def __init__(self, data: bytes, calls: int, expected: Sequence[JSON] = ()) -> None:
        self._lines: list[bytes | None] = [None] * calls
        self._expected = expected
        self.load = ""
        """Reason why the program did not load; empty if it reported none."""
        for line in lines_of(data, 2 * calls + 16):
            if found := PLACE.match(line):
                index = int(found.group(1))
                if index < calls and self._lines[index] is None:
                    self._lines[index] = line
            elif not self.load and len(line) < MOST_BOXES and (frame := parsed(line)) and "load" in frame:
                self.load = str(frame["load"])

    @property
    def whole(self) -> bool:
        """True if there is a reply to every call."""
        return None not in self._lines

    @property
    def reached(self) -> int:
        """Number of calls answered before the first that was not."""
        return self._lines.index(None) if None in self._lines else len(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> Frame | None: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Frame | None]: ...
    def __getitem__(self, index: int | slice) -> Frame | Sequence[Frame | None] | None:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        line = self._lines[index]
        if line is None:
            return None
        if self._expected and len(line) > SPARE // 16:
            longest = LONGER * len(json.dumps(self._expected[index], separators=(",", ":"))) + SPARE // 16
            if len(line) > longest:
                return {"value": {"$opaque": ["a value of another size", True]}}
        return parsed(line) or {"raised": "CannotCross", "message": "CannotCross: the value is too large"}


class Joined(Sequence[Frame | None]):
    """Replies of several processes to one list of calls; each process continues where the one before stopped."""

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._parts: list[tuple[int, Replies]] = []
        """(Index of the call that the first reply answers, replies of one process)."""
        self.reached = 0
        """Number of calls answered before the first that was not."""

    def add(self, replies: Replies) -> None:
        """Append the replies to the calls that had not been reached before."""
        self._parts.append((self.reached, replies))
        self.reached += replies.reached

    def __len__(self) -> int:
        return self._calls

    @overload
    def __getitem__(self, index: int) -> Frame | None: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Frame | None]: ...
    def __getitem__(self, index: int | slice) -> Frame | Sequence[Frame | None] | None:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        if not -self._calls <= index < self._calls:
            raise IndexError(index)
        index %= self._calls
        first, replies = next(part for part in reversed(self._parts) if part[0] <= index)
        return replies[index - first]


def may_be(printed: bytes, expected: str) -> bool:
    """Return True if an output's length, without the white space at its end, allows it to be the expected one.

    Example:
        >>> may_be(b"42\\n", "42"), may_be(b"1\\n" * 4_000_000, "42")
        (True, False)
    """
    return len(printed) <= SPARE or len(printed.rstrip()) <= LONGER * len(expected.encode("utf-8", "replace")) + SPARE


def last_line(text: bytes) -> str:
    """Return the last line of a program's standard error that is not blank, cut to 200 characters."""
    line = text.rstrip()
    start = max(line.rfind(b"\n"), line.rfind(b"\r")) + 1
    return line[start : start + TAIL].decode("utf-8", "replace").strip()[:200]
