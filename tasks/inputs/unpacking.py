"""Bytes of a file, decompressed if it is compressed, with a limit on the expansion."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from tasks.base import TaskError
from verifiers.jsonl import TOO_MUCH, unpacked_bound

ENDINGS = (".gz", ".bz2", ".xz", ".zst")
MAGIC: Mapping[bytes, str] = {
    b"\x1f\x8b": ".gz",
    b"BZh": ".bz2",
    b"\xfd7zXZ\x00": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
}
"""First bytes -> the ending of that compression."""
REFUSED: Mapping[bytes, str] = {
    b"PK\x03\x04": "is a ZIP archive (.xlsx files are too). Unpack it, or save the sheet as CSV",
    b"\x80\x04": "is a Python pickle, which may run code when it is read. Write it as JSON lines",
    b"\x80\x02": "is a Python pickle, which may run code when it is read. Write it as JSON lines",
    b"\xff\xfe": "is UTF-16. Save it as UTF-8",
    b"\xfe\xff": "is UTF-16. Save it as UTF-8",
    b"\x89HDF": "is HDF5. Write it as JSON lines or parquet",
    b"SQLite format 3": "is an SQLite database. Write its rows as JSON lines or CSV",
    b"version https://git-lfs": "is a pointer of Git LFS and not the file itself. Fetch it: git lfs pull",
}
"""First bytes -> the reason why a file that begins with them is refused."""
UNPACK_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)


class _Bounded(io.RawIOBase):
    """A stream limited to the number of bytes that a file of this size may unpack to."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self._left = unpacked_bound(path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview | bytearray, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        found = self._file.read(len(buffer))
        self._left -= len(found)
        if self._left < 0:
            raise TaskError(f"{self._path} unpacks to {TOO_MUCH}")
        buffer[: len(found)] = found
        return len(found)


@contextmanager
def unpacked(path: Path) -> Generator[io.BufferedReader]:
    """Open a file and yield its bytes, decompressed as its first bytes require, whatever its name.

    Raises:
        TaskError: it cannot be read, expands far beyond its packed size, or files of its kind are not read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(32)
            file.seek(0)
            kind = next((ending for magic, ending in MAGIC.items() if head.startswith(magic)), None)
            named = path.suffix if path.suffix in ENDINGS else None
            if kind is None and named and head:
                raise TaskError(f"{path} is named {named} but is not compressed so. Remove the ending, or compress it.")
            if kind is None:
                _refuse(path, head)
                yield file
                return
            with OPENERS[kind](file) as inner, io.BufferedReader(_Bounded(inner, path), 1 << 20) as packed:
                _refuse(path, packed.peek(32)[:32])
                yield cast("io.BufferedReader", packed)
    except UNPACK_ERRORS as error:
        raise TaskError(f"{path} cannot be read: {error}. Write it again, or name another file.") from error


def is_packed(path: Path) -> bool:
    """Return True if a file's first bytes show that it is compressed."""
    with path.open("rb") as file:
        head = file.read(8)
    return any(head.startswith(magic) for magic in MAGIC)


def _refuse(path: Path, head: bytes) -> None:
    for magic, words in REFUSED.items():
        if head.startswith(magic):
            raise TaskError(f"{path} {words}.")


def _zstd(file: IO[bytes]) -> IO[bytes]:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise TaskError(needs_data("a file compressed by zstd")) from error
    return cast("IO[bytes]", pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"))


def needs_data(what: str) -> str:
    """Return the error message for a file that needs pyarrow or datasets, with how to install them."""
    return f"{what} needs the extra `data`: pip install 'reasoner-rl[data]' (pyarrow and datasets)."


def _gzip(file: IO[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", gzip.GzipFile(fileobj=file))


def _bz2(file: IO[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", bz2.BZ2File(file))


def _xz(file: IO[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", lzma.LZMAFile(file))


OPENERS: Mapping[str, Callable[[IO[bytes]], IO[bytes]]] = {".gz": _gzip, ".bz2": _bz2, ".xz": _xz, ".zst": _zstd}

__all__ = ["ENDINGS", "is_packed", "needs_data", "unpacked"]
