"""The game of 24: make 24 from four numbers, each used once, with + - * and /."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

from tasks.arithmetic import split_of
from tasks.base import BadRow, Problem, TaskError, UnusableRow
from tasks.drawing import columns, has_test, split_rows, text_of_first
from tasks.row_task import RowTask, made

TARGET = 24


class Game24(RowTask):
    """Every solvable hand of four numbers, or the hands of a file; graded by `countdown` with exact fractions.

    Args:
        path: rows {question: "3 3 5 12", answer: [{text: "... The answer is EXPRESSION = 24"}]}, a file or a folder
            with game24_test.jsonl[.gz]; None: all solvable hands of numbers up to `largest`.
        largest: largest number in a hand; 13 as in a pack of cards.
        instruction: the prompt; {numbers} is replaced by the numbers.
    Raises:
        TaskError: an option out of range, or an instruction without {numbers}.
    """

    name = "game24"

    def __init__(
        self,
        *,
        path: str | None = None,
        largest: int = 13,
        instruction: str = (
            "Use each of the numbers {numbers} exactly once, with + - * / and brackets, to make 24.\n"
            "Give the final expression after ####."
        ),
    ) -> None:
        if "{numbers}" not in instruction:
            raise TaskError("instruction must contain {numbers}.")
        if not 1 <= largest <= 30:
            raise TaskError(f"largest must be between 1 and 30; got {largest}.")
        self._path, self._largest, self._instruction = path, largest, instruction

    def read(self, split: str) -> Iterator[Problem | BadRow]:
        """Yield the problems of a split, generated here or read from `path`. Their ids are the hands."""
        if self._path is None:
            for hand in solvable(self._largest):
                if split_of(f"game24/{hand}") == split and (solution := solve(hand)):
                    yield self._problem(hand, f"#### {solution}")
            return
        rows = split_rows(self._path, name=self.name, split=split)
        yield from made(rows, lambda row, number: self._from_row(*columns(row, "question", "answer")))

    def source(self) -> str | None:
        """Return the path if it has no test split, else None."""
        return None if self._path is None or has_test(self._path, name=self.name) else self._path

    def _from_row(self, question: object, answers: object) -> Problem:
        try:
            hand = tuple(int(number) for number in str(question).split())
            demonstration = text_of_first(answers)
        except ValueError as error:
            raise UnusableRow(f"must have numbers and a list of answers with text: {error}") from error
        return self._problem(hand, demonstration)

    def _problem(self, hand: tuple[int, ...], demonstration: str) -> Problem:
        return Problem(
            id=f"game24/{' '.join(map(str, hand))}",
            prompt=self._instruction.replace("{numbers}", ", ".join(map(str, hand))) + "\n",
            reference={"numbers": [*hand], "target": TARGET},
            verifier="countdown",
            demonstration=demonstration,
            task=self.name,
        )


@cache
def solvable(largest: int) -> list[tuple[int, ...]]:
    """Return the hands of four numbers up to `largest`, in rising order, that can make 24 (1,362 of 1,820 for 13)."""
    hands = itertools.combinations_with_replacement(range(1, largest + 1), 4)
    return [hand for hand in hands if solve(hand) is not None]


@cache
def solve(hand: tuple[int, ...]) -> str | None:
    """Return an expression that makes 24, or None. Searches with floats; the verifier checks with exact fractions.

    Example:
        >>> solve((3, 3, 8, 8))
        '8/(3-(8/3))'
    """
    return _reach([(float(number), str(number)) for number in hand])


def _reach(values: list[tuple[float, str]]) -> str | None:
    if len(values) == 1:
        value, expression = values[0]
        found = abs(value - TARGET) < 1e-6
        return expression.removeprefix("(").removesuffix(")") if found and _wraps(expression) else None
    for i, j in itertools.permutations(range(len(values)), 2):
        (a, left), (b, right) = values[i], values[j]
        rest = [value for at, value in enumerate(values) if at not in (i, j)]
        results = [(a - b, f"({left}-{right})")]
        if i < j:
            results += [(a + b, f"({left}+{right})"), (a * b, f"({left}*{right})")]
        if abs(b) > 1e-9:
            results.append((a / b, f"({left}/{right})"))
        for result in results:
            found = _reach([*rest, result])
            if found is not None:
                return found
    return None


def _wraps(expression: str) -> bool:
    """Return True if the text is in brackets, as the result of every operation on two numbers is written."""
    return expression.startswith("(") and expression.endswith(")")
