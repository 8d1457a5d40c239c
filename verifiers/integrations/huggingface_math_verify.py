"""Hugging Face's Math-Verify as a verifier, for comparison and for users who want its verdicts."""

from __future__ import annotations

from verifiers.answers.visible import visible_text
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadOption, BadReference
from verifiers.verdict import Outcome, Verdict, fixed


class MathVerify(Verifier):
    r"""Math-Verify, used as in its README: reference as `\boxed{...}` LaTeX, answer by LaTeX and expression extraction.

    Reasoning (`<think>...</think>`) is removed first, as for every verifier here.

    Works only in the main thread of a process, since its timeout uses signals; use the grading pool. Needs
    `pip install math-verify[antlr4_13_2]`.
    """

    name = "math-verify"
    version = "2"
    reference_schema = {"type": "string"}
    grade_seconds = 30.0
    examples = (
        Example(completion=r"So the result is \boxed{\frac{1}{2}}.", reference="0.5"),
        Example(completion=r"So the result is \boxed{\frac{1}{3}}.", reference="0.5", outcome=Outcome.INCORRECT),
        Example(completion="I would have to guess.", reference="0.5", outcome=Outcome.NO_ANSWER),
    )

    def __init__(self) -> None:
        try:
            from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
        except ImportError as error:
            raise BadOption(f"verifier math-verify needs a package: pip install math-verify ({error}).") from error
        self._parse, self._verify = parse, verify
        self._targets = [LatexExtractionConfig(), ExprExtractionConfig()]

    def grade(self, row: GradingRow) -> Verdict:
        gold = self._parse(f"\\boxed{{{row.reference}}}", extraction_config=self._targets)
        if not gold:
            raise BadReference(f"Math-Verify cannot parse the reference {str(row.reference)[:80]!r}.")
        answer = self._parse(visible_text(row.completion), extraction_config=self._targets)
        if not answer:
            return fixed(Outcome.NO_ANSWER, "Math-Verify found no answer")
        right = self._verify(gold, answer)
        return fixed(Outcome.CORRECT if right else Outcome.INCORRECT, "Math-Verify", answer=str(answer[-1]))
