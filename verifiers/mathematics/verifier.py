"""`math`: compares the final answer of a completion with the reference mathematically."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from verifiers.answers.final import check_forms, final_answer, no_answer
from verifiers.answers.find import DEFAULT_FORMS, Extraction
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadOption
from verifiers.mathematics.equality.compare import Comparison, Pair, Policy, compare, is_question
from verifiers.mathematics.limits import MAX_REFERENCE_CHARS, LimitExceeded, ParseError
from verifiers.mathematics.nodes import Add, Div, Group, GroupKind, Mul, Neg, Node, Pow, Sym
from verifiers.mathematics.opinion.ask import SecondOpinion
from verifiers.mathematics.reading.commas import groups_thousands, writes_decimal_comma
from verifiers.mathematics.reading.reader import read
from verifiers.mathematics.references import (
    ParsedReference,
    as_written,
    check_value,
    decimal,
    notes_on,
    read_reference,
    reference_text,
)
from verifiers.mathematics.wordings import (
    choice,
    labelled_value,
    other_elements,
    same_choice,
    same_formula,
    same_prose,
    same_truth,
)
from verifiers.verdict import JSON, Outcome, Verdict, fixed

MOST_ASKED = 4
"""Limit on the questions per row to SymPy."""
BUSY = 4
"""Wall-clock seconds per CPU second on a busy machine, for the time that the grading pool allows a row."""
_INTEGER = re.compile(r"[-+]?\d{1,18}")
_GROUPED_INTEGER = re.compile(r"[-+]?\$?\d{1,3}(?:,\d{3})+(?:\.0+)?|[-+]?\$?\d{1,18}(?:\.0+)?")


class Math(Verifier):
    """The extracted final answer equals the reference as mathematics.

    Args:
        forms: accepted ways to declare the final answer, in order of preference; see `verifiers.answers.find`.
        lenient: if none of these forms occurs, take the last number of the text.
        rounding: "reference": a reference written as a decimal accepts values that round to it; "exact": no rounding.
        relative_tolerance: further tolerance between real numbers; 0 for none.
        percent_optional: 50% equals 50 and 0.5 if only one side has the sign.
        units_optional: a unit on only one side is ignored.
        unsimplified: an exact unsimplified value (`3+5` for 8) is accepted.
        ordered_lists: bare comma lists are compared in order.
        any_base: a number in another base than the reference's is accepted.
        thinking_tags: names of further thinking tags, in addition to those of `verifiers.answers.visible`.
        sympy_seconds: CPU limit of SymPy for a pair of expressions that nothing here can decide, in a separate process;
            0: SymPy is not used.
    Raises:
        BadOption: an unknown form or rounding, or a number out of range.
    """

    name = "math"
    version = "3"
    reference_schema = {"type": "string", "minLength": 1}
    grade_seconds = 5.0
    examples = (
        Example(completion=r"So \boxed{\frac{1}{2}}.", reference="0.5", prompt="What is 1 divided by 2?"),
        Example(completion=r"Then $x = (y-1)(y+1)$, \boxed{(y-1)(y+1)}.", reference="y^2-1"),
        Example(completion="3 boxes, 6 eggs each\n#### 1,800", reference="1800"),
        Example(completion=r"So \boxed{\frac{1}{3}}.", reference="0.5", outcome=Outcome.INCORRECT),
        Example(completion=r"So \boxed{(y-1)^2}.", reference="y^2-1", outcome=Outcome.INCORRECT),
        Example(completion="I would have to guess.", reference="0.5", outcome=Outcome.NO_ANSWER),
    )

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
        thinking_tags: list[str] | None = None,
        sympy_seconds: float = 5.0,
    ) -> None:
        check_forms(forms)
        if rounding not in ("reference", "exact"):
            raise BadOption(f"rounding must be 'reference' or 'exact'; got {rounding!r}.")
        if not 0 <= relative_tolerance < 0.1:
            raise BadOption(f"relative_tolerance must be in [0, 0.1); got {relative_tolerance}.")
        if not 0 <= sympy_seconds <= 600:
            raise BadOption(f"sympy_seconds must be in [0, 600]; got {sympy_seconds}.")
        self._opinion = SecondOpinion(sympy_seconds) if sympy_seconds else None
        if self._opinion is not None:
            self.version = f"{type(self).version} ({self._opinion.version})"
            self.grade_seconds = type(self).grade_seconds + MOST_ASKED * BUSY * sympy_seconds
        self._forms: Sequence[str] = tuple(forms) if forms is not None else DEFAULT_FORMS
        self._lenient = lenient
        self._thinking_tags = tuple(thinking_tags or ())
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
        check_value(read_reference(reference))

    def reference_notes(self, reference: JSON) -> Sequence[str]:
        return notes_on(reference)

    def grade(self, row: GradingRow) -> Verdict:
        reference = reference_text(row.reference)
        if len(row.completion) <= MAX_REFERENCE_CHARS and row.completion.strip() == reference.strip():
            read_reference(row.reference)
            return _verdict(True, "identical", reference.strip(), reference, "bare")
        found = final_answer(row, self._forms, lenient=self._lenient, thinking_tags=self._thinking_tags)
        if found is None:
            read_reference(row.reference)
            return no_answer()
        form = found.form + (", repaired" if found.repaired else "")
        if len(found.boxes) <= 1:
            for tier, decide in _AT_ONCE:
                same = decide(reference, found.answer)
                if same is not None:
                    return _verdict(same, tier, found.answer, reference, form)
        gold = read_reference(row.reference)
        if len(found.answer) > MAX_REFERENCE_CHARS:
            return fixed(Outcome.LIMIT_EXCEEDED, "the answer is too long to read", answer=found.answer[:200], form=form)
        if not found.decimal_comma and (_COMMA_WITHIN.search(gold.text) or _COMMA_WITHIN.search(found.answer)):
            found = replace(found, decimal_comma=writes_decimal_comma(row.completion))
        result = self._compared(gold, found)
        if result.tier == "undecided":
            check_value(gold)
        if result.limited:
            return fixed(
                Outcome.LIMIT_EXCEEDED, result.limited, answer=_shown(found)[:200], form=form, tier=result.tier
            )
        return _verdict(result.equal, result.tier, _shown(found), reference, form)

    def _decided(self, gold: Node, answer: Node) -> Comparison:
        """Compare two trees, with SymPy's answers for pairs that are left undecided."""
        result = compare(gold, answer, self._policy)
        said: dict[Pair, bool] = {}
        asked = 0
        while self._opinion is not None and result.tier == "undecided" and asked < MOST_ASKED:
            pair = next((pair for pair in result.open if pair not in said and is_question(*pair)), None)
            if pair is None:
                break
            asked += 1
            opinion = self._opinion.ask(*pair)
            if opinion.startswith("limit"):
                return Comparison(False, "sympy", opinion.replace("limit", "SymPy reached its limit"))
            if opinion.startswith("unknown"):
                break
            said[pair] = opinion == "equal"
            result = compare(gold, answer, self._policy, said)
        return result

    def _compared(self, gold: ParsedReference, found: Extraction) -> Comparison:
        """Compare the answer with the reference: as parsed, then in its other readings, then as words."""
        first: Comparison | None = None
        for read_pair in _readings(gold, found):
            try:
                pair = read_pair(gold, found)
            except LimitExceeded as error:
                same = found.answer.strip() == gold.text.strip()
                return Comparison(same, "identical" if same else "limit", "" if same else str(error))
            except ParseError as error:
                same = as_written(found.answer) == gold.tree
                result = Comparison(same, "identical" if same else f"the answer cannot be read ({error})")
            else:
                if pair is None:
                    continue
                result = self._decided(*pair)
            if result.equal:
                return result
            first = first or result
        for tier, same_words in _AS_WORDS:
            if same_words(gold.text, found.answer):
                return Comparison(True, tier)
        assert first is not None, "an answer has at least one reading"
        return first


