"""What a person sees while heavy packages are imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading_told(what: str) -> Iterator[None]:
    """Show "loading WHAT ..." on standard error, where that is a terminal, until the block ends."""
    from rich.control import Control
    from rich.segment import ControlType

    from verifiers.terminal.console import plain_console

    console = plain_console(stderr=True)
    if not console.is_terminal:
        yield
        return
    console.print(f"loading {what} ...", end="")
    try:
        yield
    finally:
        console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
