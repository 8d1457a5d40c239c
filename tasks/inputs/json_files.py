"""JSON files: one object per line, a list of objects, several objects in sequence, or a list inside an object."""

from __future__ import annotations

import codecs
import io
import json
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain, count, islice
from pathlib import Path
from typing import IO, Literal, cast

from tasks.base import TaskError
from tasks.inputs.entries import Entry, Text
from tasks.inputs.names import kind_of, split_of
from tasks.inputs.unpacking import is_packed, unpacked
from verifiers import JSON
from verifiers.jsonl import (
    MAX_LINE_BYTES,
    SURROGATE,
    TOO_DEEP,
    JsonLinesError,
    half_surrogate,
    is_deep,
    is_list,
    is_object,
    lines_of,
    parse_line,
)

ROWS_KEYS = ("data", "rows", "examples", "instances", "items", "problems", "questions", "records")
"""Keys under which a file with a single object has its rows."""
NOT_SPACE = re.compile(r"[^ \t\r\n]")
PIECE = 1 << 20
"""Characters read at once."""
Errors = Literal["strict", "replace"]


def json_entries(path: Path, *, split: str, errors: Errors = "strict") -> Iterator[Entry]:
    """Yield the rows of a JSON file, whatever layout its name suggests.

    Args:
        path: the file, compressed or not.
        split: whose rows to take if the file is one object with several splits.
        errors: "replace" turns bytes that are not UTF-8 into U+FFFD, and accepts lone halves of surrogate pairs.
    Raises:
        TaskError: it cannot be read beyond some place.
    """
    try:
        with unpacked(path) as file:
            match file.peek(4096).removeprefix(codecs.BOM_UTF8).lstrip()[:1]:
                case b"[":
                    for number, value in _values(b"", file, path, errors, listed=True):
                        yield _deep_entry(number, value, errors)
                case b"{":
                    yield from _objects(file, path, split, errors)
                case _:
                    yield from _lines(lines_of(file, path), errors)
    except JsonLinesError as error:
        raise TaskError(str(error)) from error


class JsonFile(Text):
    """The rows of a JSON file. With one row per line, lines are counted and located without parsing them."""

    def __init__(self, path: Path, *, split: str, errors: Errors) -> None:
        super().__init__(str(path), partial(json_entries, path, split=split, errors=errors))
        self._file = path
        self._errors: Errors = errors

    @cached_property
    def _is_lines(self) -> bool:
        first = next(self.entries(), None)
        return first is not None and first.unit == "line"

    def count(self) -> int:
        return len(self._places[0]) if self._is_lines else super().count()

    def at(self, place: int) -> Entry:
        if not self._is_lines or is_packed(self._file):
            return super().at(place)
        with self._file.open("rb") as file:
            file.seek(self._places[0][place])
            line = file.readline(MAX_LINE_BYTES).removeprefix(codecs.BOM_UTF8)
        return next(_lines([(self._places[1][place], line)], self._errors))

    @cached_property
    def _places(self) -> tuple[array[int], array[int]]:
        """Return the byte offset and the number of each line that is not blank: sixteen bytes per row in memory."""
        begins, numbers, begin = array("Q"), array("Q"), 0
        with unpacked(self._file) as file:
            for number, line in enumerate(iter(partial(file.readline, MAX_LINE_BYTES + 1), b""), 1):
                if line.removeprefix(codecs.BOM_UTF8).strip():
                    begins.append(begin)
                    numbers.append(number)
                begin += len(line)
        return begins, numbers


def _objects(file: io.BufferedReader, path: Path, split: str, errors: Errors) -> Iterator[Entry]:
    """Yield the rows of a file that begins with an object. The first line decides the layout.

    A whole object there is the first of many lines, or the only object. Otherwise objects extend over several lines.
    """
    lines = lines_of(file, path)
    number, first = next(lines)
    try:
        value: JSON = parse_line(first, errors=errors)
    except ValueError as error:
        if _ends_early(error, first):
            yield from _over_lines(first, file, path, split, errors)
        else:
            yield from _lines(chain([(number, first)], lines), errors)
        return
    second = next(lines, None)
    if second is None and rows_in(value, path, split) != [value]:
        yield from _unwrapped(value, path, split, errors)
    else:
        yield from _lines(chain([(number, first)], [second] if second else [], lines), errors)


