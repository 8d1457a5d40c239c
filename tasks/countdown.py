"""Countdown: reach a target from given numbers with + - * and /, using each number exactly once."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tasks.base import Problem, Task, TaskError
from tasks.drawing import draw_distinct


class Countdown(Task):
    """Problems with a known solution, made by combining random numbers.

    Args:
        numbers: how many numbers are given (2 to 8).
        largest: largest given number.
        train_size: problems of the training split.
        test_size: problems of the test split.
        seed: seed of the random draw.
    Raises:
        TaskError: an option out of range.
    """

    name = "countdown"

    def __init__(
        self, *, numbers: int = 3, largest: int = 20, train_size: int = 10_000, test_size: int = 1_000, seed: int = 0
    ) -> None:
        if not 2 <= numbers <= 8:
            raise TaskError(f"numbers must be between 2 and 8; got {numbers}.")
        if largest < numbers:
            raise TaskError(f"largest must be at least the count of numbers; got {largest}.")
        self._count, self._largest, self._seed = numbers, largest, seed
        self._sizes = {"train": train_size, "test": test_size}

    def problems(self, split: str) -> Sequence[Problem]:
        source = random.Random(f"{self._seed} {self._count} {self._largest} {split}")
        return draw_distinct(lambda: self._draw(source), split=split, sizes=self._sizes)

    def _draw(self, source: random.Random) -> Problem:
        numbers = [source.randint(1, self._largest) for _ in range(self._count)]
        values = [(number, str(number)) for number in numbers]
        steps: list[str] = []
        while len(values) > 1:
            source.shuffle(values)
            (a, left), (b, right) = values.pop(), values.pop()
            if a < b:
                (a, left), (b, right) = (b, right), (a, left)
            choices = ["+"] + ["-"] * (a > b) + ["*"] * (a * b <= 1000) + ["/"] * (b > 1 and a % b == 0)
            sign = source.choice(choices)
            result = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[sign]
            steps.append(f"{a}{sign}{b}={result}")
            values.append((result, f"({left}{sign}{right})"))
        target, expression = values[0]
        expression = expression.removeprefix("(").removesuffix(")") if len(numbers) > 1 else expression
        given = ", ".join(map(str, sorted(numbers)))
        return Problem(
            id=f"countdown/{sorted(numbers)}={target}",
            prompt=f"Numbers: {given}. Target: {target}.\n",
            reference={"numbers": [*sorted(numbers)], "target": target},
            verifier="countdown",
            difficulty=sum(sign in "*/" for sign in "".join(steps)) / (len(numbers) - 1),
            demonstration="\n".join(steps) + f"\n#### {expression}",
            task=self.name,
        )
