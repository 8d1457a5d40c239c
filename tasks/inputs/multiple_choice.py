"""Multiple choice in the layouts of widely used data sets: the question, the choices, and which one is right."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tasks.inputs.formats import UnfitRow
from tasks.inputs.values import find, is_list, is_object, is_text, joined, need_text, texts

Row = Mapping[str, object]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
QUESTION = ("question", "question_stem", "problem", "query", "prompt")
CONTEXT = ("article", "passage", "context")
LISTED = ("choices", "options", "answer_choices")
RIGHT = (
    "answerkey",
    "answer_idx",
    "answer_index",
    "correct_option",
    "correct",
    "cop",
    "answer",
    "label",
    "target",
    "gold",
)
"""Columns that say which choice is right, the most reliable first."""
LABELLED = re.compile(r"^\s*\(?([A-Z])[).:]\s*(?=\S)")
"""A choice that starts with its own letter: "A) 21"."""
INSTRUCTION = "Answer with the letter of the right choice."


class Choices(NamedTuple):
    """The choices and their labels."""

    labels: Sequence[str]
    texts: Sequence[str]


def is_multiple_choice(row: Row) -> bool:
    """Return True if a row has a question, choices, and a column that says which is right."""
    if not is_text(find(row, *QUESTION, "question")):
        return False
    try:
        return _right(row, _choices(row)) is not None
    except UnfitRow:
        return False


def read_multiple_choice(row: Row) -> Row:
    """Return the row as {prompt, reference}: choices listed by letter under the question, and a reference for `choice`.

    Raises:
        UnfitRow: it has no choices, or does not say which is right.
    """
    choices = _choices(row)
    right = _right(row, choices)
    if right is None:
        raise UnfitRow(f"does not say which of its {len(choices.texts)} choices is right (columns: {', '.join(row)})")
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, choices.texts, strict=False))
    question = joined(find(row, *CONTEXT), need_text(row, *QUESTION))
    once = len({" ".join(text.split()).casefold() for text in choices.texts}) == len(choices.texts)
    answer = choices.texts[right] if once else LETTERS[right]
    return {
        **row,
        "prompt": f"{question}\n\n{listed}\n\n{INSTRUCTION}",
        "reference": {"answer": answer, "choices": [*choices.texts]},
    }


def _choices(row: Row) -> Choices:
    given = find(row, *LISTED)
    if is_object(given) and "text" in given:
        found, labels = texts(given.get("text")), texts(given.get("label"))
    elif is_object(given):
        found, labels = texts([*given.values()]), [str(key) for key in given]
    elif is_list(given) and given and all(is_object(one) and "text" in one for one in given):
        found = texts([one["text"] for one in given if is_object(one)])
        labels = texts([one.get("label") for one in given if is_object(one)])
    elif is_list(given):
        found, labels = _unlettered(given)
    else:
        return _in_columns(row)
    if not found or not 2 <= len(found) <= len(LETTERS):
        raise UnfitRow(f"must have 2 to {len(LETTERS)} choices; got {str(given)[:80]}")
    return Choices(labels if labels and len(labels) == len(found) else LETTERS[: len(found)], found)


def _unlettered(given: list[object]) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """Return the choices without their own letters, and the letters; the choices unchanged and None unless all have
    one.
    """
    found = texts(given)
    marks = [LABELLED.match(text) for text in found or ()]
    if not found or not all(marks) or "".join(m[1] for m in marks if m) != LETTERS[: len(marks)]:
        return found, None
    return [text[m.end() :] for text, m in zip(found, marks, strict=True) if m], None


def _in_columns(row: Row) -> Choices:
    """Return choices from columns of their own: A, B, C, D; opa, opb, ...; a correct answer and incorrect ones."""
    lower = {str(key).strip().lower(): value for key, value in row.items()}
    for names in ("abcdefghij", [f"op{letter}" for letter in "abcde"], [f"option_{letter}" for letter in "abcde"]):
        found = [str(lower[name]) for name in names if lower.get(name) is not None]
        if len(found) >= 2 and list(names)[: len(found)] == [name for name in names if lower.get(name) is not None]:
            return Choices(LETTERS[: len(found)], found)
    right = lower.get("correct answer", lower.get("correct_answer"))
    wrong = [lower[key] for key in sorted(lower) if re.fullmatch(r"(incorrect answer |distractor)\d", key)]
    if is_text(right) and wrong and all(map(is_text, wrong)):
        shuffled = sorted([right, *map(str, wrong)], key=lambda text: hashlib.blake2b(text.encode()).digest())
        return Choices(LETTERS[: len(shuffled)], shuffled)
    raise UnfitRow(f"has no choices (columns: {', '.join(map(str, row))})")


def _right(row: Row, choices: Choices) -> int | None:
    """Return the index of the right choice; None if no column says it."""
    correct = find(row, "correct answer", "correct_answer")
    if is_text(correct) and correct in choices.texts and find(row, *LISTED) is None:
        return [*choices.texts].index(correct)
    for name in RIGHT:
        said = find(row, name)
        if said is None or isinstance(said, bool):
            continue
        place = _place(said, choices)
        if place is not None:
            return place
    return None


def _place(said: object, choices: Choices) -> int | None:
    """Return the index of a choice given by label, by text, or by number from 0; None if it is none of these."""
    if isinstance(said, str):
        for known in (choices.labels, choices.texts):
            same = [at for at, one in enumerate(known) if one.strip() == said.strip()]
            if len(same) == 1:
                return same[0]
        letter = said.strip().strip("().").upper()
        if len(letter) == 1 and letter in LETTERS[: len(choices.texts)]:
            return LETTERS.index(letter)
        said = int(said) if re.fullmatch(r"\d{1,2}", said.strip()) else said
    return said if isinstance(said, int) and 0 <= said < len(choices.texts) else None


__all__ = ["is_multiple_choice", "read_multiple_choice"]
