"""Sets of reals in one canonical form: disjoint intervals from left to right, whatever their notation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from verifiers.mathematics.equality import normal
from verifiers.mathematics.limits import MAX_ITEMS, Budget, LimitExceeded, Undecided
from verifiers.mathematics.nodes import (
    EXPRESSION,
    Add,
    Builder,
    Call,
    Const,
    Div,
    Group,
    GroupKind,
    Interval,
    NamedSet,
    Neg,
    Node,
    Num,
    Relation,
    SetOp,
    Sym,
    symbols,
)

FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
Value = Callable[[Node], Fraction | None]
"""Returns the value of a real constant, accurate enough for ordering; None if it has none."""


class End(NamedTuple):
    """One end of a piece; `at` is None if it is infinite."""

    node: Node | None
    at: Fraction | None
    closed: bool


class Piece(NamedTuple):
    """One interval or, if both ends are the same and closed, one point."""

    low: End
    high: End


Line = list[Piece]
_ZERO, _OPEN_ZERO, _NOWHERE = End(Num(0), Fraction(0), True), End(Num(0), Fraction(0), False), End(None, None, False)
_POSITIVE, _NEGATIVE = Piece(_OPEN_ZERO, _NOWHERE), Piece(_NOWHERE, _OPEN_ZERO)
LINES: dict[str, Line] = {
    "R": [Piece(_NOWHERE, _NOWHERE)],
    "empty": [],
    "R^+": [_POSITIVE],
    "R^>0": [_POSITIVE],
    "R^-": [_NEGATIVE],
    "R^<0": [_NEGATIVE],
    "R^*": [_NEGATIVE, _POSITIVE],
    "R^>=0": [Piece(_ZERO, _NOWHERE)],
}
"""Named sets."""
_EVERYTHING: Line = LINES["R"]


def line_of(node: Node, value: Value) -> Line | None:
    """Return the pieces of a set of reals, sorted, disjoint and merged where they touch; None if it is not such a set.

    Args:
        node: an interval, a union, an inequality in one variable, a set of numbers, the reals.
        value: returns the value of a constant.
    """
    try:
        found = _line(node, value)
    except Undecided:
        return None
    return None if found is None else _joined(found)


def _line(node: Node, value: Value) -> Line | None:
    match node:
        case NamedSet() if node.name in LINES:
            return LINES[node.name]
        case Interval():
            return [_piece(node.low, node.high, node.low_closed, node.high_closed, value)]
        case Group(kind=GroupKind.TUPLE, items=(low, high)):
            return [_piece(low, high, False, False, value)]
        case Group(kind=GroupKind.SET):
            return [_piece(item, item, True, True, value) for item in node.items]
        case Group(kind=GroupKind.LIST) if any(isinstance(item, Relation) for item in node.items):
            if not bound_one_name(node):
                return None
            parts = [_line(item, value) for item in node.items]
            total = _all(parts, _union)
            return _all(parts, _common) if total == _EVERYTHING else total  # x > 1, x < 3 is not the whole line
        case SetOp():
            parts = [_line(part, value) for part in node.parts]
            if node.op == "minus":
                return _all([parts[0], *(None if part is None else _complement(part) for part in parts[1:])], _common)
            return _all(parts, _union if node.op == "cup" else _common)
        case Builder() if isinstance(node.head, Sym):
            return _line(node.condition, value)
        case Builder(head=Relation(ops=("in",), sides=(Sym(), NamedSet(name="R")))):
            return _line(node.condition, value)
        case Relation():
            return _relation(node, value)
        case _:
            return None


def bound_one_name(group: Group) -> bool:
    """Return True if the comparisons of a list bound only one name: `x < 1 or y > 3` is not a union."""
    return len({symbols(item) for item in group.items if isinstance(item, Relation)}) <= 1


def _all(parts: Sequence[Line | None], combine: Callable[[Line, Line], Line]) -> Line | None:
    total: Line | None = None
    for part in parts:
        if part is None:
            return None
        total = part if total is None else combine(total, part)
        if len(total) > MAX_ITEMS:
            raise LimitExceeded(f"over {MAX_ITEMS} intervals")
    return total


def _end(node: Node, closed: bool, value: Value) -> End:
    if node == Const("oo") or node == Neg(Const("oo")):
        return End(None, None, False)
    if not isinstance(node, EXPRESSION) or symbols(node):
        raise Undecided("an end that is not a number")
    at = value(node)
    if at is None:
        raise Undecided("an end without a value")
    return End(node, at, closed)


def _piece(low: Node, high: Node, low_closed: bool, high_closed: bool, value: Value) -> Piece:
    if low == Const("oo") or high == Neg(Const("oo")):
        raise Undecided("an interval from infinity")
    found = Piece(_end(low, low_closed, value), _end(high, high_closed, value))
    first, last = found.low.at, found.high.at
    if (
        first is not None
        and last is not None
        and (first > last or (first == last and not (low_closed and high_closed)))
    ):
        raise Undecided("an interval from the right to the left")
    return found


def _relation(node: Relation, value: Value) -> Line | None:
    """Return the values of the single variable for which every comparison of the chain holds."""
    if len(symbols(node)) != 1:
        return None
    if node.ops == ("in",) and isinstance(node.sides[0], Sym):
        return _line(node.sides[1], value)
    total: Line | None = _EVERYTHING
    for left, op, right in zip(node.sides, node.ops, node.sides[1:], strict=False):
        part = _comparison(left, op, right, value)
        total = None if part is None or total is None else _common(total, part)
    return total


def _comparison(left: Node, op: str, right: Node, value: Value) -> Line | None:
    if op not in (*FLIPPED, "!=", "="):
        return None
    if {left, right} & {Const("oo"), Neg(Const("oo"))}:
        below = (left == Neg(Const("oo")) or right == Const("oo")) and op in ("<", "<=")
        above = (left == Const("oo") or right == Neg(Const("oo"))) and op in (">", ">=")
        return _EVERYTHING if below or above else None
    if isinstance(right, Call) and right.name == "abs":
        left, op, right = right, FLIPPED.get(op, op), left
    if isinstance(left, Call) and left.name == "abs" and not symbols(right):
        inner = left.args[0]
        within = op in ("<", "<=")
        parts = [_comparison(inner, op, right, value), _comparison(inner, FLIPPED.get(op, op), Neg(right), value)]
        return _all(parts, _common if within or op == "!=" else _union)
    solved = _solved(Add((left, Neg(right))))
    if solved is None:
        return None
    slope, bound = solved
    op = FLIPPED.get(op, op) if slope < 0 else op
    end, open_end = End(bound, value(bound), True), End(bound, value(bound), False)
    if end.at is None:
        return None
    nowhere = End(None, None, False)
    return {
        "<": [Piece(nowhere, open_end)],
        "<=": [Piece(nowhere, end)],
        ">": [Piece(open_end, nowhere)],
        ">=": [Piece(end, nowhere)],
        "=": [Piece(end, end)],
        "!=": [Piece(nowhere, open_end), Piece(open_end, nowhere)],
    }[op]


def _solved(difference: Node) -> tuple[Fraction, Node] | None:
    """Return (a, -b/a as a tree) if the difference is a x + b with rational a; else None."""
    if isinstance(difference, Add) and len(difference.terms) == 2:  # x - c, with c as written
        left, right = difference.terms
        if isinstance(left, Sym) and isinstance(right, Neg) and not symbols(right):
            return Fraction(1), right.operand
        if isinstance(right, Neg) and isinstance(right.operand, Sym) and not symbols(left):
            return Fraction(-1), left
    names = symbols(difference)
    if len(names) != 1:  # `1 <= i`, next to the unknown in another link of the chain
        return None
    (name,) = names
    try:
        form = normal.normal_form(difference, Budget())
    except Undecided:
        return None
    monomial = ((name, 1),)
    slope = form.top.get(monomial)
    if set(form.bottom) != {normal.ONE} or slope is None:
        return None
    if any(name == atom or f"{name}^" in atom for m in form.top if m != monomial for atom, _ in m):
        return None
    constant = Add(tuple(_tree(m, c) for m, c in form.top.items() if m != monomial) or (Num(0),))
    if symbols(constant):
        return None
    scaled = constant.terms[0] if len(constant.terms) == 1 else constant
    return slope / form.bottom[normal.ONE], Div(Neg(scaled), Num(slope))


def _tree(monomial: normal.Monomial, coefficient: Fraction) -> Node:
    if monomial != normal.ONE:
        raise Undecided("a bound that is not rational")
    return Num(coefficient)


def within(lines: Sequence[Line]) -> Line:
    """Return the complement of the union of these sets."""
    total: Line = []
    for line in lines:
        total = _union(total, line)
    return _complement(total)


# ---- the algebra of pieces -----------------------------------------------------------------------


def _starts(piece: Piece) -> tuple[int, Fraction, int]:
    end = piece.low
    return (0, Fraction(0), 0) if end.at is None else (1, end.at, 0 if end.closed else 1)


def _joined(line: Line) -> Line:
    """Return the pieces sorted, with overlapping and touching ones merged."""
    total: Line = []
    for piece in sorted(line, key=_starts):
        if total and _touch(total[-1].high, piece.low):
            total[-1] = Piece(total[-1].low, _later(total[-1].high, piece.high))
        else:
            total.append(piece)
    return total


def _touch(high: End, low: End) -> bool:
    if high.at is None or low.at is None:
        return True
    return high.at > low.at or (high.at == low.at and (high.closed or low.closed))


def _later(first: End, second: End) -> End:
    if first.at is None or second.at is None:
        return first if first.at is None else second
    if first.at == second.at:
        return first if first.closed else second
    return first if first.at > second.at else second


def _union(left: Line, right: Line) -> Line:
    return _joined([*left, *right])


def _complement(line: Line) -> Line:
    total: Line = []
    low = End(None, None, False)
    beginning = True
    for piece in _joined(line):
        if piece.low.at is not None:
            total.append(Piece(low, End(piece.low.node, piece.low.at, not piece.low.closed)))
        elif not beginning:
            raise AssertionError("pieces out of order")
        beginning = False
        if piece.high.at is None:
            return total
        low = End(piece.high.node, piece.high.at, not piece.high.closed)
    total.append(Piece(low, End(None, None, False)))
    return total


def _common(left: Line, right: Line) -> Line:
    return _complement(_union(_complement(left), _complement(right)))
