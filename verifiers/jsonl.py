"""Reading files of JSON lines: one object a line, with its line number, or an error that names the line."""

from __future__ import annotations

import codecs
import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, TypeGuard

from verifiers.errors import FileError
from verifiers.text import json_safe, whole
from verifiers.verdict import JSON

GZIP_MARK = b"\x1f\x8b"
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""The escape of a surrogate, which is a character only beside its other half."""


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
        JsonLinesError: the file cannot be read.
    """
    try:
        opener = gzip.open if str(path).endswith(".gz") else open
        with nullcontext(sys.stdin.buffer) if path == "-" else opener(path, "rb") as file:
            for number, line in enumerate(file, 1):
                line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        raise JsonLinesError(path, 0, f"cannot be read: {error}.") from error


def parse_line(line: bytes, *, errors: Literal["strict", "replace"] = "strict") -> JSON:
    """Return the JSON value of a line.

    Args:
        line: its bytes.
        errors: "replace" puts U+FFFD in the place of bytes that are no UTF-8.
    Raises:
        ValueError: it is no JSON, or no UTF-8.
    """
    try:
        value: JSON = json.loads(line.decode(errors=errors))
    except RecursionError as error:
        raise ValueError(str(error)) from error
    return value


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
    "numbered_lines",
    "parse_line",
    "read_jsonl",
]
