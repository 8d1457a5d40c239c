"""`numeric`, `choice` and `regex`: the final answer against a number, a label or a pattern."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from verifiers.answers.find import DEFAULT_FORMS, extract_answer
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadOption, BadReference
from verifiers.verdict import JSON, Outcome, Verdict, fixed

MAX_NUMBER = 200
"""Characters of a number."""
MAX_EXPONENT = 400
NUMBER = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(?:[eE]([+-]?\d{1,6}))?")
THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
LABEL = re.compile(
    r"(?:\\text\s*\{\s*)?(?:option|choice|answer)?\s*[(\[]?\s*([A-Za-z])\s*(?:[)\]}.:]+(?:\s|$)|$)", re.I
)
BRACKETED = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]]")


def find_answer(row: GradingRow, forms: Sequence[str] | None, *, lenient: bool = False) -> tuple[str, str] | None:
    """(the final answer of the completion, its form), None where it declares none."""
    found = extract_answer(row.completion, forms=forms, lenient=lenient)
    return (found.answer, found.form) if found is not None and found.answer.strip() else None


def check_forms(forms: Sequence[str] | None) -> None:
    """Raise BadOption for a form that answers cannot have."""
    unknown = [form for form in forms or () if form not in DEFAULT_FORMS]
    if unknown:
        raise BadOption(f"forms must be some of {', '.join(DEFAULT_FORMS)}; got {unknown[0]!r}.")


NONE_DECLARED = "the completion declares no final answer"


def read_number(text: str) -> Fraction | None:
    """An integer, decimal, power of ten or fraction of two of them; with a currency sign, `%`, thousands commas.

    The percent sign is only dropped: 50% is 50.

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
        relative: likewise, as a share of the reference's size. Both 0: exactly equal, as fractions.
        lenient: where no form declares an answer, take the last number of the text.
        forms: accepted forms of the answer; None: all.
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
        self._gold(reference)

    def _gold(self, reference: JSON) -> Fraction:
        number = None
        if isinstance(reference, str | int | float) and not isinstance(reference, bool):
            number = read_number(str(reference))
        if number is None:
            raise BadReference(f"reference must be a number, or text that is one; got {str(reference)[:80]!r}.")
        return number

    def grade(self, row: GradingRow) -> Verdict:
        gold = self._gold(row.reference)
        found = find_answer(row, self._forms, lenient=self._lenient)
        if found is None:
            return fixed(Outcome.NO_ANSWER, NONE_DECLARED)
        answer, form = found[0][:MAX_NUMBER], found[1]
        value = read_number(found[0])
        if value is None:
            if form == "bare":
                return fixed(Outcome.NO_ANSWER, NONE_DECLARED)
            return fixed(Outcome.INCORRECT, f"{answer[:80]!r} is not a number", answer=answer, form=form)
        off = abs(value - gold)
        if off <= max(self._absolute, self._relative * abs(gold)):
            return fixed(Outcome.CORRECT, "equal to the reference", answer=answer, form=form)
        return fixed(Outcome.INCORRECT, f"{answer[:80]} is not {row.reference}", answer=answer, form=form)


class Choice(Verifier):
    """The final answer names one choice: by its letter, `(B)`, `B. text`, or as a word or phrase among `choices`.

    The reference is a letter or one of the choices, or `{"answer": "B", "choices": ["first text", "second text"]}`:
    then the text of the right choice is accepted as well. Naming two choices is wrong.

    Args:
        choices: words or phrases to choose from, where they are the same in every row; None: letters.
        forms: accepted forms of the answer; None: all.
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
        self._gold(reference)

    def _gold(self, reference: JSON) -> tuple[str, list[str]]:
        """(the right label or choice, the texts of the row's choices)."""
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
        gold, texts = self._gold(row.reference)
        found = find_answer(row, self._forms)
        if found is None:
            return fixed(Outcome.NO_ANSWER, NONE_DECLARED)
        answer, form = found[0][:2000], found[1]
        said = _folded(answer)
        by_text = next((text for text in texts if _folded(text) == said), None)
        chosen = by_text if by_text is not None else label_of(answer)
        if chosen is None:
            return fixed(Outcome.INCORRECT, f"{answer[:80]!r} names no one choice", answer=answer[:80], form=form)
        same = _index(chosen, texts) == _index(gold, texts)
        return fixed(
            Outcome.CORRECT if same else Outcome.INCORRECT,
            "the right choice" if same else f"chose {chosen}, not {gold}",
            answer=chosen,
            form=form,
        )


def label_of(answer: str) -> str | None:
    """The letter that an answer names, upper case; None where it names none or several.

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


class Regex(Verifier):
    """The final answer matches a regular expression, which is the reference.

    Args:
        whole: match the whole completion instead of its final answer.
        search: the pattern may match anywhere inside; otherwise it must match all of it.
        ignore_case: fold case.
        forms: accepted forms of the answer; None: all.

    A pattern that backtracks for ever is the reference's fault: the grading pool ends it as `verifier_error`.
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
        found = (row.completion, "whole completion") if self._whole else find_answer(row, self._forms)
        if found is None:
            return fixed(Outcome.NO_ANSWER, NONE_DECLARED)
        text, form = found
        matches = pattern.search(text) if self._search else pattern.fullmatch(text.strip())
        shown = None if self._whole else text[:2000]
        if matches:
            return fixed(Outcome.CORRECT, "matches", answer=shown, form=form)
        return fixed(Outcome.INCORRECT, f"{text[:80]!r} does not match", answer=shown, form=form)
