"""Guarded standard output and error: whatever is printed, a terminal only displays it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from verifiers.text import visible

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

CURSOR = re.compile(r"\r|(?:\n|\x1b\[A)+\Z")
"""Cursor movement of a tqdm bar at the start of a write: to the start of its line, or to another line."""


class GuardedStream:
    """Text stream that escapes characters which a terminal would interpret.

    It has no `buffer`, so that no bytes bypass it (use `write_bytes`). A `SafeConsole` separates its own control
    sequences from the text it shows, and writes both to `raw`.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        """Write text; return its length."""
        lead = CURSOR.match(text)
        moved = lead.group() if lead and from_progress_bar() else ""
        self.raw.write(moved + visible(text[len(moved) :]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name in ("buffer", "raw"):
            raise AttributeError(name)
        return getattr(self.raw, name)


def from_progress_bar() -> bool:
    """Return True if tqdm called the caller: the only library used here that moves the cursor without a console."""
    caller = sys._getframe(1).f_back  # pyright: ignore[reportPrivateUsage]
    return caller is not None and str(caller.f_globals.get("__name__")).startswith("tqdm.")


def guard_streams() -> None:
    """Guard this process's standard output and error, including tracebacks and warnings; a second call does nothing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, GuardedStream):
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # print any text even if the terminal is not UTF-8
        setattr(sys, name, GuardedStream(stream))
    os.environ["PYTHON_COLORS"] = "0"  # since Python 3.13 tracebacks are coloured; the escapes would be shown


def unguarded(stream: SupportsWrite[str]) -> Any:
    """Return the stream behind a guarded one; any other stream unchanged."""
    return stream.raw if isinstance(stream, GuardedStream) else stream


def write_bytes(stream: TextIO, content: bytes) -> None:
    """Write bytes unchanged to a pipe or a file, and with control characters escaped to a terminal."""
    raw: TextIO = unguarded(stream)
    raw.flush()
    if raw.isatty():
        raw.write(visible(content.decode(errors="backslashreplace")))
    else:
        raw.buffer.write(content)
    raw.flush()
