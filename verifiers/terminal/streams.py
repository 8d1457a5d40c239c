"""Standard output and error, guarded: whatever is printed, by whom it may be, a terminal only shows it."""

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
"""How a progress bar of tqdm begins what it writes: back to the start of its line; or all of it, to another line."""


class GuardedStream:
    """A text stream that spells out what a terminal would obey.

    It has no `buffer`, so that no bytes go around it (`write_bytes` takes them). A console of ours separates its own
    sequences from what it shows, and writes both to `raw`.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        """Write text; returns its length."""
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
    """Return True where tqdm called the caller: the one library here that moves the cursor without a console."""
    caller = sys._getframe(1).f_back  # pyright: ignore[reportPrivateUsage]
    return caller is not None and str(caller.f_globals.get("__name__")).startswith("tqdm.")


def guard_streams() -> None:
    """Guard standard output and error of this process for good, tracebacks and warnings included; once is enough."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, GuardedStream):
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # no text is refused where the terminal is not UTF-8
        setattr(sys, name, GuardedStream(stream))
    os.environ["PYTHON_COLORS"] = "0"  # from Python 3.13 on a traceback is coloured, which would be spelled out too


def unguarded(stream: SupportsWrite[str]) -> Any:
    """Return the stream behind a guarded one; another one as it is."""
    return stream.raw if isinstance(stream, GuardedStream) else stream


def write_bytes(stream: TextIO, content: bytes) -> None:
    """Write bytes as they are to a pipe or a file, and made visible to a terminal."""
    raw: TextIO = unguarded(stream)
    raw.flush()
    if raw.isatty():
        raw.write(visible(content.decode(errors="backslashreplace")))
    else:
        raw.buffer.write(content)
    raw.flush()
