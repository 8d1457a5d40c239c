"""What is counted over the rows of one split: usable, bad, repeated, long; in one pass and in flat memory. No torch."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from reasoner.data.demonstrations import Demonstration, replies
from reasoner.data.preferences import Pair
from tasks import BadRow, Message, Problem
from tasks.held_out import prompt_digest, prompt_text
from tasks.leak import prompt_leak
from tasks.survey import Survey, answer_digest, text_digest
from tasks.validate import Verifiers, is_rule, reference_fault

EXAMPLES = 5
"""Rows that are shown."""
ALL_CHECKED = 10_000
"""First rows whose reference answers are all read by the verifier; then each tenth, beyond ten times as many each
hundredth (ours)."""
MEASURED = 2_000
"""Rows whose tokens are counted (ours)."""
NEAR_CHARACTERS = 25_000_000
"""Of training prompts that are compared with evaluation prompts by shared runs of words (ours): ten seconds."""
NEAR_TESTED = 256
"""Evaluation prompts that are compared so, as many as a run evaluates by default."""
PREFIX_BITS = 48
MOST_PREFIXES = 60_000
REASONS = 1_000
"""Different reasons that are counted apart."""


class Item(NamedTuple):
    """A row that can be used, whatever it is for."""

    name: str
    prompt: str | tuple[Message, ...]
    answers: tuple[str, ...]
    """Reference answer; completion; the better and the worse completion."""
    asked: int
    """Digest of what must not stand there twice."""
    right: int
    """Digest of what must be the same where it does."""
    problem: Problem | None = None


def of_problem(problem: Problem) -> Item:
    """A problem: the same prompt with another reference answer is a contradiction."""
    asked, right = prompt_digest(problem.prompt), answer_digest(problem.reference)
    return Item(problem.id, problem.prompt, (str(problem.reference),), asked, right, problem)


def of_demonstration(row: Demonstration, where: str) -> Item:
    """A demonstration: several completions of a prompt are no contradiction.

    Raises:
        UnusableRow: nothing in it is the assistant's, or nothing is asked.
    """
    prompt, said = row.prompt, row.completion
    if said is None:
        assert not isinstance(prompt, str)
        begins = replies(prompt, context=row.context)[0]
        prompt, said = prompt[:begins], prompt_text(prompt[begins:])
    return Item(where, prompt, (said,), text_digest(prompt_text(prompt), said), 0)


def of_pair(pair: Pair) -> Item:
    """A preference: the same two completions the other way round are a contradiction, but for a tie."""
    asked = text_digest(prompt_text(pair.prompt), *sorted((pair.first, pair.second)))
    right = 0 if pair.target == 0.5 else text_digest(pair.first)
    return Item(pair.id, pair.prompt, (pair.first, pair.second), asked, right)


@dataclass(slots=True)
class Figures:
    """One split, as far as it was read."""

    name: str
    verifiers: Verifiers | None = None
    """Those of problems, whose reference answers they read; None: none are read."""
    on_bad: Callable[[BadRow], None] = lambda row: None
    """Is told every bad row."""
    rows: int = 0
    bad: int = 0
    reasons: Counter[str] = field(default_factory=Counter[str])
    first_bad: dict[str, str] = field(default_factory=dict[str, str])
    """Reason to the first row that it holds of."""
    suspects: int = 0
    """Prompts whose last line is their reference answer."""
    first_suspects: list[str] = field(default_factory=list[str])
    checked: int = 0
    """Rows whose reference answer its verifier was asked to read."""
    parsed: int = 0
    passed_over: int = 0
    """Rows whose reference answer was not looked at, because there are so many."""
    survey: Survey = field(default_factory=Survey)
    prompts: Survey = field(default_factory=Survey)
    characters: array[int] = field(default_factory=lambda: array("L"))
    """Of each prompt."""
    examples: list[Item] = field(default_factory=list[Item])
    measured: list[Item] = field(default_factory=list[Item])
    near: list[Problem] = field(default_factory=list[Problem])
    near_characters: int = 0
    prefixes: dict[str, int] = field(default_factory=dict[str, int])
    """What names of rows have before their number, and what that is in the highest bits of a number of ours."""

    @property
    def usable(self) -> int:
        """Rows that can be used."""
        return self.rows - self.bad

    def add(self, one: Item | BadRow) -> None:
        """Count a row."""
        self.rows += 1
        fault = None if isinstance(one, BadRow) else self._fault(one)
        if isinstance(one, BadRow):
            self._add_bad(one)
        elif fault:
            self._add_bad(BadRow(one.name, fault))
        else:
            self._add(one)

    def close(self) -> None:
        """All rows are counted: where most prompts end in their answer, that is a fault of them."""
        if is_rule(self.suspects, self.usable):
            reason = "the last line of its prompt is its reference answer, as of most others"
            self.reasons[reason] += self.suspects
            self.first_bad[reason] = self.first_suspects[0]
            self.bad += self.suspects

    def _fault(self, item: Item) -> str | None:
        problem = item.problem
        if problem is None or self.verifiers is None:
            return None
        if not prompt_text(problem.prompt).strip():
            return "its prompt is empty"
        leak = prompt_leak(problem.prompt, problem.reference)
        if leak and leak.sure:
            return leak.what
        if leak:
            self.suspects += 1
            self.first_suspects += [item.name] if len(self.first_suspects) < EXAMPLES else []
        if self.rows > ALL_CHECKED and self.rows % (10 if self.rows <= 10 * ALL_CHECKED else 100):
            self.passed_over += 1
            return None
        self.checked += 1
        fault = reference_fault(problem, self.verifiers)
        self.parsed += fault is None
        return fault

    def _add_bad(self, row: BadRow) -> None:
        self.bad += 1
        self.on_bad(row)
        if row.reason in self.reasons or len(self.reasons) < REASONS:
            self.reasons[row.reason] += 1
            self.first_bad.setdefault(row.reason, row.where)

    def _add(self, item: Item) -> None:
        number = self._number(item.name)
        self.survey.add(number, asked=item.asked, right=item.right)
        text = prompt_text(item.prompt)
        own = item.asked if item.problem is not None else prompt_digest(item.prompt)
        if item.problem is None:
            self.prompts.add(number, asked=own, right=0)
        self.characters.append(len(text))
        if len(self.examples) < EXAMPLES:
            self.examples.append(item)
        if len(self.measured) < MEASURED and len(text) < NEAR_CHARACTERS // MEASURED:
            self.measured.append(item)
        if self.near_characters < NEAR_CHARACTERS:
            self.near_characters += len(text)
            self.near.append(Problem(id=item.name, prompt=text, reference=None, verifier="", task=""))

    def _number(self, name: str) -> int:
        """A row's name as a number: that at its end, and which beginning it has; else its place."""
        digits = name[len(name.rstrip("0123456789")) :]
        prefix = name[: len(name) - len(digits)]
        if not 0 < len(digits) < 15 or (prefix not in self.prefixes and len(self.prefixes) == MOST_PREFIXES):
            prefix, digits = "row ", str(self.rows)
        return self.prefixes.setdefault(prefix, len(self.prefixes)) << PREFIX_BITS | int(digits)

    def named(self, number: int) -> str:
        """A row by its number."""
        prefix = [*self.prefixes][number >> PREFIX_BITS]
        return f"{prefix}{number & ((1 << PREFIX_BITS) - 1)}"

    @property
    def asking(self) -> Survey:
        """The prompts of all rows."""
        return self.prompts if len(self.prompts) else self.survey

    def lengths(self) -> dict[str, int]:
        """Characters of the prompts: median, 95 %, longest."""
        return spread_of(self.characters)


def spread_of(lengths: Iterable[int]) -> dict[str, int]:
    """Median, 95 % and largest of numbers; empty for none."""
    found = np.fromiter(lengths, dtype=np.int64)
    if not len(found):
        return {}
    median, high = np.percentile(found, [50, 95], method="nearest")
    return {"median": int(median), "p95": int(high), "max": int(found.max())}


__all__ = ["Figures", "Item", "of_demonstration", "of_pair", "of_problem", "spread_of"]
