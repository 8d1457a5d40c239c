"""The comparison of two answers as its parts see it: policy, tiers, and sequences of nodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from verifiers.mathematics.limits import MAX_ITEMS, LimitExceeded
from verifiers.mathematics.nodes import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What counts as the same answer."""

    rounding: str = "reference"
    """"reference": a reference written as a decimal accepts what rounds to it; "exact": nothing is rounded."""
    relative_tolerance: float = 0.0
    """A further relative tolerance between two real numbers; 0 for none."""
    percent_optional: bool = True
    """50% is 50 and 0.5 where only one side bears the sign."""
    units_optional: bool = True
    """A unit or currency on one side alone is not looked at; on both sides it must agree."""
    unsimplified: bool = True
    """`3+5` counts for 8: an exact value need not be worked out."""
    ordered_lists: bool = False
    """Bare comma lists are compared in order."""
    any_base: bool = False
    """A number in another base counts: 1011_2 is 11, and B_16."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answer to one question, and which tier gave it."""

    equal: bool
    tier: str
    """identical, number, structure, normal form, numeric, sympy, undecided, limit."""
    limited: str = ""
    """Where the answer's size met a bound: which."""
    open: tuple[tuple[Node, Node], ...] = ()
    """Where the tier is undecided: (reference, answer) of each pair of expressions that no tier could tell apart or
    together. A second opinion is asked these, and nothing else."""


Side = TypeVar("Side")
_TIERS = ("identical", "number", "structure", "normal form", "numeric", "sympy")
Pair = tuple[Node, Node]
"""(reference, answer): two expressions."""


class Comparer(ABC):
    """One comparison: its policy, and the highest tier that was asked so far."""

    def __init__(self, policy: Policy, decided: Mapping[Pair, bool]) -> None:
        self.policy = policy
        self._decided = decided
        self.measured = False
        """Whether what is compared is the value of a quantity with a unit."""
        self._level = 0
        self.open: list[tuple[Node, Node]] = []
        """Pairs of expressions that no tier could decide."""

    @property
    def tier(self) -> str:
        """The highest tier that was asked."""
        return _TIERS[self._level]

    def reach(self, tier: str) -> None:
        """Note that a tier is asked."""
        self._level = max(self._level, _TIERS.index(tier))

    def fall_back(self, tier: str) -> None:
        """Note that this tier answers, although a higher one was asked."""
        self._level = min(self._level, _TIERS.index(tier))

    def left_open(self, gold: Node, answer: Node) -> bool:
        """What was said elsewhere of two expressions that no tier can decide; False, and kept, where nothing was."""
        said = self._decided.get((gold, answer))
        if said is None:
            self.open.append((gold, answer))
            return False
        self.reach("sympy")
        return said

    @abstractmethod
    def same(self, gold: Node, answer: Node) -> bool:
        """Return True if the answer says what the reference says."""

    def in_order(self, gold: Sequence[Node], answer: Sequence[Node]) -> bool:
        """Return True if there are as many of both, each the same as its counterpart."""
        return len(gold) == len(answer) and all(self.same(a, b) for a, b in zip(gold, answer, strict=True))

    def each_in(self, items: Sequence[Node], others: Sequence[Node]) -> bool:
        """Return True if every item is the same as some other."""
        return len(items) <= MAX_ITEMS and all(any(self.same(item, other) for other in others) for item in items)

    def matched(self, gold: Sequence[Node], answer: Sequence[Node]) -> bool:
        """Return True if the items pair off, in any order (an equivalence, so the first match is as good as any)."""
        if len(gold) != len(answer):
            return False
        left = list(answer)
        missed: list[Node] = []
        for item in gold:
            if item in left:
                left.remove(item)
            else:
                missed.append(item)
        if len(missed) > MAX_ITEMS:
            raise LimitExceeded(f"over {MAX_ITEMS} items to match")
        for item in missed:
            for index, other in enumerate(left):
                if self.same(item, other):
                    del left[index]
                    break
            else:
                return False
        return True


def replaced(gold: Node, one: Node, new_one: Side, other: Side) -> tuple[Side, Side]:
    """Return (gold side, answer side) after `one`, whichever side it was, has been replaced."""
    return (new_one, other) if one is gold else (other, new_one)
