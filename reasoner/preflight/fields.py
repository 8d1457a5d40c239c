"""What separates two kinds of problems: a field of the problems, or the length of their texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from reasoner.observe.explain.pass_rates import APART, FEWEST, STRONG, Fit, Kinds, fits
from reasoner.observe.explain.signal_chance import Belief
from reasoner.storage.history import Row
from tasks import Problem
from tasks.held_out import prompt_text
from verifiers import JSON

Facts = Mapping[str, str | float]
"""Values of a problem by the field's name."""
PROMPT, REFERENCE = "characters of the prompt", "characters of the reference"
MOST_VALUES = 8
"""A field with more different values is taken as a number, or left out (our choice)."""
SEPARATES = 0.9
"""Share of the problems of each kind that a field must put on the right side, on average (our choice)."""
HOPELESS = 0.02
"""A side of problems that are right more rarely than this, or wrong, has no signal in usual groups (our choice)."""


class Side(NamedTuple):
    """Problems whose field has one of some values, or lies between two numbers."""

    field: str
    values: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf

    def holds(self, facts: Facts) -> bool:
        """Return True for the facts of a problem of this side."""
        value = facts.get(self.field)
        if self.values or not isinstance(value, int | float):
            return value is not None and _text(value) in self.values
        return self.low < value <= self.high

    def __str__(self) -> str:
        if self.values:
            return f"{self.field}={' or '.join(self.values)}"
        if self.field in (PROMPT, REFERENCE):
            some = f"up to {self.high:g}" if self.high < math.inf else f"more than {self.low:g}"
            return f"{self.field.split()[-1]}s of {some} characters"
        return f"{self.field} up to {self.high:g}" if self.high < math.inf else f"{self.field} above {self.low:g}"


class Split(NamedTuple):
    """Two sides of a field: problems that are solved more rarely, then the others."""

    rare: Side
    other: Side
    sizes: tuple[int, int]
    means: tuple[float, float]
    bic: float
    """As in `pass_rates.Fit`: one kind of problems on each side, and one parameter for each place to cut the field."""
    on_other: tuple[bool, ...]
    """For each problem, True if it is on the other side."""


def facts_of_problem(problem: Problem) -> Facts:
    """Return what is known of a problem before it is sampled."""
    return _facts(problem.task, problem.difficulty, problem.info, prompt_text(problem.prompt), problem.reference)


def facts_of_row(row: Row) -> Facts:
    """Return the same of a sampled problem."""
    return _facts(row.task, row.difficulty, row.info, row.question, row.reference)


def _facts(
    task: str, difficulty: float | None, info: Mapping[str, JSON], prompt: str, reference: JSON
) -> dict[str, str | float]:
    found: dict[str, str | float] = {"task": task} if task else {}
    if difficulty is not None:
        found["difficulty"] = difficulty
    for name, value in info.items():
        if isinstance(value, bool):
            found[name] = str(value).lower()
        elif isinstance(value, str | int | float) and len(str(value)) <= 40:
            found[name] = value
    found[PROMPT] = len(prompt)
    if isinstance(reference, str | int | float):
        found[REFERENCE] = len(str(reference))
    return found


def separating(facts: Sequence[Facts], counts: Sequence[tuple[int, int]], kinds: Kinds) -> Split | None:
    """Return the split whose sides are the two kinds; None if none of the fields is one."""
    found = [split for split in _splits(facts, counts) if _agreement(split, kinds) >= SEPARATES]
    return max(found, key=lambda split: (round(_agreement(split, kinds), 2), -_is_length(split)), default=None)


def hopeless_side(facts: Sequence[Facts], counts: Sequence[tuple[int, int]], one: Fit) -> Split | None:
    """Return the split that sets problems without signal apart from the others; None if none does.

    Few problems of a kind may not be told by their samples, but by their field: then its sides must be far likelier
    than one kind.
    """
    found = [
        split
        for split in _splits(facts, counts)
        if split.bic < one.bic - STRONG
        and (split.means[0] < HOPELESS or split.means[1] > 1 - HOPELESS)
        and split.means[1] - split.means[0] >= APART
    ]
    return min(found, key=lambda split: (_is_length(split), split.bic), default=None)


