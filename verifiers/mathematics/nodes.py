"""Syntax tree of an answer: plain, frozen, comparable nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Num:
    """A number literal, exact: `0.50` is the fraction 1/2, with 1/100 as the unit of its last digit."""

    value: Fraction | int
    ulp: Fraction | None = None
    """Value of one unit of the last written decimal; None without a decimal point."""
    groups: tuple[int, ...] | None = field(default=None, compare=False)
    """`1,234` as (1, 234): the other reading, a list, if bare commas grouped the digits."""


@dataclass(frozen=True, slots=True)
class Sym:
    """A variable with its subscript, or an ordered name of points such as ABC."""

    name: str


@dataclass(frozen=True, slots=True)
class Const:
    """One of the constants pi, e, i, oo."""

    name: str


@dataclass(frozen=True, slots=True)
class Add:
    """A sum of two or more terms; a difference has a `Neg` term."""

    terms: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Neg:
    """The negative of a term."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Mul:
    """A product of two or more factors, in the order written."""

    factors: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Div:
    """A quotient."""

    top: Node
    bottom: Node


@dataclass(frozen=True, slots=True)
class Pow:
    """A power."""

    base: Node
    exponent: Node


@dataclass(frozen=True, slots=True)
class Call:
    """A named function: sin, root (radicand, index), log (argument, base), abs, factorial, binom, ..."""

    name: str
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class PlusMinus:
    """`±x` (sign 1) or `∓x` (sign -1); all of them within an answer switch together."""

    operand: Node
    sign: int


class GroupKind(StrEnum):
    """The notation of the items of a `Group`."""

    LIST = "list"
    """Bare commas, "and", "or": unordered."""
    TUPLE = "tuple"
    """Round, angle or three-and-more square brackets, a vector, labelled parts: ordered."""
    SET = "set"
    """Braces: unordered, without repeats."""


@dataclass(frozen=True, slots=True)
class Group:
    """Several answers."""

    kind: GroupKind
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval with at least one square bracket, or with infinite ends."""

    low: Node
    high: Node
    low_closed: bool
    high_closed: bool


@dataclass(frozen=True, slots=True)
class SetOp:
    """A union (cup), intersection (cap) or difference (minus) of sets."""

    op: str
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A named set: R, Z, N, Q, C or empty, some with a suffix (`R^+`)."""

    name: str


@dataclass(frozen=True, slots=True)
class Builder:
    """A set builder: `{x | condition}`."""

    head: Node
    condition: Node


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix with rows of equal length; `bar` marks a determinant."""

    rows: tuple[tuple[Node, ...], ...]
    bar: bool = False


@dataclass(frozen=True, slots=True)
class Relation:
    """A chain `a < b <= c`: sides, and operators between them (= != < > <= >= in notin approx or another)."""

    sides: tuple[Node, ...]
    ops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio `a : b : c`."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class BaseNumber:
    """A number written in a base: `52_8`."""

    digits: str
    base: int


@dataclass(frozen=True, slots=True)
class Unit:
    """A product of powers of units, with an exact factor to base units; only `words` if a unit is unknown."""

    dimension: tuple[tuple[str, int], ...]
    factor: Fraction
    words: tuple[str, ...]
    sense: tuple[str, ...] = ()
    """Words next to the unit that distinguish two values: directions, profit or loss, earlier or later."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value with a unit, a percent sign, a degree sign or a currency."""

    value: Node
    unit: Unit


@dataclass(frozen=True, slots=True)
class Cases:
    """A piecewise definition or a system: rows of one or two cells."""

    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day, or a duration h:mm; meridiem "a", "p" or ""."""

    minutes: Fraction
    meridiem: str


@dataclass(frozen=True, slots=True)
class Date:
    """A calendar date; year 0 if none was written."""

    year: int
    month: int
    day: int


@dataclass(frozen=True, slots=True)
class Dots:
    """An ellipsis between items."""


@dataclass(frozen=True, slots=True)
class Text:
    """Words, compared as such: in lower case, without articles."""

    words: tuple[str, ...]


Node: TypeAlias = (
    Num
    | Sym
    | Const
    | Add
    | Neg
    | Mul
    | Div
    | Pow
    | Call
    | PlusMinus
    | Group
    | Interval
    | SetOp
    | NamedSet
    | Builder
    | Matrix
    | Relation
    | Ratio
    | BaseNumber
    | Quantity
    | Cases
    | Clock
    | Date
    | Dots
    | Text
)

EXPRESSION = (Num, Sym, Const, Add, Neg, Mul, Div, Pow, Call, PlusMinus)
"""The scalar nodes, which the normal form and the probes accept."""


_PARTS: Mapping[type, Callable[[Any], tuple[Node, ...]]] = {
    Add: lambda node: node.terms,
    Mul: lambda node: node.factors,
    Neg: lambda node: (node.operand,),
    PlusMinus: lambda node: (node.operand,),
    Div: lambda node: (node.top, node.bottom),
    Pow: lambda node: (node.base, node.exponent),
    Call: lambda node: node.args,
    Group: lambda node: node.items,
    Interval: lambda node: (node.low, node.high),
    SetOp: lambda node: node.parts,
    Ratio: lambda node: node.parts,
    Builder: lambda node: (node.head, node.condition),
    Matrix: lambda node: tuple(cell for row in node.rows for cell in row),
    Cases: lambda node: tuple(cell for row in node.rows for cell in row),
    Relation: lambda node: node.sides,
    Quantity: lambda node: (node.value,),
}


def children(node: Node) -> tuple[Node, ...]:
    """Return the direct parts of a node, in order."""
    parts = _PARTS.get(type(node))
    return parts(node) if parts else ()


def contains(node: Node, kinds: type | tuple[type, ...]) -> bool:
    """Return True if the node or any part of it is of these kinds."""
    return isinstance(node, kinds) or any(contains(child, kinds) for child in children(node))


def symbols(node: Node) -> frozenset[str]:
    """Return the names of the variables in a tree."""
    if isinstance(node, Sym):
        return frozenset((node.name,))
    found: frozenset[str] = frozenset()
    for child in children(node):
        found |= symbols(child)
    return found
