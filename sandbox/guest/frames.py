"""What the two sides of the wall say to each other: one JSON header and any number of byte strings.

A frame is 8 bytes of length (big-endian) of the header, the header, then the byte strings, whose lengths the header has
in "sizes". Standard library only: this file runs on both sides.
"""

# pyright: basic
import json
import os
import select
from collections.abc import Callable
from typing import Any

MAX_HEADER = 1 << 20
MAX_BYTES = 1 << 30
SMALL = 1 << 16


class Closed(EOFError):
    """The other side is gone."""


def write_frame(fd, header, blobs=()):
    """Write one frame, all of it; a large byte string as it lies, without a copy."""
    head = json.dumps({**header, "sizes": [len(blob) for blob in blobs]}).encode()
    together = [len(head).to_bytes(8, "big"), head]
    for blob in blobs:
        if len(blob) <= SMALL:
            together.append(blob)
            continue
        write_all(fd, b"".join(together))
        write_all(fd, blob)
        together = []
    write_all(fd, b"".join(together))


def write_all(fd, data):
    """Write every byte, also to a pipe that does not block."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view[: 1 << 20]) :]
        except BlockingIOError:
            select.select([], [fd], [])


def read_frame(read: Callable[[int], bytes], most: int = MAX_BYTES) -> tuple[dict[str, Any], list[bytes]]:
    """(header, blobs) of the next frame.

    Args:
        read: gives exactly as many bytes as it is asked for, or raises Closed.
        most: bytes of the byte strings together.
    Raises:
        ValueError: not a frame.
    """
    length = int.from_bytes(read(8), "big")
    if length > MAX_HEADER:
        raise ValueError(f"a frame header of {length} bytes")
    header = json.loads(read(length))
    sizes = header["sizes"]
    if not all(isinstance(size, int) and size >= 0 for size in sizes) or sum(sizes) > most:
        raise ValueError(f"byte strings of {sizes} bytes, where {most} are the most")
    return header, [read(size) for size in sizes]


def exact_reader(fd):
    """A `read` for `read_frame` on a descriptor that blocks."""

    def read(count):
        parts = []
        while count:
            part = os.read(fd, min(count, 1 << 20))
            if not part:
                raise Closed("the other side closed the pipe")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    return read
