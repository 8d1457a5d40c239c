"""Faults of verifiers, none of which is ever a wrong answer."""

from __future__ import annotations

from typing import ClassVar


class VerifierError(RuntimeError):
    """Something about grading, not about the completion, went wrong."""

    exit_code: ClassVar[int] = 1
    """Exit status of a command that ends with it: 2 where the input has to change, 1 otherwise."""
    of_batch: ClassVar[bool] = False
    """True: no row of a batch is to blame, and grading them one by one would end alike."""


class BadReference(VerifierError, ValueError):
    """The reference (gold) cannot be used; the problem has to be mended or dropped."""


class UnknownVerifier(VerifierError, LookupError):
    """No verifier under that name."""

    exit_code = 2
    of_batch = True


class BadOption(VerifierError, TypeError):
    """A verifier was given an option that it does not take, or a value out of range."""

    exit_code = 2
    of_batch = True


class FileError(VerifierError, ValueError):
    """A file cannot be read, or not be written to as asked."""

    exit_code = 2


class BadReturn(VerifierError, ValueError):
    """A verifier or reward function returned what is no reward; the message says what to return."""

    exit_code = 2
