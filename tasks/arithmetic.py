"""Procedural arithmetic with worked steps, of graded difficulty: easy enough for a model trained from scratch."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from tasks.base import Problem, Task, TaskError


class Worked(NamedTuple):
    """A question, its worked steps, its answer, and its difficulty (0 easiest, 1 hardest of its family)."""

    question: str
    steps: tuple[str, ...]
    answer: int
    difficulty: float


class Arithmetic(Task):
    """Questions such as `47+85=?`, answered by written-out steps and `#### 132`.

    Args:
        family: addition, subtraction, multiplication (by one digit), or chain (several sums and differences).
        digits: digits of each operand.
        terms: number of operands of a chain.
        demonstrations: worked (every one shows its steps) or mixed (about one in two gives the answer at once).
        train_size: problems of the training split; fewer if the family has fewer.
        test_size: problems of the test split; fewer if the family has fewer.
        seed: seed of the random draw. The split of a question depends on the question alone, not on the seed.
    Raises:
        TaskError: unknown family, or an option out of range.
    """

    name = "arithmetic"

    def __init__(
        self,
        *,
        family: str = "addition",
        digits: int = 2,
        terms: int = 3,
        demonstrations: str = "worked",
        train_size: int = 20_000,
        test_size: int = 1_000,
        seed: int = 0,
    ) -> None:
        if family not in FAMILIES:
            raise TaskError(f"family must be one of {', '.join(FAMILIES)}; got {family!r}.")
        if not 1 <= digits <= 12:
            raise TaskError(f"digits must be between 1 and 12; got {digits}.")
        if not 2 <= terms <= 8:
            raise TaskError(f"terms must be between 2 and 8; got {terms}.")
        if demonstrations not in ("worked", "mixed"):
            raise TaskError(f"demonstrations must be worked or mixed; got {demonstrations!r}.")
        self._mixed = demonstrations == "mixed"
        self._family, self._digits, self._terms = family, digits, terms
        self._label = f"{family}-{digits}"
        self._sizes = {"train": train_size, "test": test_size}
        self._seed = seed

    def problems(self, split: str) -> Sequence[Problem]:
        if split not in self._sizes:
            raise TaskError(f"split must be train or test; got {split!r}.")
        return _problems(self, split)

    def draw(self, split: str) -> list[Problem]:
        """Draw distinct questions of a split until there are enough, or 2,000 draws in a row bring no new one."""
        source = random.Random(f"{self._seed} {self._label} {split}")
        found: dict[str, Worked] = {}
        misses = 0
        patience = 2_000
        while len(found) < self._sizes[split] and misses < patience:
            worked = FAMILIES[self._family](source, self._digits, self._terms)
            if split_of(worked.question) != split or worked.question in found:
                misses += 1
                continue
            misses = 0
            found[worked.question] = worked
        return [self._problem(worked) for worked in found.values()]

    def _problem(self, worked: Worked) -> Problem:
        steps = () if self._mixed and digest_byte(worked.question, 1) % 2 == 0 else worked.steps
        return Problem(
            id=f"{self._label}/{worked.question}",
            prompt=f"{worked.question}=?\n",
            reference=str(worked.answer),
            verifier="exact",
            difficulty=worked.difficulty,
            demonstration="".join(f"{step}\n" for step in steps) + f"#### {worked.answer}",
            task=self.name,
        )


@cache
def _problems(task: Arithmetic, split: str) -> Sequence[Problem]:
    return task.draw(split)


def split_of(question: str) -> str:
    """Return the split of a question: test for one in ten, by its digest. Seed and sizes do not change it."""
    return "test" if digest_byte(question, 0) % 10 == 0 else "train"


def digest_byte(question: str, byte: int) -> int:
    """Return one of the four bytes of a question's digest."""
    return hashlib.blake2b(question.encode(), digest_size=4).digest()[byte]


def _number(source: random.Random, digits: int) -> int:
    return source.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)


def addition(source: random.Random, digits: int, terms: int = 2) -> Worked:
    """Add column by column from the right. A step adds two digits and the carry; its sum has two digits.

    `terms` is not used.

    Example:
        >>> addition(random.Random(7), 2).steps  # 51+29
        ('1+9+0=10', '5+2+1=08')
    """
    left, right = _number(source, digits), _number(source, digits)
    steps: list[str] = []
    carry = carries = 0
    for place in range(digits):
        a, b = left // 10**place % 10, right // 10**place % 10
        total = a + b + carry
        steps.append(f"{a}+{b}+{carry}={total:02}")
        carry = total // 10
        carries += carry
    return Worked(f"{left}+{right}", tuple(steps), left + right, carries / digits)


def subtraction(source: random.Random, digits: int, terms: int = 2) -> Worked:
    """Subtract column by column from the right, with borrows. The result is never negative."""
    left, right = sorted((_number(source, digits), _number(source, digits)), reverse=True)
    steps: list[str] = []
    borrow = borrows = 0
    for place in range(digits):
        a, b = left // 10**place % 10 - borrow, right // 10**place % 10
        borrow = int(a < b)
        borrows += borrow
        steps.append(f"{a + 10}-{b}={a + 10 - b} borrow 1" if borrow else f"{a}-{b}={a - b}")
    return Worked(f"{left}-{right}", tuple(steps), left - right, borrows / digits)


def multiplication(source: random.Random, digits: int, terms: int = 2) -> Worked:
    """Multiply by one digit: one partial product per nonzero digit, then their sum."""
    left, right = _number(source, digits), source.randrange(2, 10)
    parts = [(left // 10**place % 10) * 10**place for place in range(digits)]
    steps = [f"{part}*{right}={part * right}" for part in parts if part]
    products = [part * right for part in parts if part]
    if len(products) > 1:
        steps.append("+".join(map(str, products)) + f"={left * right}")
    return Worked(f"{left}*{right}", tuple(steps), left * right, (right - 2) / 7)


def chain(source: random.Random, digits: int, terms: int = 3) -> Worked:
    """Add and subtract from left to right, one operation per line. Partial results are never negative."""
    total = _number(source, digits)
    question = str(total)
    steps: list[str] = []
    for _ in range(terms - 1):
        operand = _number(source, digits)
        sign = "-" if operand <= total and source.random() < 0.5 else "+"
        following = total + operand if sign == "+" else total - operand
        steps.append(f"{total}{sign}{operand}={following}")
        question += f"{sign}{operand}"
        total = following
    return Worked(question, tuple(steps), total, question.count("-") / (terms - 1))


FAMILIES: Mapping[str, Callable[[random.Random, int, int], Worked]] = {
    "addition": addition,
    "subtraction": subtraction,
    "multiplication": multiplication,
    "chain": chain,
}
