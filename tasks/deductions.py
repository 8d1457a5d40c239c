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
        demonstrations: steps (each rule comes just before the line that uses it) or mixed (in about one of two, all
            rules come first, and the lines that use them must cite their numbers).
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
        demonstrations: str = "steps",
        train_size: int = 20_000,
        test_size: int = 1_000,
        seed: int = 0,
    ) -> None:
        if not 1 <= steps <= 8:
            raise TaskError(f"steps must be between 1 and 8; got {steps}.")
        if not 0 <= distractors <= 8:
            raise TaskError(f"distractors must be between 0 and 8; got {distractors}.")
        if demonstrations not in ("steps", "mixed"):
            raise TaskError(f"demonstrations must be steps or mixed; got {demonstrations!r}.")
        self._steps, self._distractors, self._mixed, self._seed = steps, distractors, demonstrations == "mixed", seed
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
        first = self._mixed and source.random() < 0.5
        return Problem(
            id=f"deductions/{shown}/{chain[-1]}",
            prompt=f"{shown} |- {chain[-1]}\n",
            reference={"kind": "proof", "premises": [*premises], "goal": chain[-1]},
            verifier="logic",
            difficulty=(steps - 1) / max(1, self._steps - 1),
            demonstration=_rules_first(chain, rules) if first else _step_by_step(chain, rules),
            task=self.name,
        )


@cache
def _problems(task: Deductions, split: str) -> Sequence[Problem]:
    return task.draw(split)


def _step_by_step(chain: Sequence[str], rules: Sequence[str]) -> str:
    lines = [f"1.{chain[0]};pr"]
    for at, (rule, name) in enumerate(zip(rules, chain[1:], strict=True)):
        lines += [f"{2 * at + 2}.{rule};pr", f"{2 * at + 3}.{name};mp {2 * at + 1},{2 * at + 2}"]
    return "\n".join(lines)


def _rules_first(chain: Sequence[str], rules: Sequence[str]) -> str:
    lines = [f"{at}.{premise};pr" for at, premise in enumerate([chain[0], *rules], start=1)]
    known = 1
    for at, name in enumerate(chain[1:], start=2):
        lines.append(f"{len(lines) + 1}.{name};mp {known},{at}")
        known = len(lines)
    return "\n".join(lines)