def _ends_early(error: ValueError, line: bytes) -> bool:
    """Return True if a line is JSON that may continue on the next line: the fault is at its end."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.pos >= len(error.doc.rstrip()) and line.rstrip()[-1:] in (b"{", b"[", b",", b":", b"}", b"]", b'"')


def _lines(lines: Iterable[tuple[int, bytes]], errors: Errors) -> Iterator[Entry]:
    for number, line in lines:
        try:
            value = parse_line(line, errors=errors)
        except ValueError as error:
            yield Entry(number, None, f"must be JSON in UTF-8: {error}.{_hint(number, line)}", "line")
            continue
        yield _entry(number, value, errors, checked=SURROGATE.search(line) is None)._replace(unit="line")


def _hint(number: int, line: bytes) -> str:
    if number == 1 and line.count(b",") + line.count(b"\t") > 0 and line.strip()[:1] not in (b"{", b"["):
        return " It looks like CSV: name it .csv or .tsv."
    return ""


def _entry(number: int, value: JSON, errors: Errors, *, checked: bool = False) -> Entry:
    if not is_object(value):
        return Entry(number, None, f"must be a JSON object; got {type(value).__name__}.")
    if errors == "strict" and not checked and (half := half_surrogate(value)):
        return Entry(number, None, half)
    return Entry(number, value)


def _deep_entry(number: int, value: JSON, errors: Errors) -> Entry:
    return Entry(number, None, f"{TOO_DEEP}.") if is_deep(value) else _entry(number, value, errors)


def _over_lines(first: bytes, file: IO[bytes], path: Path, split: str, errors: Errors) -> Iterator[Entry]:
    """Yield objects in sequence, each over several lines. A single object may contain the rows."""
    values = _values(first, file, path, errors, listed=False)
    try:
        head = list(islice(values, 2))
    except TaskError:
        if kind_of(path) not in (".jsonl", ".ndjson"):
            raise
        with unpacked(path) as again:  # one row per line after all, with a damaged first line
            yield from _lines(lines_of(again, path), errors)
        return
    if len(head) == 1:
        yield from _unwrapped(head[0][1], path, split, errors)
        return
    for number, value in chain(head, values):
        yield _deep_entry(number, value, errors)


def _values(first: bytes, file: IO[bytes], path: Path, errors: Errors, *, listed: bool) -> Iterator[tuple[int, JSON]]:
    """Yield (number from 1, value) of the elements of a list, or of values in sequence, with one in memory at a time.

    Raises:
        TaskError: the rest is not JSON, or a value is longer than a line may be.
    """
    text = _Characters(first, file, path, errors)
    if listed and text.next_char() == "[":
        text.at += 1
    for number in count(1):
        char = text.next_char()
        if listed and char == "," and number > 1:
            text.at += 1
            char = text.next_char()
        elif listed and number > 1 and char not in ("]", ""):
            raise TaskError(f"{path} must be JSON: there is no comma after entry {number - 1}.")
        if listed and char == "]":
            text.at += 1
            if text.next_char():
                raise TaskError(f"{path} must be one JSON list, or one object a line; more follows after its list.")
            return
        if char == "":
            if listed:
                raise TaskError(f"{path} must be JSON: its list does not end. It may be truncated.")
            return
        yield number, text.value(number)


class _Characters:
    """The text of a file, read piece by piece."""

    def __init__(self, first: bytes, file: IO[bytes], path: Path, errors: Errors) -> None:
        self._file, self._path = file, path
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors)
        self._scan = json.JSONDecoder().raw_decode
        self._ended = False
        self.text, self.at = "", 0
        self._more(first)

    def _more(self, piece: bytes) -> None:
        try:
            self.text = self.text[self.at :] + self._decoder.decode(piece, final=self._ended)
        except UnicodeDecodeError as error:
            raise TaskError(f"{self._path} must be JSON in UTF-8: {error}.") from error
        self.at = 0

    def _read(self, size: int) -> None:
        piece = self._file.read(size)
        self._ended = not piece
        self._more(piece)

    def next_char(self) -> str:
        """Return the next character that is not white space, "" at the end; `at` becomes its position."""
        while True:
            found = NOT_SPACE.search(self.text, self.at)
            if found:
                self.at = found.start()
                return found.group()
            self.at = len(self.text)
            if self._ended:
                return ""
            self._read(PIECE)

    def value(self, number: int) -> JSON:
        """Return the value that begins at `at`, and move `at` behind it.

        Raises:
            TaskError: there is none.
        """
        while True:
            try:
                value, end = self._scan(self.text, self.at)
                if end < len(self.text) or self._ended:
                    self.at = end
                    return cast("JSON", value)
                fault = ""
            except RecursionError:
                fault, self._ended = TOO_DEEP, True
            except ValueError as error:
                fault = str(error)
            if self._ended:
                raise TaskError(f"{self._path} must be JSON: entry {number} is not ({fault}).")
            if len(self.text) - self.at > MAX_LINE_BYTES:
                most = MAX_LINE_BYTES >> 20
                raise TaskError(f"{self._path} entry {number} must be JSON of at most {most} MiB ({fault}).")
            self._read(max(PIECE, len(self.text) - self.at))


def _unwrapped(value: JSON, path: Path, split: str, errors: Errors) -> Iterator[Entry]:
    """Yield the rows that one object contains, or the object itself."""
    for number, row in enumerate(rows_in(value, path, split), 1):
        yield _deep_entry(number, row, errors)


def rows_in(value: JSON, path: Path | str, split: str) -> Sequence[JSON]:
    """Return the rows of a file that is one JSON value.

    These are a list under one of ROWS_KEYS, or one list per split; the columns of a table, as lists; or one row.

    Raises:
        TaskError: it has several lists of rows, or no such split.
    """
    if not is_object(value):
        return [value]
    lists = {key: one for key, one in value.items() if is_list(one) and _are_rows(one)}
    by_split = {key: name for key in lists if (name := split_of(key)) is not None}
    if lists and len(by_split) == len(lists):
        chosen = next((key for key in lists if key == split or by_split[key] == split), None)
        if chosen is None:
            raise TaskError(f"{path} has no split {split!r}; it has {', '.join(lists)}.")
        return lists[chosen]
    named = [key for key in lists if key.lower() in ROWS_KEYS]
    if len(named) == 1 or len(lists) == len(value) == 1:
        return [_without_frame(row) for row in lists[(named or [*lists])[0]]]
    if len(named) > 1:
        raise TaskError(f"{path} has several lists of rows: {', '.join(named)}. Write one of them to a file.")
    return _table(value) or [value]


def _are_rows(listed: Sequence[JSON]) -> bool:
    """Return True if a list has rows: objects that are not chat messages."""
    return bool(listed) and all(is_object(one) and not {"role", "from"} & one.keys() for one in listed)


def _without_frame(row: JSON) -> JSON:
    """Return the inner row of {"row_idx", "row"}, which the hub's viewer returns; any other row unchanged."""
    return row["row"] if is_object(row) and {"row", "row_idx"} <= row.keys() else row


def _table(value: Mapping[str, JSON]) -> list[JSON]:
    """Return the rows of {"columns": [...], "data": [[...]]}, or of one list of values per column; [] if it is
    neither.
    """
    names, data = value.get("columns"), value.get("data")
    if is_list(names) and is_list(data) and all(is_list(row) and len(row) == len(names) for row in data):
        return [dict(zip(map(str, names), row, strict=True)) for row in data if is_list(row)]
    columns = [one for one in value.values() if is_list(one) and not any(map(is_chat_message, one))]
    if len(columns) == len(value) >= 2 and columns[0] and len({len(column) for column in columns}) == 1:
        return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    return []


def is_chat_message(value: JSON) -> bool:
    """Return True if a value is a chat message."""
    return is_object(value) and bool({"role", "from"} & value.keys())


__all__ = ["JsonFile", "json_entries", "rows_in"]
