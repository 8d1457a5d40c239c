"""What a person sees while heavy packages are imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading_told(what: str) -> Iterator[None]:
    """Show "loading WHAT ..." on standard error, where that is a terminal, until the block ends."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(f"loading {what} ..."):
        yield
