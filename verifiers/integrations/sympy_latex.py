"""SymPy with latex2sympy2_extended as the reader: an opinion on the math verifier that shares no reading with it."""

from __future__ import annotations

import importlib
from typing import Any

from verifiers.answers.final import final_answer, no_answer
from verifiers.answers.find import DEFAULT_FORMS
from verifiers.base import GradingRow, Verifier
from verifiers.errors import BadOption, BadReference
from verifiers.verdict import Outcome, Verdict, fixed


class SympyLatex(Verifier):
    """The declared answer and the reference, read as LaTeX by latex2sympy2_extended; equal if SymPy says so.

    For `reasoner verifiers audit math FILE --against sympy`: the declared answer is found as the math verifier finds
    it, everything behind that is independent of it. SymPy has no limit of its own: let the grading pool kill it. Needs
    `pip install latex2sympy2_extended[antlr4_13_2]`.
    """

    name = "sympy"
    reference_schema = {"type": "string"}
    grade_seconds = 10.0
    for_rows = False  # another project's parser

    def __init__(self) -> None:
        try:
            self._parse: Any = importlib.import_module("latex2sympy2_extended").latex2sympy
        except ImportError as error:
            raise BadOption(
                f"verifier sympy needs a package: pip install latex2sympy2_extended[antlr4_13_2] ({error})."
            ) from error

    def grade(self, row: GradingRow) -> Verdict:
        reference = self._read(str(row.reference))
        if reference is None:
            raise BadReference(f"latex2sympy2_extended cannot read the reference {str(row.reference)[:80]!r}.")
        found = final_answer(row, DEFAULT_FORMS, lenient=False)
        if found is None:
            return no_answer()
        answer = self._read(found.answer)
        if answer is None:
            return fixed(Outcome.NO_ANSWER, "latex2sympy2_extended cannot read the answer", answer=found.answer)
        return fixed(Outcome.CORRECT if _equal(reference, answer) else Outcome.INCORRECT, "SymPy", answer=found.answer)

    def _read(self, text: str) -> Any:
        try:
            return self._parse(text.strip().strip("$"), is_real=False)
        except Exception:  # its parser raises many classes, all of which say that it cannot read this
            return None


def _equal(reference: Any, answer: Any) -> bool:
    sympy: Any = importlib.import_module("sympy")
    if reference == answer:
        return True
    if not (isinstance(reference, sympy.Expr) and isinstance(answer, sympy.Expr)):
        return False
    try:
        return bool(sympy.simplify(reference - answer) == 0)
    except (TypeError, ValueError, AttributeError, NotImplementedError):
        return False
