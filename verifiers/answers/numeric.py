"""`numeric`: compares the final answer with a number."""

from __future__ import annotations

import re
from fractions import Fraction

from verifiers.answers.final import check_forms, final_answer, no_answer
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadOption, BadReference
from verifiers.verdict import JSON, Outcome, Verdict, fixed

MAX_NUMBER = 200
"""Limit on the characters of a number."""
MAX_EXPONENT = 400
NUMBER = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(?:[eE]([+-]?\d{1,6}))?")
THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")


def read_number(text: str) -> Fraction | None:
    """Parse an integer, decimal, power of ten, or fraction of two of these.

    Currency signs and thousands commas are allowed. The percent sign is ignored: 50% is 50. None if the text is not
    such a number.

    Example:
        >>> read_number("$1,234.50"), read_number("-3/4"), read_number("1e-2"), read_number("12 apples")
        (Fraction(2469, 2), Fraction(-3, 4), Fraction(1, 100), None)
    """
    plain = text.strip().strip("$€£").removesuffix(".").removesuffix("%").removesuffix("\\").strip()
    plain = plain.replace("−", "-").replace("\\$", "").replace("\\,", "").replace("{,}", ",").strip("$ ")
    if len(plain) > MAX_NUMBER:
        return None
    top, slash, bottom = plain.partition("/")
    value = _decimal(top)
    if not slash or value is None:
        return value
    divisor = _decimal(bottom)
    return None if not divisor else value / divisor


def _decimal(text: str) -> Fraction | None:
    plain = text.strip()
    if THOUSANDS.fullmatch(plain):
        plain = plain.replace(",", "")
    found = NUMBER.fullmatch(plain)
    if found is None or not plain.isascii():
        return None
    exponent = int(found.group(2) or 0)
    return None if abs(exponent) > MAX_EXPONENT else Fraction(found.group(1)) * Fraction(10) ** exponent


class Numeric(Verifier):
    """The final answer is a number within a tolerance of the reference; no algebra (`math` does that).

    Args:
        absolute: greatest difference that counts as equal.
        relative: the same, as a fraction of the reference's absolute value. Both 0: exactly equal, as fractions.
        lenient: if no form declares an answer, take the last number of the text.
        forms: accepted forms of the answer; None: all.
    Raises:
        BadOption: a negative tolerance, or an unknown form.
    """

    name = "numeric"
    reference_schema = {"type": ["number", "string"]}
    examples = (
        Example(completion="So it is \\boxed{1,250}", reference=1250, prompt="What is 25 times 50?"),
        Example(completion="The answer is 1/4.", reference="0.25", prompt="What is one half squared?"),
        Example(completion="The answer is 1.26", reference="1.25", outcome=Outcome.INCORRECT),
        Example(completion="I cannot say.", reference="1.25", outcome=Outcome.NO_ANSWER),
    )

    def __init__(
        self,
        *,
        absolute: float = 0.0,
        relative: float = 0.0,
        lenient: bool = False,
        forms: list[str] | None = None,
    ) -> None:
        if absolute < 0 or relative < 0:
            raise BadOption(f"absolute and relative must be at least 0; got {absolute} and {relative}.")
        check_forms(forms)
        self._absolute, self._relative = Fraction(absolute), Fraction(relative)
        self._lenient, self._forms = lenient, forms

    def check_reference(self, reference: JSON) -> None:
        self._expected(reference)

    def _expected(self, reference: JSON) -> Fraction:
        number = None
        if isinstance(reference, str | int | float) and not isinstance(reference, bool):
            number = read_number(str(reference))
        if number is None:
            raise BadReference(f"reference must be a number, or text that is one; got {str(reference)[:80]!r}.")
        return number

    def grade(self, row: GradingRow) -> Verdict:
        gold = self._expected(row.reference)
        found = final_answer(row, self._forms, lenient=self._lenient)
        if found is None:
            return no_answer()
        answer, form = found.answer[:MAX_NUMBER], found.form
        value = read_number(found.answer)
        if value is None:
            if form == "bare":
                return no_answer()
            return fixed(Outcome.INCORRECT, f"{answer[:80]!r} is not a number", answer=answer, form=form)
        off = abs(value - gold)
        if off <= max(self._absolute, self._relative * abs(gold)):
            return fixed(Outcome.CORRECT, "equal to the reference", answer=answer, form=form)
        return fixed(Outcome.INCORRECT, f"{answer[:80]} is not {row.reference}", answer=answer, form=form)
