"""`math`: is the final answer of a completion the reference, mathematically?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from verifiers.answers.escapes import mended
from verifiers.answers.final import check_forms, final_answer, no_answer
from verifiers.answers.find import DEFAULT_FORMS, Extraction, extract_answer
from verifiers.base import GradingRow, Verifier
from verifiers.errors import BadOption, BadReference
from verifiers.mathematics.equality.compare import Policy, compare
from verifiers.mathematics.limits import MAX_REFERENCE_CHARS, LimitExceeded, ParseError
from verifiers.mathematics.nodes import Group, GroupKind, Node
from verifiers.mathematics.reading.reader import clean, read, read_verbatim
from verifiers.mathematics.reading.tokens import FUNCTIONS
from verifiers.mathematics.reading.words import phrase
from verifiers.verdict import JSON, Outcome, Verdict, fixed

_INTEGER = re.compile(r"[-+]?\d{1,18}")
_GROUPED_INTEGER = re.compile(r"[-+]?\$?\d{1,3}(?:,\d{3})+(?:\.0+)?|[-+]?\$?\d{1,18}(?:\.0+)?")
_WRAP = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|textsf)\s*\{([^{}]*)\}")
_LETTER = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+)?(?:option|choice|answer)\s*(?:is\s*)?:?\s*)?[(\[]?([A-Za-z])[)\]]?[.:]?",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"(?:(?:option|choice|answer)\s*)?(?:[(\[]([A-Z])[)\]]|([A-Z])[).:](?=\s|$))[.:]?\s*([\s\S]*)", re.IGNORECASE
)
_OTHER_LABEL = re.compile(r"[(\[][A-Z][)\]]|(?:^|\s)[A-Z][).:](?:\s|$)|^(?:or|and|/|,)\s*\(?[A-Z]\)?\b", re.IGNORECASE)


class Math(Verifier):
    """The extracted final answer equals the reference as mathematics.

    Args:
        forms: accepted ways to declare the final answer, in order of preference; see `verifiers.answers.find`.
        lenient: where none of them occurs, take the last number of the text.
        rounding: "reference": a reference written as a decimal accepts what rounds to it; "exact".
        relative_tolerance: further tolerance between real numbers; 0 for none.
        percent_optional: 50% is 50 and 0.5 where one side alone bears the sign.
        units_optional: a unit on one side alone is not looked at.
        unsimplified: an exact unsimplified value (`3+5` for 8) counts.
        ordered_lists: bare comma lists are compared in order.
        any_base: a number in another base than the reference's counts.
    """

    name = "math"
    version = "1"
    reference_schema = {"type": "string", "minLength": 1}
    grade_seconds = 5.0

    def __init__(
        self,
        *,
        forms: list[str] | None = None,
        lenient: bool = False,
        rounding: str = "reference",
        relative_tolerance: float = 0.0,
        percent_optional: bool = True,
        units_optional: bool = True,
        unsimplified: bool = True,
        ordered_lists: bool = False,
        any_base: bool = False,
    ) -> None:
        check_forms(forms)
        if rounding not in ("reference", "exact"):
            raise BadOption(f"rounding must be 'reference' or 'exact'; got {rounding!r}.")
        if not 0 <= relative_tolerance < 0.1:
            raise BadOption(f"relative_tolerance must be in [0, 0.1); got {relative_tolerance}.")
        self._forms: Sequence[str] = tuple(forms) if forms is not None else DEFAULT_FORMS
        self._lenient = lenient
        self._policy = Policy(
            rounding=rounding,
            relative_tolerance=relative_tolerance,
            percent_optional=percent_optional,
            units_optional=units_optional,
            unsimplified=unsimplified,
            ordered_lists=ordered_lists,
            any_base=any_base,
        )

    def check_reference(self, reference: JSON) -> None:
        read_reference(reference)

    def grade(self, row: GradingRow) -> Verdict:
        reference = reference_text(row.reference)
        found = final_answer(row, self._forms, lenient=self._lenient)
        if found is None:
            read_reference(row.reference)
            return no_answer()
        repair = ", repaired" if found.repaired else ""
        form = found.form + repair
        quick = _same_integer(reference, found.answer) if len(found.boxes) <= 1 else None
        if quick is not None:
            return _verdict(quick, "integer", found.answer, reference, form)
        gold = read_reference(row.reference)
        wanted = _choice(reference)
        if wanted is not None and wanted.isupper() and len(found.boxes) <= 1:
            chosen = _choice(found.answer[:MAX_REFERENCE_CHARS])
            if chosen is not None:
                return _verdict(chosen.upper() == wanted, "choice", found.answer, reference, form)
        if len(found.answer) > MAX_REFERENCE_CHARS:
            return fixed(Outcome.LIMIT_EXCEEDED, "the answer is too long to read", answer=found.answer[:200], form=form)
        try:
            answer = _answer(found)
        except LimitExceeded as error:
            if found.answer.strip() == reference.strip():
                return _verdict(True, "identical", found.answer, reference, form)
            return fixed(Outcome.LIMIT_EXCEEDED, str(error), answer=found.answer[:200], form=form)
        except ParseError as error:
            value = _labelled_value(found.answer) if len(found.boxes) <= 1 else None
            if value is not None and compare(gold, value, self._policy).equal:
                return _verdict(True, "the value beside its label", found.answer, reference, form)
            same = _verbatim(found.answer) == gold or (
                bool(_prose(reference)) and _prose(reference) == _prose(found.answer)
            )
            detail = "identical" if same else f"the answer cannot be read ({error})"
            return _verdict(same, detail, found.answer, reference, form)
        result = compare(gold, answer, self._policy)
        if not result.equal and len(found.boxes) <= 1 and (value := _labelled_value(found.answer)) is not None:
            result = compare(gold, value, self._policy)
        if not result.equal and wanted is not None and (value := _labelled_value(reference)) is not None:
            result = compare(value, answer, self._policy)
        if not result.equal and _prose(reference) and _prose(reference) == _prose(found.answer):
            return _verdict(True, "words", found.answer, reference, form)
        if not result.equal and _formula(reference) and _formula(reference) == _formula(found.answer):
            return _verdict(True, "formula", found.answer, reference, form)
        if result.limited:
            return fixed(Outcome.LIMIT_EXCEEDED, result.limited, answer=found.answer[:200], form=form)
        return _verdict(result.equal, result.tier, found.answer, reference, form)


def reference_text(reference: JSON) -> str:
    """The reference as text; numbers are taken as written.

    Raises:
        BadReference: not text, empty, or over the length limit.
    """
    if isinstance(reference, int | float) and not isinstance(reference, bool):
        return str(int(reference)) if isinstance(reference, float) and reference.is_integer() else str(reference)
    if not isinstance(reference, str) or not reference.strip():
        raise BadReference(f"reference must be a non-empty string; got {str(reference)[:80]!r}.")
    if len(reference) > MAX_REFERENCE_CHARS:
        raise BadReference(f"reference must have at most {MAX_REFERENCE_CHARS} characters; got {len(reference)}.")
    return reference


def read_reference(reference: JSON) -> Node:
    """The reference's tree.

    Raises:
        BadReference: it cannot be read.
    """
    return _read_gold(reference_text(reference))


@lru_cache(maxsize=4096)
def _read_gold(text: str) -> Node:
    text = mended(text)
    cleaned = clean(text)
    if "####" in text or "\\boxed" in text:
        found = extract_answer(text, forms=("boxed", "hashes"))
        if found:
            cleaned = found.answer
    elif "answer is" in text.lower():
        found = extract_answer(text, forms=("declared",))
        if found:
            cleaned = found.answer
    try:
        return read(cleaned)
    except ParseError as error:
        verbatim = _verbatim(cleaned)
        if verbatim is not None:
            return verbatim
        raise BadReference(f"reference cannot be read as mathematics ({error}); got {text[:80]!r}.") from error
    except LimitExceeded as error:
        raise BadReference(f"reference cannot be read as mathematics ({error}); got {text[:80]!r}.") from error


def _answer(found: Extraction) -> Node:
    """The answer's tree; boxes side by side are a list of answers."""
    if len(found.boxes) > 1:
        return Group(GroupKind.LIST, tuple(read(box) for box in found.boxes))
    return read(found.answer)


