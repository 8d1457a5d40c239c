"""Counts over the rows of one split (usable, bad, repeated, long), in one pass and constant memory. No torch."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from reasoner.data.demonstrations import Demonstration, replies
from reasoner.data.preferences import Pair
from reasoner.data.unpaired import Labelled
from tasks import BadRow, Message, Problem
from tasks.held_out import prompt_digest, prompt_text
from tasks.leak import prompt_leak
from tasks.survey import Survey, answer_digest, text_digest
from tasks.validate import Verifiers, is_rule, reference_fault

EXAMPLES = 5
"""Number of rows that are shown."""
ALL_CHECKED = 10_000
"""The verifier reads the reference answers of this many first rows, then of every tenth row; of every hundredth after
ten times as many rows (our choice)."""
MEASURED = 2_000
"""Number of rows whose tokens are counted (our choice)."""
NEAR_CHARACTERS = 25_000_000
"""Characters of training prompts compared with evaluation prompts by shared runs of words (our choice): ten seconds."""
NEAR_TESTED = 256
"""Evaluation prompts compared in this way; the number that a run evaluates by default."""
PREFIX_BITS = 48
MOST_PREFIXES = 60_000
REASONS = 1_000
"""Different reasons that are counted separately."""


class Item(NamedTuple):
    """A usable row of problems, demonstrations, preferences or labelled completions."""

    name: str
    prompt: str | tuple[Message, ...]
    answers: tuple[str, ...]
    """The reference answer; the completion; or the better and the worse completion."""
    asked: int
    """Digest that identifies duplicates: two rows with the same one ask the same."""
    right: int
    """Digest of the answer: rows with equal `asked` and different `right` contradict each other."""
    problem: Problem | None = None


def of_problem(problem: Problem) -> Item:
    """Return the item of a problem; the same prompt with another reference answer is a contradiction."""
    asked, right = prompt_digest(problem.prompt), answer_digest(problem.reference)
    return Item(problem.id, problem.prompt, (str(problem.reference),), asked, right, problem)


def of_demonstration(row: Demonstration, where: str) -> Item:
    """Return the item of a demonstration; several completions of one prompt are not a contradiction.

    Raises:
        UnusableRow: it has no assistant message, or nothing before the first one.
    """
    prompt, completion = row.prompt, row.completion
    if completion is None:
        assert not isinstance(prompt, str)
        begins = replies(prompt, context=row.context)[0]
        prompt, completion = prompt[:begins], prompt_text(prompt[begins:])
    return Item(where, prompt, (completion,), text_digest(prompt_text(prompt), completion), 0)


def of_pair(pair: Pair) -> Item:
    """Return the item of a pair; the same two completions in reverse order are a contradiction, except in a tie."""
    asked = text_digest(prompt_text(pair.prompt), *sorted((pair.first, pair.second)))
    right = 0 if pair.target == 0.5 else text_digest(pair.first)
    return Item(pair.id, pair.prompt, (pair.first, pair.second), asked, right)


def of_labelled(row: Labelled) -> Item:
    """Return the item of a labelled completion; the same completion with the other label is a contradiction."""
    asked = text_digest(prompt_text(row.prompt), row.completion)
    return Item(row.id, row.prompt, (row.completion,), asked, int(row.desirable))


@dataclass(slots=True)
class Figures:
    """Counts of one split, as far as it was read."""

    name: str
    verifiers: Verifiers | None = None
    """Verifiers that read the problems' reference answers; None: these are not read."""
    on_bad: Callable[[BadRow], None] = lambda row: None
    """Called with every bad row."""
    rows: int = 0
    bad: int = 0
    reasons: Counter[str] = field(default_factory=Counter[str])
    first_bad: dict[str, str] = field(default_factory=dict[str, str])
    """The first row with each reason."""
    suspects: int = 0
    """Prompts whose last line is their reference answer."""
    first_suspects: list[str] = field(default_factory=list[str])
    checked: int = 0
    """Rows whose reference answer the verifier tried to read."""
    parsed: int = 0
    passed_over: int = 0
    """Rows whose reference answer was not read, to save time on a long split."""
    survey: Survey = field(default_factory=Survey)
    prompts: Survey = field(default_factory=Survey)
    characters: array[int] = field(default_factory=lambda: array("L"))
    """Characters of each prompt."""
    examples: list[Item] = field(default_factory=list[Item])
    measured: list[Item] = field(default_factory=list[Item])
    near: list[Problem] = field(default_factory=list[Problem])
    near_characters: int = 0
    prefixes: dict[str, int] = field(default_factory=dict[str, int])
    """Row names without their final digits, each with its index (the highest bits of a row's number)."""

    @property
    def usable(self) -> int:
        """Number of usable rows."""
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
        """Finish counting. If most prompts end with their reference answer, those that do become bad rows."""
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
        """Return a row's name as a number: the digits at its end and the index of the rest; else its position."""
        digits = name[len(name.rstrip("0123456789")) :]
        prefix = name[: len(name) - len(digits)]
        if not 0 < len(digits) < 15 or (prefix not in self.prefixes and len(self.prefixes) == MOST_PREFIXES):
            prefix, digits = "row ", str(self.rows)
        return self.prefixes.setdefault(prefix, len(self.prefixes)) << PREFIX_BITS | int(digits)

    def named(self, number: int) -> str:
        """Return the name of the row with this number."""
        prefix = [*self.prefixes][number >> PREFIX_BITS]
        return f"{prefix}{number & ((1 << PREFIX_BITS) - 1)}"

    @property
    def asking(self) -> Survey:
        """Survey of the prompts of all rows."""
        return self.prompts if len(self.prompts) else self.survey

    def lengths(self) -> dict[str, int]:
        """Return median, 95th percentile and maximum of the prompts' characters."""
        return spread_of(self.characters)


def spread_of(lengths: Iterable[int]) -> dict[str, int]:
    """Return median, 95th percentile (p95) and maximum; an empty dict for no numbers."""
    found = np.fromiter(lengths, dtype=np.int64)
    if not len(found):
        return {}
    median, high = np.percentile(found, [50, 95], method="nearest")
    return {"median": int(median), "p95": int(high), "max": int(found.max())}


__all__ = ["Figures", "Item", "of_demonstration", "of_labelled", "of_pair", "of_problem", "spread_of"]
