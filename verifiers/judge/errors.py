"""Errors of a judge. None of them is ever turned into a reward."""

from __future__ import annotations

from verifiers.errors import VerifierError


class JudgeFault(VerifierError):
    """The judge gave no usable answer; the message says why."""


class Unusable(JudgeFault):
    """A reply that cannot be read: malformed, truncated, outside the levels. Asking again may help."""


class Busy(JudgeFault):
    """The endpoint is busy or could not be reached; a retry may help."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after
        """Seconds to wait according to the endpoint (Retry-After); None if it did not say."""


class BudgetSpent(JudgeFault):
    """The next call could exceed the token budget."""


class Obeyed(JudgeFault):
    """The judge followed an instruction in the data that it was grading."""
