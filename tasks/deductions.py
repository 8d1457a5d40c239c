"""Deductions: proofs from given facts and rules to a goal, checked line by line.

Small enough for a model trained from scratch.
"""

from __future__ import annotations

import itertools
import random
import string
from collections.abc import Sequence
from functools import cache

from tasks.base import Problem, Task, TaskError
from tasks.drawing import draw_distinct


class Deductions(Task):
    """Prompts such as `a, f->k, a->f, b->d |- k`, answered by a proof in Fitch style; graded by `logic`.

    Each name has at most one rule, so that a proof continues from the fact until it reaches the goal. Rules that are
    not needed share no name with the proof.

    Args:
        steps: largest number of rules that a proof needs; the smallest is one.
        distractors: number of rules that are not needed.
        demonstrations: perfect (each rule comes just before the line that uses it) or careless (a prover leaves out
            each rule half of the time, so that the line that uses it does not follow).
        train_size: problems of the training split.
        test_size: problems of the test split.
        seed: seed of the random draw.
    Raises:
        TaskError: an option out of range.
    """

    name = "deductions"

    def __init__(
        self,
        *,
        steps: int = 3,
        distractors: int = 2,
        demonstrations: str = "perfect",
        train_size: int = 20_000,
        test_size: int = 1_000,
        seed: int = 0,
    ) -> None:
        if not 1 <= steps <= 8:
            raise TaskError(f"steps must be between 1 and 8; got {steps}.")
        if not 0 <= distractors <= 8:
            raise TaskError(f"distractors must be between 0 and 8; got {distractors}.")
        if demonstrations not in ("perfect", "careless"):
            raise TaskError(f"demonstrations must be perfect or careless; got {demonstrations!r}.")
        self._steps, self._distractors, self._seed = steps, distractors, seed
        self._left_out = 0.5 if demonstrations == "careless" else 0.0
        self._sizes = {"train": train_size, "test": test_size}

    def problems(self, split: str) -> Sequence[Problem]:
        return _problems(self, split)

    def draw(self, split: str) -> list[Problem]:
        """Draw distinct problems of a split."""
        source = random.Random(f"{self._seed} {self._steps} {self._distractors} {split}")
        return draw_distinct(lambda: self._draw(source), split=split, sizes=self._sizes)

    def _draw(self, source: random.Random) -> Problem:
        steps = source.randint(1, self._steps)
        names = source.sample(string.ascii_lowercase, steps + 1 + 2 * self._distractors)
        chain, others = names[: steps + 1], names[steps + 1 :]
        rules = [f"{a}->{b}" for a, b in itertools.pairwise(chain)]
        beside = [f"{a}->{b}" for a, b in zip(others[::2], others[1::2], strict=True)]
        premises = [chain[0], *rules, *beside]
        source.shuffle(premises)
        shown = ", ".join(premises)
        kept = [source.random() >= self._left_out for _ in rules]
        return Problem(
            id=f"deductions/{shown}/{chain[-1]}",
            prompt=f"{shown} |- {chain[-1]}\n",
            reference={"kind": "proof", "premises": [*premises], "goal": chain[-1]},
            verifier="logic",
            difficulty=(steps - 1) / max(1, self._steps - 1),
            demonstration=prove(chain, kept),
            task=self.name,
        )


@cache
def _problems(task: Deductions, split: str) -> Sequence[Problem]:
    return task.draw(split)


def prove(chain: Sequence[str], kept: Sequence[bool]) -> str:
    """Prove the last name of a chain from the first, one step for each name between.

    Args:
        chain: names; of any two neighbours the first implies the second.
        kept: for each step, False leaves its rule out, and the line that uses it does not follow.

    Example:
        >>> print(prove("abc", [True, False]))
        1.a;pr
        2.a->b;pr
        3.b;mp 1,2
        4.c;mp 3
    """
    lines = [f"1.{chain[0]};pr"]
    for (before, after), named in zip(itertools.pairwise(chain), kept, strict=True):
        known = len(lines)
        if named:
            lines.append(f"{known + 1}.{before}->{after};pr")
        cited = f"{known},{known + 1}" if named else f"{known}"
        lines.append(f"{len(lines) + 1}.{after};mp {cited}")
    return "\n".join(lines)


__all__ = ["Deductions", "prove"]
