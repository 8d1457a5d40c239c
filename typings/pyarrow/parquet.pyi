"""The part of pyarrow that reads rows from parquet files; it ships no types."""

from collections.abc import Iterator
from pathlib import Path

class Table:
    def to_pylist(self) -> list[dict[str, object]]: ...

class RowGroup:
    total_byte_size: int

class Metadata:
    num_rows: int
    num_columns: int
    num_row_groups: int
    def row_group(self, at: int) -> RowGroup: ...

class ParquetFile:
    metadata: Metadata
    def __init__(self, source: str | Path) -> None: ...
    def iter_batches(self, batch_size: int) -> Iterator[Table]: ...
