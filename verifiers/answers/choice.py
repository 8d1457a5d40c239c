"""`choice`: compares the final answer with a letter, or with one of several words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from verifiers.answers.final import check_forms, final_answer, no_answer
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadOption, BadReference
from verifiers.verdict import JSON, Outcome, Verdict, fixed

LABEL = re.compile(
    r"(?:\\text\s*\{\s*)?(?:option|choice|answer)?\s*[(\[]?\s*([A-Za-z])\s*(?:[)\]}.:]+(?:\s|$)|[。．：）]|$)", re.I
)
BRACKETED = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]]")


class Choice(Verifier):
    """The final answer names one choice: by its letter, `(B)`, `B. text`, or as a word or phrase among `choices`.

    The reference is a letter or one of the choices, or `{"answer": "B", "choices": ["first text", "second text"]}`;
    with the latter, the text of the right choice is accepted too. An answer that names two choices is wrong.

    Args:
        choices: words or phrases to choose from, if they are the same in every row; None: letters.
        forms: accepted forms of the answer; None: all.
    Raises:
        BadOption: an unknown form, or two equal choices.
    """

    name = "choice"
    reference_schema = {"type": ["string", "object"]}
    examples = (
        Example(
            completion="It has to be two, so the answer is (B).",
            reference="B",
            prompt="What is 1+1?\n(A) one\n(B) two\n(C) three",
        ),
        Example(completion="The answer is two", reference={"answer": "B", "choices": ["one", "two"]}),
        Example(completion="The answer is (A) or (B).", reference="B", outcome=Outcome.INCORRECT),
        Example(completion="The answer is C.", reference="B", outcome=Outcome.INCORRECT),
    )

    def __init__(self, *, choices: list[str] | None = None, forms: list[str] | None = None) -> None:
        check_forms(forms)
        if choices is not None and len({_folded(choice) for choice in choices}) != len(choices):
            raise BadOption(f"choices must differ from each other; got {choices}.")
        self._choices, self._forms = choices, forms

    def check_reference(self, reference: JSON) -> None:
        self._expected(reference)

    def _expected(self, reference: JSON) -> tuple[str, list[str]]:
        """Return (the right label or choice, the texts of the row's choices)."""
        answer, texts = reference, self._choices or []
        if isinstance(reference, dict):
            answer, given = reference.get("answer"), reference.get("choices", [])
            if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
                raise BadReference(f"choices of the reference must be a list of texts; got {str(given)[:80]}.")
            texts = [str(text) for text in given]
        if not isinstance(answer, str) or not answer.strip():
            raise BadReference(f"reference must be a letter or one of the choices; got {str(answer)[:80]!r}.")
        if _folded(answer) in map(_folded, texts):
            return answer, texts
        letter = label_of(answer)
        if letter is None or (isinstance(reference, dict) and texts and ord(letter) - ord("A") >= len(texts)):
            raise BadReference(f"reference must be a letter or one of {texts or 'the choices'}; got {answer[:80]!r}.")
        return letter, texts

    def grade(self, row: GradingRow) -> Verdict:
        gold, texts = self._expected(row.reference)
        found = final_answer(row, self._forms)
        if found is None:
            return no_answer()
        answer, form = found.answer[:2000], found.form
        folded = _folded(answer)
        by_text = next((text for text in texts if _folded(text) == folded), None)
        chosen = by_text if by_text is not None else label_of(answer)
        if chosen is None:
            return fixed(
                Outcome.INCORRECT, f"{answer[:80]!r} does not name exactly one choice", answer=answer[:80], form=form
            )
        same = _index(chosen, texts) == _index(gold, texts)
        return fixed(
            Outcome.CORRECT if same else Outcome.INCORRECT,
            "the right choice" if same else f"chose {chosen}, not {gold}",
            answer=chosen,
            form=form,
        )


def label_of(answer: str) -> str | None:
    """Return the letter that an answer names, in upper case; None if it names none or several.

    Example:
        >>> [label_of(text) for text in ("B", "(b)", "B. two", "(B) since", "A dog", "(A) or (B)", "option C")]
        ['B', 'B', 'B', 'B', None, None, 'C']
    """
    plain = answer.strip().strip("*$`\"' ")
    bracketed = {letter.upper() for letter in BRACKETED.findall(plain[:2000])}
    if len(bracketed) > 1:
        return None
    if bracketed and BRACKETED.match(plain):
        return bracketed.pop()
    found = LABEL.match(plain)
    if found is None or bracketed - {found.group(1).upper()}:
        return None
    return found.group(1).upper()


def _index(choice: str, texts: Sequence[str]) -> int | str:
    folded = [_folded(text) for text in texts]
    if _folded(choice) in folded:
        return folded.index(_folded(choice))
    return ord(choice) - ord("A") if texts and len(choice) == 1 else choice


def _folded(text: str) -> str:
    return " ".join(text.split()).strip("*$`\"'. ").casefold()
