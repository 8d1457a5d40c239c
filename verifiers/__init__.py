"""Deterministic verifiers: a completion and a reference in, a verdict out. No torch."""

from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadOption, BadReference, UnknownVerifier, VerifierError
from verifiers.registry import from_function, get_verifier, installed, verifier
from verifiers.verdict import JSON, Outcome, Verdict, fixed, graded

__all__ = [
    "JSON",
    "BadOption",
    "BadReference",
    "Example",
    "GradingRow",
    "Outcome",
    "UnknownVerifier",
    "Verdict",
    "Verifier",
    "VerifierError",
    "fixed",
    "from_function",
    "get_verifier",
    "graded",
    "installed",
    "verifier",
]
