"""Parquet and Arrow files: rows as Python values that JSON can represent, read in pieces or from a memory map.

Nesting needs no limit here: pyarrow reads no schema of more than 100 levels.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tasks.base import TaskError
from tasks.inputs.entries import Entry
from tasks.inputs.unpacking import needs_data
from verifiers.jsonl import unpacked_bound

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PIECE = 256
"""Rows that are in memory at once."""
BUFFER = 1 << 20
"""Bytes of a column that are read at once, if a row group is larger."""


class Parquet:
    """The rows of a parquet file.

    The first access by index writes all rows to a temporary Arrow file, which is then memory-mapped.

    Raises:
        TaskError: pyarrow is not installed, or the file cannot be read, or unpacks to far more than its packed size.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._file = path

    def _open(self) -> pq.ParquetFile:
        """Open the file anew each time: a folder of shards may have more files than a process may keep open."""
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise TaskError(_needs_pyarrow(self.path)) from error
        try:
            file = parquet.ParquetFile(self._file, memory_map=False, pre_buffer=False, buffer_size=BUFFER)
            told, bound = file.metadata, unpacked_bound(self._file.stat().st_size)
            held = sum(told.row_group(at).total_byte_size for at in range(told.num_row_groups))
            _check_schema(file.schema_arrow, self.path)
        except (OSError, ValueError, RecursionError) as error:  # pyarrow's own errors are ValueErrors
            raise _unreadable(self.path, error) from error
        if max(held, told.num_rows * told.num_columns) > bound:
            raise TaskError(
                f"{self.path} must unpack to at most {bound >> 20} MiB, with at most one value per byte of that; it"
                f" has {held >> 20} MiB in {told.num_rows} rows. Split it if that is its real content."
            )
        return file

    def entries(self) -> Iterator[Entry]:
        with self._open() as file:
            yield from _numbered(lambda: file.iter_batches(PIECE), file.schema_arrow, self.path)

    def count(self) -> int:
        return self._rows_in_all

    @cached_property
    def _rows_in_all(self) -> int:
        with self._open() as file:
            return file.metadata.num_rows

    def at(self, place: int) -> Entry:
        return self._mapped.at(place)

    @cached_property
    def _mapped(self) -> Arrow:
        import pyarrow

        copy = tempfile.NamedTemporaryFile(prefix="reasoner-rows-", suffix=".arrow")  # gone when closed
        weakref.finalize(self, copy.close)
        try:
            with (
                self._open() as file,
                pyarrow.OSFile(copy.name, "wb") as sink,
                pyarrow.ipc.new_file(sink, file.schema_arrow) as to,
            ):
                for piece in file.iter_batches(PIECE):
                    to.write_batch(piece)
        except (OSError, ValueError) as error:
            raise _unreadable(self.path, error) from error
        return Arrow(Path(copy.name), named=self.path)


class Arrow:
    """The rows of a memory-mapped Arrow file (streamed, as `datasets` writes them, or with a footer, as Feather).

    Raises:
        TaskError: pyarrow is not installed, or the file cannot be read.
    """

    def __init__(self, path: Path, *, named: str | None = None) -> None:
        self.path = named or str(path)
        self._file = path

    @cached_property
    def _table(self) -> pa.Table:
        """The table, kept in memory-mapped form after the first access by index."""
        return self._mapped()

    def _mapped(self) -> pa.Table:
        try:
            import pyarrow
        except ImportError as error:
            raise TaskError(_needs_pyarrow(self.path)) from error
        try:
            file = pyarrow.memory_map(str(self._file))
            magic = file.read(6)
            file.seek(0)
            opened = pyarrow.ipc.open_file(file) if magic == b"ARROW1" else pyarrow.ipc.open_stream(file)
            table = opened.read_all()
            _check_schema(table.schema, self.path)
        except (OSError, ValueError, RecursionError) as error:
            raise _unreadable(self.path, error) from error
        if table.nbytes > unpacked_bound(self._file.stat().st_size):
            raise TaskError(f"{self.path} unpacks to {table.nbytes >> 20} MiB. Split it if that is its real content.")
        return table

    def entries(self) -> Iterator[Entry]:
        table = self._mapped()
        yield from _numbered(lambda: table.to_batches(max_chunksize=PIECE), table.schema, self.path)

    def count(self) -> int:
        return self._rows_in_all

    @cached_property
    def _rows_in_all(self) -> int:
        return self._mapped().num_rows

    def at(self, place: int) -> Entry:
        try:
            piece = self._table.slice(place, 1)
            return Entry(place + 1, _rows(piece, _has_odd_values(piece.schema))[0])
        except (OSError, ValueError) as error:
            raise _unreadable(self.path, error) from error


def _needs_pyarrow(path: str) -> str:
    return needs_data(f"{path}: parquet and Arrow files are read by pyarrow, which")


def _unreadable(path: str, error: Exception) -> TaskError:
    if isinstance(error, TaskError):
        return error
    return TaskError(
        f"{path} cannot be read: {str(error).rstrip('.')}. It may be truncated: download or write it again."
    )


def _numbered(pieces: Callable[[], Iterable[pa.Table]], schema: pa.Schema, path: str) -> Iterator[Entry]:
    """Yield the rows of a file's pieces, numbered from 1.

    Raises:
        TaskError: a piece cannot be read.
    """
    number, odd = 0, _has_odd_values(schema)
    try:
        for piece in pieces():
            for row in _rows(piece, odd):
                number += 1
                yield Entry(number, row)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _rows(piece: pa.Table, odd: bool) -> list[dict[str, object]]:
    piece.validate(full=True)  # damaged bytes would make pyarrow end the process
    rows = piece.to_pylist(maps_as_pydicts="lossy")
    return [cast("dict[str, object]", plain(row)) for row in rows] if odd else rows


def plain(value: object) -> object:
    """Convert a value to one that JSON can represent: dates and decimals to text, bytes to text or base64."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in cast("list[object]", value)]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _check_schema(schema: pa.Schema, path: str) -> None:
    names = list(schema.names)
    twice = next((name for name in names if names.count(name) > 1), None) if len({*names}) < len(names) else None
    if twice is not None:
        raise TaskError(f"{path} must have columns of different names; {twice!r} appears twice.")


def _has_odd_values(schema: pa.Schema) -> bool:
    """Return True if some column has values of a type that JSON lacks."""
    from pyarrow import types

    waiting = [field.type for field in schema]
    while waiting:
        kind = waiting.pop()
        if kind.num_fields:
            waiting += [kind.field(at).type for at in range(kind.num_fields)]
        elif not (
            types.is_string(kind)
            or types.is_large_string(kind)
            or types.is_integer(kind)
            or types.is_floating(kind)
            or types.is_boolean(kind)
            or types.is_null(kind)
        ):
            return True
    return False


__all__ = ["Arrow", "Parquet", "plain"]
