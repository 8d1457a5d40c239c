"""A cell of answers, as the data sets of puzzles hold it."""

from __future__ import annotations

from verifiers.jsonl import is_list, is_object


def text_of_first(answers: object) -> str:
    """Return the text of the first of a list of answers, which are objects with a text.

    Raises:
        ValueError: it is no such list.
    """
    first = answers[0] if is_list(answers) and answers else None
    if not is_object(first) or "text" not in first:
        raise ValueError(f"got {str(answers)[:80]!r}")
    return str(first["text"])


__all__ = ["text_of_first"]
