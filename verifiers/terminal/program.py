"""Name of this program as it was started, so that commands in messages can be pasted as printed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

NAMED = re.compile(r"`reasoner(?= [a-z-])")
"""Command quoted in a message, written as if `reasoner` were on the PATH."""
STARTED_VARIABLE = "REASONER_STARTED_AS"
"""Environment variable of a process that is a part of another command: that command's words, as JSON."""


def started_as() -> list[str]:
    """Return the words of the command that the user typed, as in sys.argv."""
    typed = os.environ.get(STARTED_VARIABLE)
    return sys.argv if typed is None else [str(word) for word in json.loads(typed)]


def program() -> list[str]:
    """Return the command that started this program: `reasoner` if that finds it, else its path."""
    first = started_as()[0]
    started = Path(first)
    if started.name == "__main__.py" and started.parent.name == "reasoner":
        return [sys.executable, "-m", "reasoner"]
    if started.name != "reasoner" or started.parent == Path():
        return ["reasoner"]
    known = shutil.which("reasoner")
    return ["reasoner"] if known and Path(known).absolute() == started.absolute() else [first]


def as_started(message: str) -> str:
    """Return a message in which every quoted `reasoner` command begins as this program was started."""
    started = shlex.join(program())
    return message if started == "reasoner" else NAMED.sub(lambda _: f"`{started}", message)


__all__ = ["STARTED_VARIABLE", "as_started", "program", "started_as"]
