"""rich consoles that show untrusted text literally: no control sequences, no markup, no emoji codes in it."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import IO, Any, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from verifiers.terminal.streams import from_progress_bar, unguarded
from verifiers.text import visible


class SafeConsole(Console):
    """Console that escapes control characters in everything it shows, except its own colours and cursor control."""

    @property
    def file(self) -> IO[str]:
        """Stream that it writes to."""
        return unguarded(super().file)

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render_str(self, text: str, **how: Any) -> Text:
        """Escape control characters before rich drops some of them."""
        return super().render_str(visible(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Escape control characters in all segments except rich's own control segments."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def plain_console(**settings: Any) -> SafeConsole:
    """Return a console for lines of plain text: any length, no markup, no highlighting.

    Args:
        settings: arguments of `rich.console.Console` that override these.
    """
    plain: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False, "emoji": False}
    return SafeConsole(**(plain | settings))


class _Above:
    """Standard output or error during a live view: whole lines go to its console, which prints them above the view."""

    def __init__(self, screen: Console, stream: Any) -> None:
        self._screen, self._stream, self._rest = screen, stream, ""

    @property
    def rich_proxied_file(self) -> Any:
        """The original stream, under the name that rich looks for."""
        return self._stream

    def write(self, text: str) -> int:
        if not from_progress_bar():  # a library's progress bar would draw over the view
            *lines, self._rest = (self._rest + text).split("\n")
            if lines:
                self._screen.print(visible("\n".join(lines)), markup=False, highlight=False)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        pass

    def end(self) -> None:
        if self._rest:
            self.write("\n")

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self._stream, name)


@contextmanager
def lines_above(screen: Console) -> Generator[None]:
    """Let other code print whole lines above a live view on a console.

    rich's own redirection would pass on control sequences in what they print.
    """
    before = sys.stdout, sys.stderr
    guarded = _Above(screen, sys.stdout), _Above(screen, sys.stderr)
    sys.stdout, sys.stderr = cast("Any", guarded)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in guarded:
            stream.end()
