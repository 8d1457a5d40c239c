"""Tables as text: one row a line, columns named by the first, cells parted by a comma, a tab or a semicolon."""

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
    """The rows of a file of CSV or TSV, each cell as text; an empty cell is null.

    The delimiter is the one that the name says, or the one that stands in the first line where that one does not.

    Raises:
        TaskError: it cannot be read on from some place, or its first line names no columns.
    """
    with unpacked(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        rows, previous = _reader(file, text, path), csv.field_size_limit(MAX_LINE_BYTES)
        number = 1
        try:
            names = _names(next(rows, None) or [], path)
            for number in count(2):
                csv.field_size_limit(MAX_LINE_BYTES)  # which is the module's, and may be set by others between rows
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
    """Which line of a file that is no UTF-8 is none."""
    with unpacked(path) as file:
        for number, line in lines_of(file, path):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"line {number} is not (byte 0x{line[error.start]:02x}: {error.reason})"
    return "it is cut off within a character"


def _reader(file: io.BufferedReader, text: io.TextIOWrapper, path: Path) -> Iterator[list[str]]:
    head = file.peek(1 << 16).split(b"\n")[0].decode(errors="replace")
    own = "\t" if kind_of(path) == ".tsv" else ","
    found = own if own in head else max(DELIMITERS, key=head.count)
    return csv.reader(text, delimiter=found if found in head else own, strict=True)


def _names(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = next((name for name in names if names.count(name) > 1), None)
    if not any(names) or twice is not None:
        fault = "it is empty" if not any(names) else f"{twice!r} stands twice"
        raise TaskError(f"the first line of {path} must name its columns, each once; {fault}.")
    return names


def _entry(number: int, names: list[str], cells: list[str]) -> Entry:
    if len(cells) != len(names):
        return Entry(number, None, f"must have {len(names)} cells ({', '.join(names)[:80]}); it has {len(cells)}.")
    return Entry(number, {name: cell or None for name, cell in zip(names, cells, strict=True)})


__all__ = ["csv_entries"]
