"""The reference answer of a problem: read once, checked, with notes on what it is graded as."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from verifiers.answers.boxed import boxed, boxes
from verifiers.answers.escapes import halved, mended
from verifiers.answers.find import extract_answer
from verifiers.errors import BadReference
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
    Node,
    Num,
    Pow,
    Relation,
    Sym,
    Text,
    children,
    contains,
    symbols,
)
from verifiers.mathematics.reading.reader import clean, read, read_verbatim
from verifiers.verdict import JSON


class Gold(NamedTuple):
    """A reference as it is graded."""

    text: str
    """What was written, as it was given."""
    tree: Node
    notes: tuple[str, ...]
    """What a person should know of it: what it is graded as where that may surprise."""


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


def read_reference(reference: JSON) -> Gold:
    """The reference's tree, with notes.

    Raises:
        BadReference: it cannot be read, or no answer but itself could be told from it.
    """
    return _read(reference_text(reference))


@lru_cache(maxsize=4096)
def _read(text: str) -> Gold:
    notes: list[str] = []
    whole = mended(text)
    if whole != text:
        doubled = halved(text) != text
        notes.append(
            "its doubled backslashes are read as single ones" if doubled else "its lost backslashes are mended"
        )
    tree = _several_boxes(whole, notes)
    if tree is None:
        tree = _tree(_declared_part(whole), text)
    if _is_undefined(tree):
        raise BadReference(f"reference must have a value, so that answers can be told from it; got {text[:80]!r}.")
    if kind := undecidable(tree):
        notes.append(f"it holds {kind}, which is not worked out: graded as the same one, anything else is undecided")
    notes += _statement_notes(tree)
    return Gold(text, tree, tuple(notes))


def _is_undefined(tree: Node) -> bool:
    """Whether a part of the reference is a constant without a value."""
    if not isinstance(tree, EXPRESSION):
        return any(map(_is_undefined, children(tree)))
    if not contains(tree, _PARTIAL):
        return False
    return constants.literal(tree) is None and is_undefined(tree)


_PARTIAL = (Div, Pow, Call)
"""What may have no value."""


def _declared_part(text: str) -> str:
    """The answer within a reference that is a whole solution; the text without delimiters elsewhere."""
    if "####" in text or "\\boxed" in text:
        found = extract_answer(text, forms=("boxed", "hashes"))
    elif "answer is" in text.lower():
        found = extract_answer(text, forms=("declared",))
    else:
        found = None
    return found.answer if found else clean(text)


def _several_boxes(text: str, notes: list[str]) -> Node | None:
    """The list that boxes side by side are; a note where boxes stand apart."""
    if text.count("boxed") < 2:
        return None
    every = [box.content.strip() for box in boxes(text)]
    found = boxed(text)
    if found is None or len(every) < 2:
        return None
    if len(found.boxes) > 1:
        try:
            items = tuple(read(content) for content in found.boxes)
        except (ParseError, LimitExceeded):
            return None
        notes.append(f"its {len(items)} boxes are graded as one list of {len(items)} answers")
        return Group(GroupKind.LIST, items)
    if len(set(every)) > 1:
        notes.append(f"of its {len(every)} boxes the last one is graded: {found.answer[:40]!r}")
    return None


def _tree(cleaned: str, text: str) -> Node:
    try:
        return read(cleaned)
    except ParseError as error:
        verbatim = as_written(cleaned)
        if verbatim is not None:
            return verbatim
        raise BadReference(f"reference cannot be read as mathematics ({error}); got {text[:80]!r}.") from error
    except LimitExceeded as error:
        raise BadReference(f"reference cannot be read as mathematics ({error}); got {text[:80]!r}.") from error


def as_written(text: str) -> Node | None:
    """The tokens of a text outside the grammar, equal to nothing but themselves; None where it has none."""
    try:
        return read_verbatim(text)
    except (ParseError, LimitExceeded):
        return None


_TRIVIAL: tuple[tuple[str, Node], ...] = (
    ("0=0", Relation((Num(0), Num(0)), ("=",))),
    ("x=x", Relation((Sym("x"), Sym("x")), ("=",))),
)


def _statement_notes(tree: Node) -> list[str]:
    """What there is to know of a reference that states something instead of naming a value."""
    zero = isinstance(tree, EXPRESSION) and compare(tree, Num(0)).equal
    notes = [
        f"the empty statement {written} satisfies it"
        for written, node in _TRIVIAL
        if not zero and compare(tree, node).equal
    ]
    if isinstance(tree, Relation) and set(tree.ops) == {"="} and not symbols(tree):
        notes.append("it is a statement about numbers: graded as the value on its right, or as the same statement")
    elif isinstance(tree, Relation) and set(tree.ops) == {"="} and _is_identity(tree):
        notes.append("it is an identity: graded as the same statement, side by side")
    elif isinstance(tree, Relation) and not symbols(tree):
        notes.append("it is a comparison of numbers: graded as the same comparison, side by side")
    elif isinstance(tree, Text) and re.search(r"\b(?:answers?|solution)s?\b.*\bvary\b|\bproof\b", " ".join(tree.words)):
        notes.append("it is no answer, but a remark")
    return notes


def _is_identity(tree: Relation) -> bool:
    left, right = tree.sides[0], tree.sides[-1]
    return not isinstance(left, Sym) and symbols(left) == symbols(right) and compare(left, right).equal
