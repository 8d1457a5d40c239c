"""Comparison of functions given by cases, with each other or with one formula, piece by piece."""

from __future__ import annotations

import itertools
from fractions import Fraction

from verifiers.mathematics import rewrites
from verifiers.mathematics.equality import constants
from verifiers.mathematics.equality.comparer import Comparer
from verifiers.mathematics.equality.realsets import LINES, Line, line_of, within
from verifiers.mathematics.nodes import EXPRESSION, Cases, Node, Num, Text, symbols

_OTHERWISE = frozenset(("otherwise", "else", "elsewhere", "other"))
_STEPS = (Fraction(1, 7), Fraction(3, 8), Fraction(13, 17))
"""Test points of a bounded piece, as fractions of its length."""
_FAR = (Fraction(3, 7), Fraction(17, 9), Fraction(211, 37))
"""Test points of an unbounded piece, as distances from its end."""
MAX_ROWS = 12


def piecewise(comparer: Comparer, gold: Node, answer: Node) -> bool:
    """Compare two functions of one variable, at least one of them given by cases.

    True if they agree wherever either is defined. Each piece between two adjacent bounds is tested at three points, and
    each bound by itself.
    """
    names = symbols(gold) | symbols(answer)
    if len(names) != 1:
        return False
    (name,) = names
    sides = _rows(gold), _rows(answer)
    if sides[0] is None or sides[1] is None:
        return False
    comparer.reach("numeric")
    for point in _points([*sides[0], *sides[1]]):
        values = [_value_at(side, name, point) for side in (sides[0], sides[1])]
        if (values[0] is None) != (values[1] is None):
            return False
        if values[0] is not None and values[1] is not None and not comparer.same(values[0], values[1]):
            return False
    return True


Row = tuple[Node, Line]
"""A formula and the set on which it holds."""


def _rows(node: Node) -> list[Row] | None:
    """Return the formulas of a function with their sets; None if this is not such a function."""
    if isinstance(node, EXPRESSION):
        return [(node, LINES["R"])]
    if not isinstance(node, Cases) or len(node.rows) > MAX_ROWS:
        return None
    found: list[Row] = []
    for place, row in enumerate(node.rows):
        if len(row) != 2 or not isinstance(row[0], EXPRESSION):
            return None
        if isinstance(row[1], Text) and set(row[1].words) & _OTHERWISE and place == len(node.rows) - 1:
            rest = within([line for _, line in found])
            found.append((row[0], rest))
            continue
        line = line_of(row[1], constants.place)
        if line is None:
            return None
        found.append((row[0], line))
    return found


def _points(rows: list[Row]) -> list[Fraction]:
    bounds = sorted({end.at for _, line in rows for piece in line for end in piece if end.at is not None})
    if not bounds:
        return [Fraction(sign) * far for far in _FAR for sign in (1, -1)]
    found = [*bounds, *(bounds[0] - far for far in _FAR), *(bounds[-1] + far for far in _FAR)]
    for low, high in itertools.pairwise(bounds):
        found += [low + (high - low) * step for step in _STEPS]
    return found


def _value_at(rows: list[Row], name: str, point: Fraction) -> Node | None:
    for formula, line in rows:
        for piece in line:
            above = piece.low.at is None or point > piece.low.at or (piece.low.closed and point == piece.low.at)
            below = piece.high.at is None or point < piece.high.at or (piece.high.closed and point == piece.high.at)
            if above and below:
                return rewrites.substituted(formula, {name: Num(point)})
    return None
