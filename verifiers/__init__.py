"""Deterministic verifiers: a completion and a reference in, a verdict out. No torch."""

from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadOption, BadReference, UnknownVerifier, VerifierError
from verifiers.given import grade
from verifiers.registry import from_function, get_verifier, installed, verifier
from verifiers.verdict import JSON, Outcome, Verdict, all_right, all_wrong, fixed, graded, mark_of

__distribution__ = "reasoner-rl"
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
    "all_right",
    "all_wrong",
    "fixed",
    "from_function",
    "get_verifier",
    "grade",
    "graded",
    "installed",
    "mark_of",
    "verifier",
]
