"""Faults of verifiers, none of which is ever a wrong answer."""

from __future__ import annotations


class VerifierError(RuntimeError):
    """Something about grading, not about the completion, went wrong."""


class BadReference(VerifierError, ValueError):
    """The reference (gold) cannot be used; the problem has to be mended or dropped."""


class UnknownVerifier(VerifierError, LookupError):
    """No verifier under that name."""


class BadOption(VerifierError, TypeError):
    """A verifier was given an option that it does not take, or a value out of range."""
