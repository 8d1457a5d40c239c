"""Imports of heavy packages, with a message for the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading_told(what: str) -> Iterator[None]:
    """Show "loading WHAT ..." in a terminal while the block imports heavy packages; removed at its end."""
    from rich.control import Control
    from rich.segment import ControlType

    from reasoner.engine.environment import imported_for_good
    from verifiers.terminal.console import plain_console

    console = plain_console(stderr=True)
    with imported_for_good():
        if not console.is_terminal:
            yield
            return
        console.print(f"loading {what} ...", end="")
        try:
            yield
        finally:
            console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
