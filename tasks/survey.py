"""Counts over all rows of a data set, of any size: duplicates, contradictions, rows shared by two splits.

Memory is 24 bytes per row: a digest of its prompt, a digest of its reference answer, and its number.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from tasks.held_out import prompt_digest
from tasks.leak import final_answer
from verifiers import JSON

SHOWN = 3
"""Number of rows that are named as examples."""
NUMBER = re.compile(r"([-+]?\d{1,30}(?:\.\d{1,30})?)(?:/(\d{1,30}))?")
Sorted = np.ndarray[tuple[int], np.dtype[np.uint64]]


class Repeats(NamedTuple):
    """Rows with the prompt of another row."""

    duplicates: int
    """Number of rows that repeat an earlier one, answer included."""
    contradictions: int
    """Number of rows whose answer differs from that of the first row with the same prompt."""
    duplicate_rows: list[tuple[int, int]]
    """The first few, as (earlier row, later row)."""
    contradiction_rows: list[tuple[int, int]]
    prompts: int
    """Number of different prompts."""
    sharing: int
    """Number of rows with a prompt that another row has."""
    contradicting: int
    """Number of rows with a prompt that has different answers."""


class Survey:
    """Digests of the rows added so far.

    Example:
        >>> survey = Survey()
        >>> for number, (asked, right) in enumerate([("2+2?", "4"), ("2 + 2?", "5"), ("2+2?", "4.0"), ("2+2?", "5")]):
        ...     survey.add(number, asked=text_digest(asked), right=answer_digest(right))
        >>> survey.repeats().duplicates, survey.repeats().contradictions
        (1, 1)
    """

    def __init__(self) -> None:
        self._asked, self._right, self._numbers = array("Q"), array("Q"), array("Q")

    def __len__(self) -> int:
        return len(self._asked)

    def add(self, number: int, *, asked: int, right: int) -> None:
        """Add a row: the 64-bit digests of its prompt (`asked`) and of its reference answer (`right`)."""
        self._asked.append(asked)
        self._right.append(right)
        self._numbers.append(number)

    def repeats(self) -> Repeats:
        """Return the duplicates and contradictions among all rows."""
        asked, right, numbers = (np.frombuffer(one, dtype=np.uint64) for one in self._columns())
        order = np.argsort(asked, kind="stable")  # rows with the same prompt, in the order of the data
        asked, right, numbers = asked[order], right[order], numbers[order]
        begins = np.flatnonzero(np.concatenate(([True], asked[1:] != asked[:-1]))) if len(asked) else np.zeros(0, int)
        first = np.repeat(begins, np.diff(np.append(begins, len(asked))))
        later = np.arange(len(asked)) != first
        same = later & (right == right[first])
        other = later & ~same
        sizes = np.diff(np.append(begins, len(asked)))
        differ = np.add.reduceat(other, begins, dtype=np.int64) > 0 if len(asked) else np.zeros(0, bool)
        return Repeats(
            int(same.sum()),
            int(other.sum()),
            *(self._examples(numbers, first, np.flatnonzero(which)) for which in (same, other)),
            prompts=len(begins),
            sharing=int(sizes[sizes > 1].sum()),
            contradicting=int(sizes[differ].sum()),
        )

    def shared(self, other: Survey) -> tuple[int, list[int]]:
        """Return the number of rows whose prompt is also in another survey, and the numbers of the first few."""
        asked, numbers = (np.frombuffer(one, dtype=np.uint64) for one in (self._asked, self._numbers))
        both = np.flatnonzero(np.isin(asked, np.frombuffer(other._asked, dtype=np.uint64)))
        return len(both), [int(numbers[place]) for place in both[:SHOWN]]

    def _columns(self) -> tuple[array[int], array[int], array[int]]:
        return self._asked, self._right, self._numbers

    @staticmethod
    def _examples(numbers: Sorted, first: np.ndarray, places: np.ndarray) -> list[tuple[int, int]]:
        chosen = sorted((int(numbers[first[place]]), int(numbers[place])) for place in places[: 1000 * SHOWN])
        return chosen[:SHOWN]


def text_digest(*texts: str) -> int:
    """Return a 64-bit digest that is equal for texts that differ only in case and white space."""
    return prompt_digest("\n".join(texts))


def answer_digest(reference: JSON) -> int:
    """Return a 64-bit digest that is equal for equivalent reference answers: 0.5 and 1/2, a solution and its final
    answer.
    """
    text = reference
    if isinstance(text, str):
        text = final_answer(text)
    elif isinstance(text, bool) or not isinstance(text, int | float):
        text = json.dumps(reference, sort_keys=True, ensure_ascii=True)
    text = str(text)
    found = NUMBER.fullmatch(text)
    if found and (found[2] is None or int(found[2])):
        text = str(Fraction(found[1]) / int(found[2] or 1))
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


__all__ = ["Repeats", "Survey", "answer_digest", "text_digest"]