def _as_read(gold: ParsedReference, found: Extraction) -> Pair | None:
    """Return both trees as parsed; adjacent boxes are a list of answers."""
    if len(found.boxes) > 1:
        return gold.tree, Group(GroupKind.LIST, tuple(read(box) for box in found.boxes))
    answer = read(found.answer)
    letter = isinstance(gold.tree, Sym) and choice(gold.text) == gold.tree.name
    if letter and isinstance(answer, Mul | Add | Div | Neg | Pow):
        raise ParseError("a choice is one letter")  # A1 is not A
    return gold.tree, answer


def _with_decimal_comma(gold: ParsedReference, found: Extraction) -> Pair | None:
    """Read decimal commas: `Ответ: 1,5`, a reference `1,5` with an answer in such a language, and `3,5 m` in any."""
    wanted = _decimal_reference(gold, found)
    given = _decimal_answer(gold, found)
    try:
        if given is None and found.decimal_comma and _COMMA_NUMBER.match(found.answer):
            given = read(found.answer.replace(",", ".", 1))
        if wanted is None and given is None:
            return None
        return wanted or gold.tree, given or read(found.answer)
    except (ParseError, LimitExceeded):
        return None


def _decimal_answer(gold: ParsedReference, found: Extraction) -> Node | None:
    """Return an answer with a decimal comma, if its language or the reference uses one; else None."""
    return decimal(found.answer, by_language=found.decimal_comma or decimal(gold.text) is not None)


