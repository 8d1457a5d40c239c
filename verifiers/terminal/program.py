"""The command line as it was started: commands that a message names can be pasted as they are printed."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

NAMED = re.compile(r"`reasoner(?= [a-z-])")
"""A command in a message, which is written for `reasoner` on the path."""


def program() -> list[str]:
    """This program as it was started: `reasoner` where that leads to it, else its path, as `.venv/bin/reasoner`."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py" and started.parent.name == "reasoner":
        return [sys.executable, "-m", "reasoner"]
    if started.name != "reasoner" or started.parent == Path():
        return ["reasoner"]
    known = shutil.which("reasoner")
    return ["reasoner"] if known and Path(known).absolute() == started.absolute() else [sys.argv[0]]


def as_started(message: str) -> str:
    """A message, with each command of `reasoner` that it quotes written as the program was started."""
    started = shlex.join(program())
    return message if started == "reasoner" else NAMED.sub(lambda _: f"`{started}", message)


__all__ = ["as_started", "program"]
