"""Base of the comparison of two answers, as its parts use it: policy, tiers, and sequences of nodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from verifiers.mathematics.limits import MAX_ITEMS, LimitExceeded
from verifiers.mathematics.nodes import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Rules for what counts as the same answer."""

    rounding: str = "reference"
    """"reference": a reference written as a decimal accepts values that round to it; "exact": no rounding."""
    relative_tolerance: float = 0.0
    """A further relative tolerance between two real numbers; 0 for none."""
    percent_optional: bool = True
    """50% equals 50 and 0.5 if only one side has the sign."""
    units_optional: bool = True
    """A unit or currency on only one side is ignored; on both sides they must agree."""
    unsimplified: bool = True
    """`3+5` is accepted for 8: an exact value need not be simplified."""
    ordered_lists: bool = False
    """Bare comma lists are compared in order."""
    any_base: bool = False
    """A number in another base is accepted: 1011_2 equals 11, and B_16."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of a comparison, and the tier that gave it."""

    equal: bool
    tier: str
    """identical, number, structure, normal form, numeric, sympy, undecided, limit."""
    limited: str = ""
    """The limit that was reached, in words; "" if none."""
    open: tuple[tuple[Node, Node], ...] = ()
    """If the tier is undecided: (reference, answer) of each pair of expressions that no tier could decide. Only these
    are passed to a second opinion.
    """


Side = TypeVar("Side")
_TIERS = ("identical", "number", "structure", "normal form", "numeric", "sympy")
Pair = tuple[Node, Node]
"""(reference, answer): two expressions."""


class Comparer(ABC):
    """One comparison: its policy, and the highest tier used so far."""

    def __init__(self, policy: Policy, decided: Mapping[Pair, bool]) -> None:
        self.policy = policy
        self._decided = decided
        self.measured = False
        """True while the values of quantities with a unit are compared."""
        self._level = 0
        self.open: list[tuple[Node, Node]] = []
        """Pairs of expressions that no tier could decide."""

    @property
    def tier(self) -> str:
        """The highest tier used so far."""
        return _TIERS[self._level]

    def reach(self, tier: str) -> None:
        """Record that a tier is used."""
        self._level = max(self._level, _TIERS.index(tier))

    def fall_back(self, tier: str) -> None:
        """Record that this tier decides, although a higher one was used."""
        self._level = min(self._level, _TIERS.index(tier))

    def left_open(self, gold: Node, answer: Node) -> bool:
        """Return an outside result for two expressions that no tier can decide. Without one, record the pair and return
        False.
        """
        said = self._decided.get((gold, answer))
        if said is None:
            self.open.append((gold, answer))
            return False
        self.reach("sympy")
        return said

    @abstractmethod
    def same(self, gold: Node, answer: Node) -> bool:
        """Return True if the answer means the same as the reference."""

    def in_order(self, gold: Sequence[Node], answer: Sequence[Node]) -> bool:
        """Return True if both have the same length, and each item is the same as its counterpart."""
        return len(gold) == len(answer) and all(self.same(a, b) for a, b in zip(gold, answer, strict=True))

    def each_in(self, items: Sequence[Node], others: Sequence[Node]) -> bool:
        """Return True if every item is the same as some item of `others`; False for over MAX_ITEMS items."""
        return len(items) <= MAX_ITEMS and all(any(self.same(item, other) for other in others) for item in items)

    def matched(self, gold: Sequence[Node], answer: Sequence[Node]) -> bool:
        """Return True if the items can be paired off, in any order.

        Sameness is taken as an equivalence, so the first match is as good as any.

        Raises:
            LimitExceeded: there are over MAX_ITEMS items without an identical counterpart.
        """
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