def _unwrapped(text: str) -> str:
    """Without `\\text{...}` and delimiters: what a choice is recognised in."""
    for _ in range(3):
        text, before = _WRAP.sub(r"\1", text), text
        if text == before:
            break
    return clean(text).strip("{} ")


def _choice(text: str) -> str | None:
    """The letter that is the answer, alone or with what it stands for: `B`, `(B)`, `B. 12`, `\\text{(B) }12`."""
    if len(text) > 400:
        return None
    plain = _unwrapped(text)
    alone = _LETTER.fullmatch(plain)
    if alone:
        return alone[1] if alone[1].upper() in "ABCDEFGHIJ" else None
    found = _LABEL.fullmatch(plain)
    if found is None or _OTHER_LABEL.search(found[3]):
        return None
    return (found[1] or found[2]).upper()


def _labelled_value(text: str) -> Node | None:
    """The 12 of `(B) 12`."""
    if len(text) > 400:
        return None
    label = _LABEL.fullmatch(_unwrapped(text))
    if label is None or not label[3].strip() or _OTHER_LABEL.search(label[3]):
        return None
    try:
        return read(label[3].strip())
    except (ParseError, LimitExceeded):
        return None


_NO_PROSE = re.compile(r"[^A-Za-z0-9\s.,'’:;()!?-]")


