"""Procedural programming: write a function of one integer from a list of steps in words.

Small enough for a model trained from scratch; graded by running the program.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from tasks.arithmetic import split_of
from tasks.base import Problem, Task, TaskError
from verifiers import JSON

INPUTS = (-50, -7, -1, 0, 1, 2, 9, 23, 64, 200)
"""Inputs on which every function is tested."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on x: in words, as a statement, as an expression, and as a Python function."""

    phrases: tuple[str, ...]
    statement: str
    expression: str
    result: Callable[[int, int], int]


STEPS: Mapping[str, Step] = {
    "add": Step(("add {n}", "plus {n}", "raise by {n}"), "x+={n}", "({x}+{n})", lambda x, n: x + n),
    "subtract": Step(("take {n}", "minus {n}", "lower by {n}"), "x-={n}", "({x}-{n})", lambda x, n: x - n),
    "multiply": Step(("times {n}", "multiply by {n}"), "x*={n}", "({x}*{n})", lambda x, n: x * n),
    "divide": Step(("over {n}", "divide by {n}"), "x//={n}", "({x}//{n})", lambda x, n: x // n),
    "rest": Step(("rest by {n}", "modulo {n}"), "x%={n}", "({x}%{n})", lambda x, n: x % n),
    "negate": Step(("negate", "flip the sign"), "x=-x", "(-{x})", lambda x, n: -x),
    "size": Step(("size", "drop the sign"), "x=abs(x)", "abs({x})", lambda x, n: abs(x)),
    "square": Step(("square", "times itself"), "x*=x", "({x}**2)", lambda x, n: x * x),
    "most": Step(("at most {n}", "cap at {n}"), "x=min(x,{n})", "min({x},{n})", min),
    "least": Step(("at least {n}", "floor at {n}"), "x=max(x,{n})", "max({x},{n})", max),
}


class Functions(Task):
    """Prompts such as `f(x): plus 12, negate, cap at 40`, answered by the program itself, without a fence.

    Args:
        steps: largest number of steps of a function; the smallest is two.
        largest: largest number in a step.
        demonstrations: statements (a line per step) or mixed (about one in two is a single nested expression).
        train_size: problems of the training split.
        test_size: problems of the test split.
        seed: seed of the random draw. The split of a problem depends on its words alone.
        verifier_options: options of the code verifier: sandbox, ...
    Raises:
        TaskError: an option out of range.
    """

    name = "functions"

    def __init__(
        self,
        *,
        steps: int = 4,
        largest: int = 99,
        demonstrations: str = "statements",
        train_size: int = 20_000,
        test_size: int = 1_000,
        seed: int = 0,
        verifier_options: Mapping[str, JSON] | None = None,
    ) -> None:
        if not 2 <= steps <= 12:
            raise TaskError(f"steps must be between 2 and 12; got {steps}.")
        if not 2 <= largest <= 9_999:
            raise TaskError(f"largest must be between 2 and 9999; got {largest}.")
        if demonstrations not in ("statements", "mixed"):
            raise TaskError(f"demonstrations must be statements or mixed; got {demonstrations!r}.")
        self._steps, self._largest, self._mixed, self._seed = steps, largest, demonstrations == "mixed", seed
        self._sizes = {"train": train_size, "test": test_size}
        self._options = {"block": "whole", **(verifier_options or {})}

    def problems(self, split: str) -> Sequence[Problem]:
        if split not in self._sizes:
            raise TaskError(f"split must be train or test; got {split!r}.")
        return _problems(self, split)

    def draw(self, split: str) -> list[Problem]:
        """Draw distinct functions of a split: as many as its size, or as can be found."""
        source = random.Random(f"{self._seed} {self._steps} {self._largest} {split}")
        found: dict[str, Problem] = {}
        misses = 0
        while len(found) < self._sizes[split] and misses < 5_000:
            problem = self._draw(source)
            if split_of(problem.id) != split or problem.id in found:
                misses += 1
                continue
            misses = 0
            found[problem.id] = problem
        return list(found.values())

    def _draw(self, source: random.Random) -> Problem:
        chosen = [
            (STEPS[name], source.randint(2, self._largest))
            for name in source.choices(list(STEPS), k=source.randint(2, self._steps))
        ]
        words = ", ".join(source.choice(step.phrases).format(n=number) for step, number in chosen)
        nested = self._mixed and source.random() < 0.5
        return Problem(
            id=f"functions/{words}",
            prompt=f"f(x): {words}\n",
            reference={
                "entry_point": "f",
                "calls": [{"args": [given], "expected": _result(chosen, given)} for given in INPUTS],
            },
            verifier="code",
            verifier_options=self._options,
            difficulty=(len(chosen) - 2) / max(1, self._steps - 2),
            demonstration=_expression(chosen) if nested else _statements(chosen),
            task=self.name,
        )


@cache
def _problems(task: Functions, split: str) -> Sequence[Problem]:
    return task.draw(split)


def _result(chosen: Sequence[tuple[Step, int]], x: int) -> int:
    for step, number in chosen:
        x = step.result(x, number)
    return x


def _statements(chosen: Sequence[tuple[Step, int]]) -> str:
    lines = [" " + step.statement.format(n=number) for step, number in chosen]
    return "\n".join(["def f(x):", *lines, " return x"])


def _expression(chosen: Sequence[tuple[Step, int]]) -> str:
    nested = "x"
    for step, number in chosen:
        nested = step.expression.format(x=nested, n=number)
    return f"def f(x):\n return {nested}"
