"""What comes out of a sandbox is a stranger's: it is measured before it is parsed, split or decoded.

A reply of 16 MB can be written so that reading it costs thirty times its size in memory (`[],[],[], ...`) or seconds of
time (a hundred thousand little ones). What is counted here first costs a few milliseconds and no memory.
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
"""Values of one reply, counted by the commas between them."""
MOST_BOXES = 500_000
"""Lists, objects and texts of one reply: each costs some sixty bytes of memory, a number half of that."""
TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
LINE = re.compile(rb"([^\n]++)\n")
PLACE = re.compile(rb'\{"i": ?(\d{1,9})[,}]')
"""How a reply to one call begins, as `verifiers/code/guest/program.py` writes it."""
LONGER, SPARE = 8, 1 << 20
"""An output of more than LONGER times the bytes of the expected one, and SPARE, is another one by every rule."""
TAIL = 2_000


def readable(line: bytes) -> bool:
    """Whether the text of a reply is of no more parts than one is read of.

    Brackets and commas within its texts count for nothing; they are told apart only where all together are too many.
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
    """The JSON object of a line, None where it is none or too much."""
    if not readable(line):
        return None
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return frame if is_object(frame) else None


def lines_of(data: bytes, most: int) -> Iterator[bytes]:
    """The first so many whole lines that hold something, one after the other."""
    return (found.group(1) for found in itertools.islice(LINE.finditer(data), most))


def first_frame(data: bytes) -> Frame:
    """The first line of the result channel of a process of ours that is an object; empty where none is."""
    for line in lines_of(data, 16):
        with contextlib.suppress(ValueError, RecursionError):
            frame = json.loads(line)
            if is_object(frame):
                return frame
    return {}


class Replies(Sequence[Frame | None]):
    """The replies to calls, in the order of the calls: None for one that was not reached, or cannot be read.

    Each is parsed when it is asked for, and not kept: what a program returned is in memory one reply at a time.

    Args:
        data: of the result channel.
        calls: how many there were; a program that tells more than that tells it to nobody.
        expected: encoded values that replies are compared with as a whole, where they are: a reply that is far longer
            than its value is written cannot be equal to it, and is not read.
    """

    def __init__(self, data: bytes, calls: int, expected: Sequence[JSON] = ()) -> None:
        self._lines: list[bytes | None] = [None] * calls
        self._expected = expected
        self.load = ""
        """Why the program did not load, where it says so."""
        for line in lines_of(data, 2 * calls + 16):
            if found := PLACE.match(line):
                index = int(found.group(1))
                if index < calls and self._lines[index] is None:
                    self._lines[index] = line
            elif not self.load and len(line) < MOST_BOXES and (frame := parsed(line)) and "load" in frame:
                self.load = str(frame["load"])

    @property
    def whole(self) -> bool:
        """Whether there is one for each call."""
        return None not in self._lines

    @property
    def reached(self) -> int:
        """How many calls were answered before the first that was not."""
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
    """The replies of several processes to so many calls: each goes on where the one before it stopped."""

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._parts: list[tuple[int, Replies]] = []
        """Which call the first of each is a reply to."""
        self.reached = 0
        """How many calls were answered before the first that was not."""

    def add(self, replies: Replies) -> None:
        """Put the replies to the calls that were not reached behind the others."""
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
    """Whether an output can be the expected one at all, by its length without the white space at its end.

    Example:
        >>> may_be(b"42\\n", "42"), may_be(b"1\\n" * 4_000_000, "42")
        (True, False)
    """
    return len(printed) <= SPARE or len(printed.rstrip()) <= LONGER * len(expected.encode("utf-8", "replace")) + SPARE


def last_line(text: bytes) -> str:
    """The last line that holds something of what a program said on its standard error, cut to 200 characters."""
    line = text.rstrip()
    start = max(line.rfind(b"\n"), line.rfind(b"\r")) + 1
    return line[start : start + TAIL].decode("utf-8", "replace").strip()[:200]
