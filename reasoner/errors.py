"""The base of the trainer's own errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pydantic import ValidationError

FAILED, USAGE, INTERRUPTED = 1, 2, 130


class ReasonerError(Exception):
    """An error whose message says what to do; commands print it as one line.

    Subclasses inherit the matching standard error too.
    """

    exit_code: ClassVar[int] = FAILED
    """Exit status of a command that ends with it: 2 where the input has to change, 1 otherwise."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after a checkpoint was written."""


def faults(error: ValidationError) -> str:
    """Return the first faults that pydantic found in a record, on one line: the field and what is wrong with it."""
    return "; ".join(": ".join([*map(str, found["loc"]), found["msg"]]) for found in error.errors()[:3])
