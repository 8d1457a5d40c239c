from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pyarrow import Schema, Table

class RowGroup:
    total_byte_size: int

class Metadata:
    num_rows: int
    num_columns: int
    num_row_groups: int
    def row_group(self, at: int) -> RowGroup: ...

class ParquetFile:
    metadata: Metadata
    schema_arrow: Schema
    def __init__(self, source: str | Path, *, memory_map: bool, pre_buffer: bool, buffer_size: int) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: object, error: object, trace: object) -> None: ...
    def iter_batches(self, batch_size: int) -> Iterator[Table]: ...
