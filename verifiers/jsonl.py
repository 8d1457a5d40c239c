"""Reading files of JSON lines: one object a line, with its line number, or an error that names the line."""

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
"""Of a compressed file's bytes to those it is written in, beyond FREE_BYTES: text has 3 to 30."""
FREE_BYTES = 256 << 20
TOO_MUCH = f"more than {MAX_RATIO} times what the file is packed in. Unpack it, if it is what it should be."
MAX_NESTING = 200
"""Lists and objects inside each other."""
GIVEN_PIPES = ("/dev/", "/proc/")
"""Pipes that a shell made for a command: <(...), /dev/stdin."""
TOO_DEEP = f"nests more than {MAX_NESTING} deep"
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""The escape of a surrogate, which is a character only beside its other half."""


class BinaryLines(Protocol):
    """A file open for reading bytes."""

    def readline(self, size: int = -1, /) -> bytes:
        """The next line, or as much of it as `size` bytes; empty at the end."""
        ...


class JsonLinesError(FileError):
    """A file of JSON lines cannot be read, or one of its lines."""

    def __init__(self, path: Path | str, line: int, reason: str) -> None:
        super().__init__(path, line, reason)  # all three, so that the error can be pickled
        self.path = path
        self.line = line
        """From 1; 0: the file as a whole."""
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}{f' line {self.line}' if self.line else ''} {self.reason}"


def is_object(value: object) -> TypeGuard[dict[str, JSON]]:
    """True for a JSON object, for a value that comes from JSON."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[JSON]]:
    """True for a JSON list, for a value that comes from JSON."""
    return isinstance(value, list)


def numbered_lines(path: Path | str) -> Iterator[tuple[int, bytes]]:
    r"""Yield the lines of a file, gzipped if its name ends in .gz, that are not blank, each with its number from 1.

    Only \n ends a line. A byte order mark at the beginning is left out.

    Args:
        path: the file; the string `-` is standard input.
    Raises:
        JsonLinesError: the file cannot be read, has a line of more than MAX_LINE_BYTES, or unpacks to too much.
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
    """Yield the lines of an open file, as `numbered_lines` does of a path.

    Args:
        file: its bytes, unpacked.
        path: what it is called in an error.
        bound: bytes that may come out of it.
    Raises:
        JsonLinesError: a line has more than MAX_LINE_BYTES, or there are more bytes than the bound.
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
    """Bytes that may come out of a file: any number of one that is not compressed."""
    if not str(path).endswith(".gz"):
        return math.inf
    return unpacked_bound(os.stat(path).st_size)


def unpacked_bound(size: int) -> int:
    """Bytes that may come out of so many packed ones: a small file must not fill the memory."""
    return max(FREE_BYTES, MAX_RATIO * size)


def parse_line(line: bytes, *, errors: Literal["strict", "replace"] = "strict") -> JSON:
    """Return the JSON value of a line.

    Args:
        line: its bytes.
        errors: "replace" puts U+FFFD in the place of bytes that are no UTF-8.
    Raises:
        ValueError: it is no JSON, nests deeper than MAX_NESTING, or is no UTF-8.
    """
    try:
        value: JSON = json.loads(line.decode(errors=errors))
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if line.count(b"[") + line.count(b"{") > MAX_NESTING and is_deep(value):
        raise ValueError(TOO_DEEP)
    return value


def is_deep(value: JSON) -> bool:
    """Whether lists and objects lie inside each other more than MAX_NESTING deep: what walks them must not run out."""
    level = [value]
    for _ in range(MAX_NESTING + 1):
        level = [
            part
            for held in level
            if isinstance(held, dict | list)
            for part in (held.values() if isinstance(held, dict) else held)
            if isinstance(part, dict | list)
        ]
        if not level:
            return False
    return True


def read_jsonl(path: Path | str, *, growing: bool = False) -> Iterator[tuple[int, dict[str, JSON]]]:
    """Yield (line number from 1, object) for every line of a file that is not blank.

    Args:
        path: the file, gzipped if its name ends in .gz; the string `-` is standard input.
        growing: leave out a last line without its newline, as of a file that is still written to.
    Raises:
        JsonLinesError: the file cannot be read, or a line is not a JSON object of text that UTF-8 can hold.
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
    """Return a JSON value on one line, for a record or a terminal: UTF-8 holds it, no character of it is hidden.

    The line does not end in a line break. Halves of surrogate pairs are replaced by U+FFFD; what a terminal would obey
    or hide stands as an escape of JSON, which any reader undoes.

    Example:
        >>> json_line({"answer": "2 €\\x9b"})
        '{"answer": "2 €\\\\u009b"}'
    """
    return json_safe(whole(json.dumps(value, ensure_ascii=False)))


def half_surrogate(row: Mapping[str, JSON]) -> str:
    """Say which half of a surrogate pair a row holds alone, so that it cannot be written as UTF-8; empty for none."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        return f"holds {half}, half of a surrogate pair, which is no character. Replace it."
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