def _decimal_reference(gold: ParsedReference, found: Extraction) -> Node | None:
    by_language = found.decimal_comma and not groups_thousands(gold.text)
    return decimal(gold.text, by_language=by_language)


def _beside_its_label(gold: ParsedReference, found: Extraction) -> Pair | None:
    """Return the value of an answer with its label, the 12 of `(B) 12`; None without a label."""
    value = labelled_value(found.answer)
    return None if value is None else (gold.tree, value)


def _reference_beside_its_label(gold: ParsedReference, found: Extraction) -> Pair | None:
    """Return the value of a reference with its label, the 12 of `(B) 12`; None without a label."""
    value = labelled_value(gold.text) if choice(gold.text) else None
    try:
        return None if value is None else (value, read(found.answer))
    except (ParseError, LimitExceeded):
        return None


def _with_the_constant_e(gold: ParsedReference, found: Extraction) -> Pair | None:
    r"""Read the `2e-3` of `\frac{2e-3}{e}` as 2e - 3: it is 0.002 only if there is no other e in either text."""
    texts = [_POWER_OF_TEN.sub(" e ", text) for text in (gold.text, found.answer)]
    if texts == [gold.text, found.answer] or not any(map(_EULER.search, (gold.text, found.answer))):
        return None
    try:
        return read(texts[0]) if texts[0] != gold.text else gold.tree, read(texts[1])
    except (ParseError, LimitExceeded):
        return None


_POWER_OF_TEN = re.compile(r"(?<=\d)e(?=[-+]\d)")
_EULER = re.compile(r"(?<![A-Za-z\\\d])\d*e(?![A-Za-z\d]|[-+]\d)")
_COMMA_WITHIN = re.compile(r"\d,\d")
_COMMA_NUMBER = re.compile(r"\s*[-−]?\d{1,12},\d{1,12}(?![\d,])")
_READINGS: Sequence[Callable[[ParsedReference, Extraction], Pair | None]] = (
    _as_read,
    _with_decimal_comma,
    _beside_its_label,
    _reference_beside_its_label,
    _with_the_constant_e,
)
"""Readings of a reference and an answer, the plain one first; each returns None if it does not apply."""


def _readings(
    gold: ParsedReference, found: Extraction
) -> Sequence[Callable[[ParsedReference, Extraction], Pair | None]]:
    """Return the readings to try: not as a list of two values if the language makes both sides decimals."""
    if len(found.boxes) > 1:
        return _READINGS[:1]
    if found.decimal_comma and ";" in gold.text and ";" not in found.answer:  # 3,5 is not 3; 5
        return [reading for reading in _READINGS if reading is not _as_read or _decimal_answer(gold, found) is None]
    both = _decimal_reference(gold, found) is not None and _decimal_answer(gold, found) is not None
    return _READINGS[1:] if both else _READINGS


_AS_WORDS: Sequence[tuple[str, Callable[[str, str], bool]]] = (("words", same_prose), ("formula", same_formula))
"""Tier -> comparison of two texts that are not mathematics."""


def _shown(found: Extraction) -> str:
    """Return the answer for the verdict: all of several answers."""
    return ", ".join(found.boxes)[:MAX_REFERENCE_CHARS] if len(found.boxes) > 1 else found.answer


def _same_integer(reference: str, answer: str) -> bool | None:
    """Return True if two plain integers are equal; None if either text is something else."""
    if not _INTEGER.fullmatch(reference.strip()):
        return None
    stripped = answer.strip().strip("$").strip()
    if not _GROUPED_INTEGER.fullmatch(stripped):
        return None
    return int(reference) == int(stripped.replace("$", "").replace(",", "").split(".")[0])


_AT_ONCE: Sequence[tuple[str, Callable[[str, str], bool | None]]] = (
    ("integer", _same_integer),
    ("truth", same_truth),
    ("choice", same_choice),
    ("formula", other_elements),
)
"""Tier -> decision from the texts alone, or None to leave it open."""


def _verdict(same: bool, tier: str, answer: str, reference: str, form: str) -> Verdict:
    if same:
        return fixed(Outcome.CORRECT, f"equal to the reference by {tier}", answer=answer, form=form, tier=tier)
    shown = f"{answer[:80]!r} is not {reference[:80]!r} by {tier}"
    return fixed(Outcome.INCORRECT, shown, answer=answer, form=form, tier=tier)