def belief_of(split: Split, counts: Sequence[tuple[int, int]]) -> tuple[Belief, Belief]:
    """Return the distribution of pass rates on each side."""
    sides = ([c for c, on in zip(counts, split.on_other, strict=True) if on is other] for other in (False, True))
    rare, other = (min(fits(of_side), key=lambda fit: fit.bic).belief for of_side in sides)
    return rare, other


def _is_length(split: Split) -> bool:
    return split.rare.field in (PROMPT, REFERENCE)


def _agreement(split: Split, kinds: Kinds) -> float:
    """Return the mean over the kinds of the share of their problems that lie on their side."""
    shares: list[float] = []
    for kind in (0, 1):
        on = [side is bool(kind) for side, of in zip(split.on_other, kinds.of_problems, strict=True) if of == kind]
        shares.append(sum(on) / max(1, len(on)))
    return sum(shares) / 2


def _splits(facts: Sequence[Facts], counts: Sequence[tuple[int, int]]) -> list[Split]:
    names = dict.fromkeys(name for one in facts for name in one)
    found = [_split(name, facts, counts) for name in names]
    return [split for split in found if split is not None]


def _split(name: str, facts: Sequence[Facts], counts: Sequence[tuple[int, int]]) -> Split | None:
    """Return the cut of a field whose sides differ most: least squares, over values in order of their pass rates or
    size (Breiman et al. 1984, Classification and Regression Trees, section 8.3 and theorem 4.5).
    """
    if not all(name in one for one in facts):
        return None
    rates = [right / samples for right, samples in counts]
    values = [one[name] for one in facts]
    different = {_text(value) for value in values}
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    if len(different) < 2:
        return None
    named = len(different) <= MOST_VALUES and name not in (PROMPT, REFERENCE)
    if named:
        texts = [_text(value) for value in values]
        means = {text: _mean([r for t, r in zip(texts, rates, strict=True) if t == text]) for text in different}
        keys = [(means[text], text) for text in texts]
    elif len(numbers) == len(values):
        keys = [(number, "") for number in numbers]
    else:
        return None
    ordered = sorted(set(keys))
    cut = max(ordered[:-1], key=lambda key: _between([k <= key for k in keys], rates))
    below = [key <= cut for key in keys]
    if min(sum(below), len(below) - sum(below)) < FEWEST:
        return None
    if named:
        sides = [
            Side(name, tuple(sorted({_text(v) for v, b in zip(values, below, strict=True) if b is side})))
            for side in (True, False)
        ]
    else:
        sides = [Side(name, high=cut[0]), Side(name, low=cut[0])]
    means_of = [_mean([r for r, b in zip(rates, below, strict=True) if b is side]) for side in (True, False)]
    flipped = means_of[0] > means_of[1]
    on_other = tuple(b is flipped for b in below)
    penalty = math.log(len(counts)) * (len(different) - 1 if named else 1)
    bic = penalty
    for side in (True, False):
        of_side = [count for count, on in zip(counts, on_other, strict=True) if on is side]
        bic += fits(of_side, only_one=True)[0].bic + 2 * (math.log(len(counts)) - math.log(len(of_side)))
    rare, other = reversed(sides) if flipped else sides
    low, high = sorted(means_of)
    return Split(rare, other, (len(counts) - sum(on_other), sum(on_other)), (low, high), bic, on_other)


def _between(below: Sequence[bool], rates: Sequence[float]) -> float:
    """Return the sum of squares between the two sides."""
    sides = [[r for r, b in zip(rates, below, strict=True) if b is side] for side in (True, False)]
    whole = _mean(rates)
    return sum(len(side) * (_mean(side) - whole) ** 2 for side in sides)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"
