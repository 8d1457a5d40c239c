"""`exact` and `format`: the two simplest verifiers."""

from __future__ import annotations

import re

from verifiers.answers.final import check_forms, final_answer, no_answer
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadOption, BadReference
from verifiers.verdict import JSON, Outcome, Verdict, fixed


class Exact(Verifier):
    """The extracted final answer equals the reference, character by character after normalising white space.

    Args:
        whole: compare the whole completion instead of its final answer.
        ignore_case: ignore case on both sides.
        forms: accepted forms of the answer; None: all.
        lenient: if no form declares an answer, take the last number of the text.
    Raises:
        BadOption: an unknown form.
    """

    name = "exact"
    reference_schema = {"type": "string", "minLength": 1}
    examples = (
        Example(completion="So the answer is Paris.", reference="Paris", prompt="What is the capital of France?"),
        Example(completion="So the answer is Lyon.", reference="Paris", outcome=Outcome.INCORRECT),
        Example(completion="I do not know which town it is.", reference="Paris", outcome=Outcome.NO_ANSWER),
    )

    def __init__(
        self, *, whole: bool = False, ignore_case: bool = False, forms: list[str] | None = None, lenient: bool = False
    ) -> None:
        check_forms(forms)
        self._whole, self._ignore_case = whole, ignore_case
        self._forms, self._lenient = forms, lenient

    def check_reference(self, reference: JSON) -> None:
        if not isinstance(reference, str) or not reference.strip():
            raise BadReference(f"reference must be a non-empty string; got {reference!r}.")

    def grade(self, row: GradingRow) -> Verdict:
        self.check_reference(row.reference)
        wanted = self._folded(str(row.reference))
        if self._whole:
            answer, form = row.completion, "whole completion"
        else:
            found = final_answer(row, self._forms, lenient=self._lenient)
            answer, form = (found.answer, found.form) if found else ("", "")
        if not answer.strip():
            return no_answer()
        if self._folded(answer) == wanted:
            return fixed(Outcome.CORRECT, "equal to the reference", answer=answer, form=form)
        return fixed(Outcome.INCORRECT, f"{answer[:80]!r} is not {wanted[:80]!r}", answer=answer, form=form)

    def _folded(self, text: str) -> str:
        folded = " ".join(text.split())
        return folded.casefold() if self._ignore_case else folded


class Format(Verifier):
    """The whole completion has a required structure; the reference is ignored.

    Args:
        tags: tags that must each appear once, in order, closed, with nothing but white space outside them.
        pattern: instead, a regular expression that the whole completion must match.
    Raises:
        BadOption: not exactly one of tags and pattern is given, or the pattern is invalid.
    """

    name = "format"
    shaping = True
    examples = (
        Example(completion="<think>a</think> <answer>b</answer>", reference=None),
        Example(completion="<answer>b</answer>", reference=None, outcome=Outcome.INCORRECT),
    )
    example_options = {"tags": ["think", "answer"]}

    def __init__(self, *, tags: list[str] | None = None, pattern: str | None = None) -> None:
        if (tags is None) == (pattern is None):
            raise BadOption("format must be given either tags or pattern; got both or neither.")
        self._tags = tags
        try:
            self._pattern = re.compile(pattern, re.DOTALL) if pattern is not None else None
        except re.error as error:
            raise BadOption(f"pattern must be a regular expression; got {pattern!r}: {error}.") from error

    def grade(self, row: GradingRow) -> Verdict:
        if self._pattern is not None:
            kept = self._pattern.fullmatch(row.completion.strip()) is not None
            return fixed(
                Outcome.CORRECT if kept else Outcome.INCORRECT, "matches" if kept else "does not match the pattern"
            )
        fault = self._tag_fault(row.completion)
        return fixed(Outcome.INCORRECT if fault else Outcome.CORRECT, fault or "every tag once, in order")

    def _tag_fault(self, text: str) -> str:
        at = 0
        for tag in self._tags or ():
            opening, closing = f"<{tag}>", f"</{tag}>"
            if text.count(opening) != 1 or text.count(closing) != 1:
                return f"<{tag}>...</{tag}> must appear exactly once"
            start, end = text.find(opening), text.find(closing)
            if start < at or end < start:
                return f"<{tag}> is out of order"
            if text[at:start].strip():
                return f"there is text before <{tag}>, outside the tags"
            at = end + len(closing)
        return "there is text after the last tag" if text[at:].strip() else ""
