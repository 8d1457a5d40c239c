"""The base of the trainer's own errors."""

from __future__ import annotations

from typing import ClassVar

FAILED, USAGE, INTERRUPTED = 1, 2, 130


class ReasonerError(Exception):
    """An error whose message says what to do; commands print it as one line.

    Subclasses inherit the matching standard error too.
    """

    exit_code: ClassVar[int] = FAILED
    """Exit status of a command that ends with it: 2 where the input has to change, 1 otherwise."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after a checkpoint was written."""
