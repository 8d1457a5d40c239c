"""Tables as text: one row per line, column names in the first, cells separated by a comma, tab, semicolon or bar."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from tasks.base import TaskError
from tasks.inputs.entries import Entry
from tasks.inputs.names import kind_of
from tasks.inputs.unpacking import unpacked
from verifiers.jsonl import MAX_LINE_BYTES, lines_of

DELIMITERS = (",", "\t", ";", "|")


def csv_entries(path: Path) -> Iterator[Entry]:
    """Yield the rows of a CSV or TSV file, each cell as text; an empty cell is None.

    The delimiter is that of the file's name; if the first line does not contain it, the most frequent one there.

    Raises:
        TaskError: it cannot be read beyond some row, or its first line has no column names.
    """
    with unpacked(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        rows, previous = _reader(file, text, path), csv.field_size_limit(MAX_LINE_BYTES)
        number = 1
        try:
            names = _names(next(rows, None) or [], path)
            for number in count(2):
                csv.field_size_limit(MAX_LINE_BYTES)  # global in csv: others may change it between rows
                cells = next(rows, None)
                if cells is None:
                    return
                if cells and cells != [""]:
                    yield _entry(number, names, cells)
        except csv.Error as error:
            raise TaskError(f"{path} row {number} must be CSV: {error}. A quote may be open.") from error
        except UnicodeDecodeError as error:
            raise TaskError(
                f'{path} must be UTF-8; {_first_fault(path)}. Save it as UTF-8 ("CSV UTF-8" in a spreadsheet).'
            ) from error
        finally:
            csv.field_size_limit(previous)


def _first_fault(path: Path) -> str:
    """Describe the first line of a file that is not UTF-8."""
    with unpacked(path) as file:
        for number, line in lines_of(file, path):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"line {number} is not (byte 0x{line[error.start]:02x}: {error.reason})"
    return "it is truncated within a character"


def _reader(file: io.BufferedReader, text: io.TextIOWrapper, path: Path) -> Iterator[list[str]]:
    head = file.peek(1 << 16).split(b"\n")[0].decode(errors="replace")
    own = "\t" if kind_of(path) == ".tsv" else ","
    found = own if own in head else max(DELIMITERS, key=head.count)
    return csv.reader(text, delimiter=found if found in head else own, strict=True)


def _names(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = next((name for name in names if names.count(name) > 1), None)
    if not any(names) or twice is not None:
        fault = "it is empty" if not any(names) else f"{twice!r} appears twice"
        raise TaskError(f"the first line of {path} must name its columns, each once; {fault}.")
    return names


def _entry(number: int, names: list[str], cells: list[str]) -> Entry:
    if len(cells) != len(names):
        return Entry(number, None, f"must have {len(names)} cells ({', '.join(names)[:80]}); it has {len(cells)}.")
    return Entry(number, {name: cell or None for name, cell in zip(names, cells, strict=True)})


__all__ = ["csv_entries"]
