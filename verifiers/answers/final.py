"""The final answer of a row, as most verifiers use it, and the verdict on a row without one."""

from __future__ import annotations

from collections.abc import Sequence

from verifiers.answers.find import DEFAULT_FORMS, Extraction, extract_answer
from verifiers.base import GradingRow
from verifiers.errors import BadOption
from verifiers.verdict import Outcome, Verdict, fixed


def final_answer(
    row: GradingRow, forms: Sequence[str] | None = None, *, lenient: bool = False, thinking_tags: Sequence[str] = ()
) -> Extraction | None:
    """Return the final answer of the completion; None if it declares none, or a blank one."""
    found = extract_answer(row.completion, forms=forms, lenient=lenient, thinking_tags=thinking_tags)
    return found if found is not None and found.answer.strip() else None


def no_answer() -> Verdict:
    """Return the verdict on a completion that declares no final answer."""
    return fixed(Outcome.NO_ANSWER, "the completion declares no final answer")


def check_forms(forms: Sequence[str] | None) -> None:
    """Check the names of answer forms.

    Raises:
        BadOption: a form is unknown.
    """
    unknown = [form for form in forms or () if form not in DEFAULT_FORMS]
    if unknown:
        raise BadOption(f"forms must be some of {', '.join(DEFAULT_FORMS)}; got {', '.join(unknown)}.")
