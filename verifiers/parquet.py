"""Rows of parquet files, read in pieces and within the bounds of other packed files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from verifiers.errors import FileError
from verifiers.jsonl import unpacked_bound

PIECE = 1000
"""Rows that are in memory at once."""


def read_parquet(path: Path | str) -> Iterator[dict[str, object]]:
    """Yield the rows of a parquet file, as Python's own values.

    Raises:
        FileError: pyarrow is not installed, or the file cannot be read, or unpacks to far more than it is packed in.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise FileError(f"{path}: parquet files need pyarrow: pip install pyarrow.") from error
    try:
        file = parquet.ParquetFile(path)
        told, bound = file.metadata, unpacked_bound(Path(path).stat().st_size)
        held = sum(told.row_group(at).total_byte_size for at in range(told.num_row_groups))
        if max(held, told.num_rows * told.num_columns) > bound:
            raise FileError(
                f"{path} must unpack to at most {bound >> 20} MiB, and to as many values as that has bytes; it holds"
                f" {held >> 20} MiB in {told.num_rows} rows. Split it, if it is what it should be."
            )
        for piece in file.iter_batches(PIECE):
            yield from piece.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path} cannot be read: {error}.") from error


__all__ = ["read_parquet"]
