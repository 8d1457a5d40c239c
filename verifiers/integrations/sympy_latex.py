"""SymPy with latex2sympy2_extended as LaTeX reader: a second opinion that shares no reading code with `math`."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from verifiers.answers.final import final_answer, no_answer
from verifiers.answers.find import DEFAULT_FORMS
from verifiers.asked_process import AskedProcess
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadOption, BadReference
from verifiers.verdict import Outcome, Verdict, fixed

CPU_SECONDS = 5.0
"""Of a question: SymPy has no limit of its own, and works out 9^{9^{9^9}}."""


class SympyLatex(Verifier):
    """Equality by SymPy of the final answer and the reference, both read as LaTeX by latex2sympy2_extended.

    For `reasoner verifiers audit math FILE --against sympy`: the final answer is found as by the math verifier;
    everything after that is independent of it. A separate process reads and compares both, and is killed after
    CPU_SECONDS of one question. Needs `pip install latex2sympy2_extended[antlr4_13_2]`.
    """

    name = "sympy"
    version = "2"
    reference_schema = {"type": "string"}
    grade_seconds = 60.0
    for_rows = False  # another project's parser
    examples = (
        Example(completion=r"So the result is \boxed{(x+1)^2}.", reference="x^2+2x+1", prompt="What is (x+1)(x+1)?"),
        Example(completion=r"So the result is \boxed{(x+1)^2}.", reference="x^2+1", outcome=Outcome.INCORRECT),
        Example(completion="I would have to guess.", reference="x^2+1", outcome=Outcome.NO_ANSWER),
    )

    def __init__(self) -> None:
        if importlib.util.find_spec("latex2sympy2_extended") is None:
            raise BadOption("verifier sympy needs a package: pip install latex2sympy2_extended[antlr4_13_2].")
        self._process = AskedProcess(f"{__name__}:decide", cpu_seconds=CPU_SECONDS)

    def grade(self, row: GradingRow) -> Verdict:
        reference = str(row.reference)
        read = self._process.ask(reference)
        if read != "read":
            raise BadReference(f"latex2sympy2_extended cannot read the reference {reference[:80]!r} ({read[:80]}).")
        found = final_answer(row, DEFAULT_FORMS, lenient=False)
        if found is None:
            return no_answer()
        said = self._process.ask(reference, found.answer)
        if said.startswith("limit"):
            return fixed(Outcome.LIMIT_EXCEEDED, f"SymPy: {said}", answer=found.answer)
        if said == "unread":
            return fixed(Outcome.NO_ANSWER, "latex2sympy2_extended cannot read the answer", answer=found.answer)
        return fixed(Outcome.CORRECT if said == "equal" else Outcome.INCORRECT, "SymPy", answer=found.answer)


def decide(reference: str, answer: str | None = None) -> str:
    """Read the reference, and compare the answer with it.

    Returns:
        Without an answer "read" or "unread", of the reference; with one "unread", of the answer, "equal" or
        "different".
    """
    gold = _read(reference)
    if answer is None:
        return "unread" if gold is None else "read"
    said = _read(answer)
    return "unread" if said is None else "equal" if _equal(gold, said) else "different"


def _read(text: str) -> Any:
    parse: Any = importlib.import_module("latex2sympy2_extended").latex2sympy
    try:
        return parse(text.strip().strip("$"), is_real=False)
    except (MemoryError, RecursionError):
        raise
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
