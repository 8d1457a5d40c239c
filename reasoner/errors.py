"""Base class of the trainer's errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pydantic import ValidationError

FAILED, USAGE, INTERRUPTED = 1, 2, 130


class ReasonerError(Exception):
    """Base of errors whose message says what to do. Commands print it as one line.

    Subclasses also inherit from the matching standard exception.
    """

    exit_code: ClassVar[int] = FAILED
    """Exit status of a command that fails with this error: 2 if the input must be changed, 1 otherwise."""


class Interrupted(KeyboardInterrupt):
    """Raised after Ctrl-C or SIGTERM, once a checkpoint is written."""


def faults(error: ValidationError) -> str:
    """Format the first three errors that pydantic found in a record, on one line: field and problem."""
    return "; ".join(": ".join([*map(str, found["loc"]), found["msg"]]) for found in error.errors()[:3])
