"""The part of pyarrow that reads rows from parquet and Arrow files; it ships no types."""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import IO, Self

from pyarrow import ipc as ipc
from pyarrow import types as types

class DataType:
    num_fields: int
    def field(self, at: int) -> Field: ...

class Field:
    name: str
    type: DataType

class Schema:
    names: Sequence[str]
    def __iter__(self) -> Iterator[Field]: ...

class Table:
    schema: Schema
    num_rows: int
    nbytes: int
    def validate(self, *, full: bool) -> None: ...
    def to_pylist(self, *, maps_as_pydicts: str | None = None) -> list[dict[str, object]]: ...
    def to_batches(self, max_chunksize: int) -> Sequence[Table]: ...
    def slice(self, offset: int, length: int) -> Table: ...

class NativeFile:
    def read(self, size: int) -> bytes: ...
    def seek(self, place: int) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

class OSFile(NativeFile):
    def __init__(self, path: str, mode: str) -> None: ...

class PythonFile(NativeFile):
    def __init__(self, handle: IO[bytes], mode: str) -> None: ...

class CompressedInputStream(NativeFile):
    def __init__(self, stream: NativeFile, compression: str) -> None: ...

def memory_map(path: str) -> NativeFile: ...
