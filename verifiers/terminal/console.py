"""Consoles of rich that show text of others as text: no control sequence, no markup, no emoji of theirs."""

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
    """Spells out control characters in all that it shows; the cursor and the colours are its own."""

    @property
    def file(self) -> IO[str]:
        """Where it writes."""
        return unguarded(super().file)

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render_str(self, text: str, **how: Any) -> Text:
        """Text with its control characters spelt out, before rich leaves some of them out."""
        return super().render_str(visible(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """All that is shown comes by here; only segments of its own control the terminal."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def plain_console(**settings: Any) -> SafeConsole:
    """Return a console for lines of plain text: any length, no markup, no highlighting.

    Args:
        settings: of `rich.console.Console`, in the place of these.
    """
    plain: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False, "emoji": False}
    return SafeConsole(**(plain | settings))


class _Above:
    """Standard output or error while a live view is drawn: whole lines go to its console, which puts them above."""

    def __init__(self, screen: Console, stream: Any) -> None:
        self._screen, self._stream, self._rest = screen, stream, ""

    @property
    def rich_proxied_file(self) -> Any:
        """For the console itself, by rich's name."""
        return self._stream

    def write(self, text: str) -> int:
        if not from_progress_bar():  # of a library, which would draw over the view
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
    """While a live view is drawn on a console, let others print whole lines above it.

    rich's own redirection would obey the sequences in what they print.
    """
    before = sys.stdout, sys.stderr
    ours = _Above(screen, sys.stdout), _Above(screen, sys.stderr)
    sys.stdout, sys.stderr = cast("Any", ours)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in ours:
            stream.end()
