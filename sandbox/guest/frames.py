"""Protocol between the two sides of the sandbox: one JSON header and any number of byte strings.

A frame is 8 bytes of header length (big-endian), the header, then the byte strings, whose lengths the header lists in
"sizes". Standard library only: this file runs on both sides.
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
    """The other side has closed the connection."""


def write_frame(fd, header, blobs=()):
    """Write one whole frame; large byte strings are not copied."""
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
    """Write every byte, also to a non-blocking pipe."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view[: 1 << 20]) :]
        except BlockingIOError:
            select.select([], [fd], [])


def read_frame(read: Callable[[int], bytes], most: int = MAX_BYTES) -> tuple[dict[str, Any], list[bytes]]:
    """Read the next frame; return its header and byte strings.

    Args:
        read: function that returns exactly as many bytes as requested, or raises Closed.
        most: limit on the bytes of all byte strings together.
    Raises:
        ValueError: it is not a frame, or too large.
    """
    length = int.from_bytes(read(8), "big")
    if length > MAX_HEADER:
        raise ValueError(f"a frame header of {length} bytes")
    header = json.loads(read(length))
    sizes = header["sizes"]
    if not all(isinstance(size, int) and size >= 0 for size in sizes) or sum(sizes) > most:
        raise ValueError(f"byte strings of {sizes} bytes, more than {most}")
    return header, [read(size) for size in sizes]


def exact_reader(fd):
    """Return a `read` function for `read_frame` on a blocking descriptor."""

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
