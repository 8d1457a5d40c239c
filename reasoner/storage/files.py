"""Writing files whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from reasoner.errors import USAGE, ReasonerError


class RunError(ReasonerError, RuntimeError):
    """A run folder cannot be used; the message says what to do."""

    exit_code = USAGE


def write_atomic(path: Path, content: bytes) -> None:
    """Write aside, force to disk, rename."""
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write what the user asked for where they said.

    Raises:
        RunError: it cannot be written there.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}. Give --output a file in a folder.") from error
