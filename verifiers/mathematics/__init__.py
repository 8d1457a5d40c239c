"""Mathematical answers: text to tree, tree to tree comparison. Nothing here evaluates text."""

from verifiers.mathematics.equality.compare import Comparison, Policy, compare
from verifiers.mathematics.limits import LimitExceeded, ParseError
from verifiers.mathematics.reading.reader import read

__all__ = ["Comparison", "LimitExceeded", "ParseError", "Policy", "compare", "read"]
