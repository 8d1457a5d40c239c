"""`regex`: matches the final answer against a regular expression."""

from __future__ import annotations

import re

from verifiers.answers.final import check_forms, final_answer, no_answer
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadReference
from verifiers.verdict import JSON, Outcome, Verdict, fixed


class Regex(Verifier):
    """The final answer matches a regular expression, which is the reference.

    Args:
        whole: match the whole completion instead of its final answer.
        search: the pattern may match anywhere inside; otherwise it must match the whole text.
        ignore_case: ignore case.
        forms: accepted forms of the answer; None: all.
    Raises:
        BadOption: an unknown form.

    A pattern that backtracks endlessly is a fault of the reference: the grading pool ends it as `verifier_error`.
    """

    name = "regex"
    reference_schema = {"type": "string", "minLength": 1}
    grade_seconds = 5.0
    examples = (
        Example(completion="The answer is 2024-02-29", reference=r"\d{4}-02-29"),
        Example(completion="The answer is 2024-02-28", reference=r"\d{4}-02-29", outcome=Outcome.INCORRECT),
    )

    def __init__(
        self, *, whole: bool = False, search: bool = False, ignore_case: bool = False, forms: list[str] | None = None
    ) -> None:
        check_forms(forms)
        self._whole, self._search, self._forms = whole, search, forms
        self._flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)

    def check_reference(self, reference: JSON) -> None:
        self._pattern(reference)

    def _pattern(self, reference: JSON) -> re.Pattern[str]:
        if not isinstance(reference, str) or not reference:
            raise BadReference(f"reference must be a regular expression; got {str(reference)[:80]!r}.")
        try:
            return re.compile(reference, self._flags)
        except (re.error, RecursionError, OverflowError) as error:
            raise BadReference(f"reference must be a regular expression; got {reference[:80]!r}: {error}.") from error

    def grade(self, row: GradingRow) -> Verdict:
        pattern = self._pattern(row.reference)
        found = final_answer(row, self._forms) if not self._whole else None
        if found is None and not self._whole:
            return no_answer()
        text, form = (row.completion, "whole completion") if found is None else (found.answer, found.form)
        matches = pattern.search(text) if self._search else pattern.fullmatch(text.strip())
        shown = None if self._whole else text[:2000]
        if matches:
            return fixed(Outcome.CORRECT, "matches", answer=shown, form=form)
        return fixed(Outcome.INCORRECT, f"{text[:80]!r} does not match", answer=shown, form=form)
