"""SymPy with latex2sympy2_extended as LaTeX reader: a second opinion that shares no reading code with `math`."""

from __future__ import annotations

import importlib
from typing import Any

from verifiers.answers.final import final_answer, no_answer
from verifiers.answers.find import DEFAULT_FORMS
from verifiers.base import GradingRow, Verifier
from verifiers.errors import BadOption, BadReference
from verifiers.verdict import Outcome, Verdict, fixed


class SympyLatex(Verifier):
    """Equality by SymPy of the final answer and the reference, both read as LaTeX by latex2sympy2_extended.

    For `reasoner verifiers audit math FILE --against sympy`: the final answer is found as by the math verifier;
    everything after that is independent of it. SymPy has no time limit; the grading pool kills it. Needs
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
        except Exception:  # its parser raises many classes, all meaning that it cannot read the text
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
