"""The reference answer of a problem: parsed once, checked, with notes on how it is graded."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from verifiers.answers.boxed import boxed, boxes
from verifiers.answers.escapes import halve_backslashes, repair_escapes
from verifiers.answers.find import extract_answer
from verifiers.errors import BadReference
from verifiers.mathematics import integrals
from verifiers.mathematics.equality import constants
from verifiers.mathematics.equality.compare import compare, undecidable
from verifiers.mathematics.equality.probes import is_undefined
from verifiers.mathematics.limits import MAX_REFERENCE_CHARS, LimitExceeded, ParseError
from verifiers.mathematics.nodes import (
    EXPRESSION,
    Call,
    Div,
    Group,
    GroupKind,
    Neg,
    Node,
    Num,
    Pow,
    Quantity,
    Relation,
    Sym,
    Text,
    children,
    contains,
    symbols,
)
from verifiers.mathematics.reading.commas import with_points
from verifiers.mathematics.reading.foreign import words_of_another_script
from verifiers.mathematics.reading.reader import clean, read, read_verbatim
from verifiers.mathematics.wordings import truth
from verifiers.verdict import JSON


class ParsedReference(NamedTuple):
    """A parsed reference answer."""

    text: str
    """The original text."""
    tree: Node


def reference_text(reference: JSON) -> str:
    """Return the reference as text; numbers are taken as written.

    Raises:
        BadReference: it is neither text nor a number, or is empty or over the length limit.
    """
    if isinstance(reference, int | float) and not isinstance(reference, bool):
        return str(int(reference)) if isinstance(reference, float) and reference.is_integer() else str(reference)
    if not isinstance(reference, str) or not reference.strip():
        raise BadReference(f"reference must be a non-empty string; got {str(reference)[:80]!r}.")
    if len(reference) > MAX_REFERENCE_CHARS:
        raise BadReference(f"reference must have at most {MAX_REFERENCE_CHARS} characters; got {len(reference)}.")
    return reference


def read_reference(reference: JSON) -> ParsedReference:
    """Parse a reference.

    Raises:
        BadReference: it cannot be parsed.
    """
    return _read(reference_text(reference))


@lru_cache(maxsize=4096)
def _read(text: str) -> ParsedReference:
    whole = repair_escapes(text)
    found = _side_by_side(whole)
    return ParsedReference(text, Group(GroupKind.LIST, found) if found else _tree(_declared_part(whole), text))


def check_value(gold: ParsedReference) -> None:
    """Check that answers can be compared with a reference.

    Raises:
        BadReference: a part of it is a constant without a value, or an integral without a variable.
    """
    if _is_undefined(gold.tree):
        raise BadReference(
            f"reference must have a value, so that answers can be compared with it; got {gold.text[:80]!r}."
        )
    if integrals.lacks_a_variable(gold.tree):
        raise BadReference(f"reference must name the variable of its integral (dx); got {gold.text[:80]!r}.")


def notes_on(reference: JSON) -> list[str]:
    """Return notes for the user on how a reference is graded, if that may be surprising.

    Raises:
        BadReference: it cannot be parsed, or has no value.
    """
    gold = read_reference(reference)
    check_value(gold)
    whole = repair_escapes(gold.text)
    found: list[str] = []
    if whole != gold.text:
        doubled = halve_backslashes(gold.text) != gold.text
        found.append(
            "its doubled backslashes are read as single ones" if doubled else "its lost backslashes are restored"
        )
    found += _notes_on_boxes(whole)
    if kind := undecidable(gold.tree):
        found.append(f"it has {kind}: graded as the same one, or by SymPy within its limit")
    return found + _notes_on_statements(gold.tree)


def _is_undefined(tree: Node) -> bool:
    if not isinstance(tree, EXPRESSION):
        return any(map(_is_undefined, children(tree)))
    return contains(tree, (Div, Pow, Call)) and constants.literal(tree) is None and is_undefined(tree)


def _declared_part(text: str) -> str:
    """Return the answer declared in a reference that is a whole solution; otherwise the text without delimiters."""
    if "####" in text or "\\boxed" in text:
        found = extract_answer(text, forms=("boxed", "hashes"))
    elif "answer is" in text.lower():
        found = extract_answer(text, forms=("declared",))
    else:
        found = None
    return found.answer if found else clean(text)


def _side_by_side(text: str) -> tuple[Node, ...]:
    """Return the answers in adjacent boxes; empty for one box, or for separate boxes."""
    found = boxed(text) if text.count("boxed") > 1 else None
    try:
        return tuple(read(content) for content in found.boxes) if found and len(found.boxes) > 1 else ()
    except (ParseError, LimitExceeded):
        return ()


def _notes_on_boxes(text: str) -> list[str]:
    contents = [box.content.strip() for box in boxes(text)] if text.count("boxed") > 1 else []
    if len(set(contents)) < 2:
        return []
    if items := _side_by_side(text):
        return [f"its {len(items)} boxes are graded as one list of {len(items)} answers"]
    return [f"of its {len(contents)} boxes the last one is graded: {contents[-1][:40]!r}"]


def _tree(cleaned: str, text: str) -> Node:
    try:
        return decimal(cleaned) or read(cleaned)
    except ParseError as error:
        verbatim = Text((cleaned.lower(),)) if truth(cleaned) is not None else as_written(cleaned)
        if verbatim is not None:
            return verbatim
        raise BadReference(f"reference cannot be read as mathematics ({error}); got {text[:80]!r}.") from error
    except LimitExceeded as error:
        raise BadReference(f"reference cannot be read as mathematics ({error}); got {text[:80]!r}.") from error


def decimal(text: str, *, by_language: bool = False) -> Node | None:
    """Parse `3,5 m` with a decimal comma; None if its comma is not decimal, or may separate two values."""
    pointed = with_points(text, by_language=by_language)
    try:
        tree = None if pointed is None else read(pointed)
    except (ParseError, LimitExceeded):
        return None
    measured = isinstance(tree, Quantity) and bool(tree.unit.dimension)
    percent = isinstance(tree, Call) and tree.name == "percent"
    return tree if by_language or measured or percent or isinstance(tree, Num | Neg) else None


def as_written(text: str) -> Node | None:
    """Return the tokens of a text outside the grammar, which equal only themselves; None if it has none."""
    try:
        return read_verbatim(text)
    except ParseError:
        words = words_of_another_script(text)
        return Text(words) if words else None
    except LimitExceeded:
        return None


_TRIVIAL: tuple[tuple[str, Node], ...] = (
    ("0=0", Relation((Num(0), Num(0)), ("=",))),
    ("x=x", Relation((Sym("x"), Sym("x")), ("=",))),
)


def _notes_on_statements(tree: Node) -> list[str]:
    """Return notes on a reference that states something instead of naming a value."""
    if isinstance(tree, Text) and re.search(r"\banswers?\b.*\bvary\b|\bproof\b", " ".join(tree.words)):
        return ["it is not an answer but a remark: graded as these words"]
    if not contains(tree, Relation):
        return []
    notes = [f"the empty statement {written} satisfies it" for written, node in _TRIVIAL if compare(tree, node).equal]
    return notes + ([kind] if (kind := _kind_of_statement(tree)) else [])


def _kind_of_statement(tree: Node) -> str:
    if not isinstance(tree, Relation):
        return ""
    equation = set(tree.ops) == {"="}
    if equation and not symbols(tree):
        return "it is a statement about numbers: graded as the value on its right, or as the same statement"
    if equation and _is_identity(tree):
        return "it is an identity: graded as the same statement, side by side"
    return "" if symbols(tree) else "it is a comparison of numbers: graded as the same comparison, side by side"


def _is_identity(tree: Relation) -> bool:
    left, right = tree.sides[0], tree.sides[-1]
    return not isinstance(left, Sym) and symbols(left) == symbols(right) and compare(left, right).equal
