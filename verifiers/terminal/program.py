"""Name of this program as it was started, so that commands in messages can be pasted as printed."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

NAMED = re.compile(r"`reasoner(?= [a-z-])")
"""Command quoted in a message, written as if `reasoner` were on the PATH."""


def program() -> list[str]:
    """Return the command that started this program: `reasoner` if that finds it, else its path."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py" and started.parent.name == "reasoner":
        return [sys.executable, "-m", "reasoner"]
    if started.name != "reasoner" or started.parent == Path():
        return ["reasoner"]
    known = shutil.which("reasoner")
    return ["reasoner"] if known and Path(known).absolute() == started.absolute() else [sys.argv[0]]


def as_started(message: str) -> str:
    """Return a message in which every quoted `reasoner` command begins as this program was started."""
    started = shlex.join(program())
    return message if started == "reasoner" else NAMED.sub(lambda _: f"`{started}", message)


__all__ = ["as_started", "program"]
