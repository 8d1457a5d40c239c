"""The same sitting in a terminal: one key per pair."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from reasoner.label.sitting import Side, Sitting
from verifiers.terminal.console import plain_console
from verifiers.text import visible

KEYS: dict[str, Side] = {"1": "left", "2": "right", "t": "tie", "s": "skip"}


def label_in_terminal(
    sitting: Sitting, *, read: Callable[[], str] | None = None, console: Console | None = None
) -> None:
    """Show pair after pair until all are labelled or the person quits."""
    screen, key = console or plain_console(soft_wrap=False), read or read_key
    while (shown := sitting.shown()) is not None:
        progress = sitting.progress()
        width = max(20, screen.width // 2 - 2)
        screen.print(Panel(Text(visible(shown.prompt)), title=f"{progress.done} of {progress.total}"))
        sides = [
            Panel(Text(visible(text)), title=title, width=width)
            for text, title in ((shown.left, "1"), (shown.right, "2"))
        ]
        screen.print(Columns(sides))
        screen.print(Text("1 left is better   2 right is better   t tie   s skip   u undo   q quit"))
        started = time.monotonic()
        pressed = key()
        while pressed not in (*KEYS, "u", "q"):
            pressed = key()
        if pressed == "q":
            return
        if pressed == "u":
            sitting.undo()
        else:
            sitting.give(shown.id, KEYS[pressed], repeat=shown.repeat, seconds=time.monotonic() - started)


def read_key() -> str:
    """Read a key without Enter in a terminal; from other input the first letter of a line, and "q" at its end."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.strip()[:1].lower() if line else "q"
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        return sys.stdin.read(1).lower()
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