def _prose(text: str) -> str | None:
    """What a text of words says, without typesetting, punctuation and articles; None for mathematics."""
    if len(text) > 300:
        return None
    plain = _unwrapped(text)
    words = re.findall(r"[A-Za-z0-9]+", plain)
    if _NO_PROSE.search(plain) or not any(len(word) > 3 and word.isalpha() for word in words):
        return None
    return None if any(word in FUNCTIONS for word in words) else phrase(words)


_FORMULA = re.compile(r"(?:[A-Z][a-z]?(?:_?\d{1,3})?|[()\[\]](?:_?\d{1,2})?|\^?\d?[+-])+")


def _formula(text: str) -> str | None:
    """A chemical formula without its typesetting, or None: `\\text{H}_2\\text{O}` is H2O."""
    if len(text) > 100:
        return None
    plain = _unwrapped(text.replace("\\ce", "\\text")).translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789", "{} "))
    return (
        plain.replace("_", "").replace("^", "") if _FORMULA.fullmatch(plain) and any(map(str.isdigit, plain)) else None
    )


def _same_integer(reference: str, answer: str) -> bool | None:
    """Equality of two plain integers, or None where either is something else."""
    if not _INTEGER.fullmatch(reference.strip()):
        return None
    stripped = answer.strip().strip("$").strip()
    if not _GROUPED_INTEGER.fullmatch(stripped):
        return None
    return int(reference) == int(stripped.replace("$", "").replace(",", "").split(".")[0])


def _verbatim(text: str) -> Node | None:
    try:
        return read_verbatim(text)
    except (ParseError, LimitExceeded):
        return None


def _verdict(same: bool, tier: str, answer: str, reference: str, form: str) -> Verdict:
    if same:
        return fixed(Outcome.CORRECT, f"equal to the reference by {tier}", answer=answer, form=form, tier=tier)
    shown = f"{answer[:80]!r} is not {reference[:80]!r} by {tier}"
    return fixed(Outcome.INCORRECT, shown, answer=answer, form=form, tier=tier)
