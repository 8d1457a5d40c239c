"""Problems that need a tool: products of large numbers, and sums of series. Made for small models from scratch."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from tasks.arithmetic import digest_byte, split_of
from tasks.base import Problem, Task, TaskError, Turn
from verifiers import JSON


class Asked(NamedTuple):
    """A question, the expression that a tool is asked for, and the answer."""

    question: str
    expression: str
    answer: int


class ToolProblems(Task):
    """Products such as `4812*9307=` (environment calculator) or sums such as `sum of k*k+3*k for k from 12 to 57=`.

    Args:
        family: product (the tool is a calculator called as `<4812*9307>`) or series (the tool is Python, called with a
            fenced block).
        digits: of each number of a product.
        demonstrations: mixed (about half call the tool, half give the answer at once), calling, or direct.
        tool_options: options of the environment, over the family's own.
        train_size: problems of the training split.
        test_size: problems of the test split.
        seed: of the draw; the split of a question depends on the question alone.
    """

    name = "tool_problems"

    def __init__(
        self,
        *,
        family: str = "product",
        digits: int = 4,
        demonstrations: str = "mixed",
        tool_options: dict[str, JSON] | None = None,
        train_size: int = 20_000,
        test_size: int = 1_000,
        seed: int = 0,
    ) -> None:
        if family not in FAMILIES:
            raise TaskError(f"family must be one of {', '.join(FAMILIES)}; got {family!r}.")
        if not 1 <= digits <= 12:
            raise TaskError(f"digits must be between 1 and 12; got {digits}.")
        if demonstrations not in ("mixed", "calling", "direct"):
            raise TaskError(f"demonstrations must be mixed, calling or direct; got {demonstrations!r}.")
        self._family, self._digits, self._demonstrations = FAMILIES[family], digits, demonstrations
        self._label = f"{family}-{digits}"
        self._options = {**self._family.options, **(tool_options or {})}
        self._sizes = {"train": train_size, "test": test_size}
        self._seed = seed

    def problems(self, split: str) -> Sequence[Problem]:
        if split not in self._sizes:
            raise TaskError(f"split must be train or test; got {split!r}.")
        return _problems(self, split)

    def draw(self, split: str) -> list[Problem]:
        """Draw distinct questions of a split until there are enough, or 2,000 draws in a row bring nothing new."""
        source = random.Random(f"{self._seed} {self._label} {split}")
        found: dict[str, Asked] = {}
        misses = 0
        while len(found) < self._sizes[split] and misses < 2_000:
            asked = self._family.draw(source, self._digits)
            misses += 1
            if split_of(asked.question) == split and asked.question not in found:
                found[asked.question] = asked
                misses = 0
        return [self._problem(asked) for asked in found.values()]

    def _problem(self, asked: Asked) -> Problem:
        calls = self._demonstrations == "calling" or (
            self._demonstrations == "mixed" and digest_byte(asked.question, 1) % 2 == 0
        )
        turns: tuple[Turn, ...] = ()
        if calls:
            reply = f"{asked.answer}"
            turns = (Turn("policy", self._family.call.format(asked.expression)), Turn("environment", reply))
        return Problem(
            id=f"{self._label}/{asked.question}",
            prompt=f"{asked.question}=",
            reference=str(asked.answer),
            verifier="exact",
            demonstration=str(asked.answer),
            demonstration_turns=turns,
            environment=self._family.environment,
            environment_options=self._options,
            task=self.name,
        )


@cache
def _problems(task: ToolProblems, split: str) -> Sequence[Problem]:
    return task.draw(split)


def product(source: random.Random, digits: int) -> Asked:
    """Draw a product of two numbers of that many digits.

    Example:
        >>> product(random.Random(0), 4).question
        '7311*7890'
    """
    left, right = (source.randrange(10 ** (digits - 1), 10**digits) for _ in range(2))
    return Asked(f"{left}*{right}", f"{left}*{right}", left * right)


def series(source: random.Random, digits: int) -> Asked:
    """Draw a sum of a*k*k + b*k over a range of k."""
    a, b, low = source.randrange(2, 10), source.randrange(2, 10), source.randrange(10, 60)
    high = low + source.randrange(10, 40)
    term = f"{a}*k*k+{b}*k"
    answer = sum(a * k * k + b * k for k in range(low, high + 1))
    return Asked(f"sum {term} for k={low}..{high}", f"print(sum({term} for k in range({low},{high}+1)))", answer)


class Family(NamedTuple):
    """A kind of problem and its tool."""

    draw: Callable[[random.Random, int], Asked]
    environment: str
    options: Mapping[str, JSON]
    call: str
    """A call, with {} for the expression."""


FAMILIES: Mapping[str, Family] = {
    "product": Family(product, "calculator", {"opening": "<", "closing": ">"}, "<{}>"),
    "series": Family(series, "python", {}, "```python\n{}\n```\n"),
}
