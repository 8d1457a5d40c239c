"""Errors of verifiers. None of them counts as a wrong answer."""

from __future__ import annotations

from typing import ClassVar


class VerifierError(RuntimeError):
    """Base class: grading failed for a reason other than the completion."""

    exit_code: ClassVar[int] = 1
    """Exit status of a command that fails with this error: 2 if the input has to change, 1 otherwise."""
    of_batch: ClassVar[bool] = False
    """True: the error concerns the whole batch, so grading its rows one by one would fail as well."""


class BadReference(VerifierError, ValueError):
    """The reference answer cannot be used; the problem has to be fixed or dropped."""


class UnknownVerifier(VerifierError, LookupError):
    """There is no verifier with this name, or it cannot be loaded."""

    exit_code = 2
    of_batch = True


class BadOption(VerifierError, TypeError):
    """A verifier got an unknown option, or a value that it does not accept."""

    exit_code = 2
    of_batch = True


class FileError(VerifierError, ValueError):
    """A file cannot be read, or cannot be written as requested."""

    exit_code = 2


class BadReturn(VerifierError, ValueError):
    """A verifier or reward function returned something other than a reward; the message says what to return."""

    exit_code = 2
