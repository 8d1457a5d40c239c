"""Reading files of JSON lines: one object per line, with its line number. Errors name the line."""

from __future__ import annotations

import codecs
import gzip
import json
import math
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeGuard

from verifiers.errors import FileError
from verifiers.text import json_safe, whole
from verifiers.verdict import JSON

GZIP_MARK = b"\x1f\x8b"
MAX_LINE_BYTES = 64 << 20
MAX_RATIO = 100
"""Largest ratio of unpacked to compressed bytes, beyond FREE_BYTES; text has 3 to 30."""
FREE_BYTES = 256 << 20
TOO_MUCH = f"more than {MAX_RATIO} times its compressed size. Unpack the file if this is expected."
MAX_NESTING = 200
"""Most levels of lists and objects inside each other."""
GIVEN_PIPES = ("/dev/", "/proc/")
"""Pipes that a shell creates for a command: <(...), /dev/stdin."""
TOO_DEEP = f"nests more than {MAX_NESTING} deep"
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""The escape of a surrogate, which is a character only as half of a pair."""


class BinaryLines(Protocol):
    """A file open for reading bytes."""

    def readline(self, size: int = -1, /) -> bytes:
        """Return the next line, or at most `size` bytes of it; empty at the end."""
        ...


class JsonLinesError(FileError):
    """A file of JSON lines, or one of its lines, cannot be read."""

    def __init__(self, path: Path | str, line: int, reason: str) -> None:
        super().__init__(path, line, reason)  # all three, so that the error can be pickled
        self.path = path
        self.line = line
        """Line number from 1; 0: the whole file."""
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}{f' line {self.line}' if self.line else ''} {self.reason}"


def is_object(value: object) -> TypeGuard[dict[str, JSON]]:
    """Return True if a JSON value is an object."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[JSON]]:
    """Return True if a JSON value is a list."""
    return isinstance(value, list)


def numbered_lines(path: Path | str) -> Iterator[tuple[int, bytes]]:
    r"""Yield (line number from 1, line) for the lines of a file that are not blank.

    Only \n ends a line. A byte order mark at the beginning is left out.

    Args:
        path: the file, gzipped if its name ends in .gz; the string `-` is standard input.
    Raises:
        JsonLinesError: the file cannot be read, has a line longer than MAX_LINE_BYTES, or unpacks to too many bytes.
    """
    try:
        if path != "-" and stat.S_ISFIFO(os.stat(path).st_mode) and not os.path.abspath(path).startswith(GIVEN_PIPES):
            raise JsonLinesError(path, 0, "must be a file; it is a pipe, which may never end. Write it to a file.")
        opener = gzip.open if str(path).endswith(".gz") else open
        with nullcontext(sys.stdin.buffer) if path == "-" else opener(path, "rb") as file:
            yield from lines_of(file, path, bound=_bound(path))
    except (OSError, EOFError, zlib.error) as error:
        raise JsonLinesError(path, 0, f"cannot be read: {error}.") from error


def lines_of(file: BinaryLines, path: Path | str, *, bound: float = math.inf) -> Iterator[tuple[int, bytes]]:
    """Yield the numbered lines of an open file, as `numbered_lines` does for a path.

    Args:
        file: the file, open for reading unpacked bytes.
        path: its name in errors.
        bound: most bytes that may be read.
    Raises:
        JsonLinesError: a line is longer than MAX_LINE_BYTES, or the file has more bytes than `bound`.
    """
    read = 0
    for number, line in enumerate(iter(partial(file.readline, MAX_LINE_BYTES + 1), b""), 1):
        read += len(line)
        if len(line) > MAX_LINE_BYTES:
            raise JsonLinesError(path, number, f"must be at most {MAX_LINE_BYTES >> 20} MiB long. Split it.")
        if read > bound:
            raise JsonLinesError(path, number, f"is reached after {read >> 20} MiB, {TOO_MUCH}")
        line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if line.strip():
            yield number, line


def _bound(path: Path | str) -> float:
    """Return the limit on the bytes read from a file: a limit on the expansion of a compressed file, else infinity."""
    if not str(path).endswith(".gz"):
        return math.inf
    return unpacked_bound(os.stat(path).st_size)


def unpacked_bound(size: int) -> int:
    """Return the most bytes that a file of `size` compressed bytes may unpack to, so that it cannot fill the memory."""
    return max(FREE_BYTES, MAX_RATIO * size)


def parse_line(line: bytes, *, errors: Literal["strict", "replace"] = "strict") -> JSON:
    """Return the JSON value of a line.

    Args:
        line: its bytes.
        errors: "replace" substitutes U+FFFD for bytes that are not UTF-8; "strict" raises.
    Raises:
        ValueError: the line is not JSON, nests deeper than MAX_NESTING, or is not UTF-8.
    """
    try:
        value: JSON = json.loads(line.decode(errors=errors))
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if line.count(b"[") + line.count(b"{") > MAX_NESTING and is_deep(value):
        raise ValueError(TOO_DEEP)
    return value


def is_deep(value: JSON) -> bool:
    """Return True if lists and objects nest deeper than MAX_NESTING, too deep for recursive code."""
    level = [value]
    for _ in range(MAX_NESTING + 1):
        level = [
            part
            for outer in level
            if isinstance(outer, dict | list)
            for part in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(part, dict | list)
        ]
        if not level:
            return False
    return True


def read_jsonl(path: Path | str, *, growing: bool = False) -> Iterator[tuple[int, dict[str, JSON]]]:
    """Yield (line number from 1, object) for every line of a file that is not blank.

    Args:
        path: the file, gzipped if its name ends in .gz; the string `-` is standard input.
        growing: skip a last line without a newline, for a file that is still being written.
    Raises:
        JsonLinesError: the file cannot be read, or a line is not a JSON object that UTF-8 can encode.
    """
    for number, line in numbered_lines(path):
        if growing and not line.endswith(b"\n"):
            return
        try:
            value = parse_line(line)
        except ValueError as error:
            hint = " It looks gzipped: name it .gz." if line.startswith(GZIP_MARK) else ""
            raise JsonLinesError(path, number, f"must be JSON in UTF-8: {error}.{hint}") from error
        if not is_object(value):
            raise JsonLinesError(path, number, f"must be a JSON object; got {type(value).__name__}.")
        if SURROGATE.search(line) and (half := half_surrogate(value)):
            raise JsonLinesError(path, number, half)
        yield number, value


def json_line(value: object) -> str:
    """Return a JSON value on one line, safe for a UTF-8 file and for a terminal.

    There is no line break at the end. Unpaired surrogates become U+FFFD. Characters that a terminal would interpret or
    hide are written as JSON escapes, so the value stays the same.

    Example:
        >>> json_line({"answer": "2 €\\x9b"})
        '{"answer": "2 €\\\\u009b"}'
    """
    return json_safe(whole(json.dumps(value, ensure_ascii=False)))


def half_surrogate(row: Mapping[str, JSON]) -> str:
    """Return an error text if a row contains an unpaired surrogate, which UTF-8 cannot encode; otherwise ""."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        return f"contains {half}, half of a surrogate pair, which is not a character. Replace it."
    return ""


__all__ = [
    "JsonLinesError",
    "half_surrogate",
    "is_list",
    "is_object",
    "json_line",
    "lines_of",
    "numbered_lines",
    "parse_line",
    "read_jsonl",
    "unpacked_bound",
]
