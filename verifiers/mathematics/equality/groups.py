"""Comparison of several values: lists, tuples, sets, vectors and ratios."""

from __future__ import annotations

from collections.abc import Mapping

from verifiers.mathematics import rewrites
from verifiers.mathematics.equality import constants, readings
from verifiers.mathematics.equality.comparer import Comparer, replaced
from verifiers.mathematics.equality.realsets import bound_one_name
from verifiers.mathematics.nodes import (
    EXPRESSION,
    Call,
    Clock,
    Div,
    Dots,
    Group,
    GroupKind,
    Interval,
    Matrix,
    Mul,
    NamedSet,
    Neg,
    Node,
    Num,
    Ratio,
    Relation,
    SetOp,
    Sym,
    Text,
    children,
    contains,
    symbols,
)


def groups(comparer: Comparer, gold: Node, answer: Node) -> bool:
    """Compare two nodes of which at least one is a group: values in order, in any order, or without repetition."""
    if isinstance(gold, Group) and isinstance(answer, Group):
        return _two_groups(comparer, gold, answer)
    one, other = (gold, answer) if isinstance(gold, Group) else (answer, gold)
    assert isinstance(one, Group)
    return _group_and_other(comparer, gold, answer, one, other)


def _group_and_other(comparer: Comparer, gold: Node, answer: Node, one: Group, other: Node) -> bool:
    """Compare a group with a node that may mean the same: a matrix, an interval, its only item."""
    if isinstance(other, NamedSet) and other.name == "R":
        return readings.whole_line(one)
    if isinstance(other, SetOp) and other.op == "cup" and one.kind is GroupKind.LIST:
        pieces = [readings.interval_of(item) if isinstance(item, Relation) else item for item in one.items]
        if any(piece is None for piece in pieces) or not bound_one_name(one):
            return False
        union = SetOp("cup", tuple(piece for piece in pieces if piece is not None))
        return comparer.same(*replaced(gold, one, union, other))
    if isinstance(other, Num) and other.groups and one.kind is GroupKind.LIST:
        return comparer.same(*replaced(gold, one, one, readings.grouped(other)))
    if isinstance(other, Matrix) and one.kind is not GroupKind.SET:
        vector = len(other.rows) == 1 or len(other.rows[0]) == 1
        return vector and comparer.in_order(*replaced(gold, one, one.items, children(other)))
    if isinstance(other, Interval) and one.kind is GroupKind.TUPLE and len(one.items) == 2:
        if other.low_closed or other.high_closed:
            return False
        return comparer.in_order(*replaced(gold, one, one.items, (other.low, other.high)))
    if len(one.items) == 1:
        return comparer.same(*replaced(gold, one, one.items[0], other))
    if isinstance(other, Call) and other.name == "binom" and one.kind is GroupKind.TUPLE:
        return comparer.in_order(*replaced(gold, one, one.items, other.args))  # a column vector
    again = one.kind is GroupKind.LIST and isinstance(other, EXPRESSION) and len(one.items) <= 4
    if (
        again
        and len(set(one.items)) == len(one.items)
        and all(comparer.same(*replaced(gold, one, item, other)) for item in one.items)
    ):
        return True  # 7/2, or 3.5
    if isinstance(other, EXPRESSION) and one.kind is GroupKind.TUPLE:
        return matrix_or_vector(comparer, gold, answer, one, other)
    if isinstance(other, Sym) and all(readings.is_letter(item) for item in one.items):
        letters = sorted(item.name for item in one.items if isinstance(item, Sym))
        return letters == sorted(other.name)
    return False


def _two_groups(comparer: Comparer, gold: Group, answer: Group) -> bool:
    if not comparer.policy.ordered_lists:
        gold, answer = _points_once(gold), _points_once(answer)
    if len(gold.items) != len(answer.items):
        if gold.kind is answer.kind is GroupKind.SET:
            return comparer.each_in(gold.items, answer.items) and comparer.each_in(answer.items, gold.items)
        return False
    if contains(gold, Relation) and contains(answer, Relation):
        answer = readings.parameter_like(answer, gold)
    if contains(gold, Call) and contains(answer, Call):
        answer = readings.all_bound_like(answer, gold)
    assigned = readings.assignments(gold), readings.assignments(answer)
    if assigned[0] and assigned[1]:
        return assigned[0].keys() == assigned[1].keys() and all(
            comparer.same(value, assigned[1][name]) for name, value in assigned[0].items()
        )
    if any(names and _is_turned_round(names) for names in assigned):
        return False
    for mine, theirs in ((gold, assigned[1]), (answer, assigned[0])):
        if theirs and mine.kind is GroupKind.TUPLE:
            sorted_values = tuple(theirs[name] for name in sorted(theirs))
            orders = {sorted_values} if readings.coordinate_names(theirs) else {sorted_values, tuple(theirs.values())}
            return any(comparer.in_order(*replaced(gold, mine, mine.items, values)) for values in orders)
    if GroupKind.TUPLE in (gold.kind, answer.kind) or comparer.policy.ordered_lists or readings.has_dots(gold, answer):
        if GroupKind.SET in (gold.kind, answer.kind) and GroupKind.TUPLE in (gold.kind, answer.kind):
            return False
        return comparer.in_order(gold.items, answer.items)
    return comparer.matched(gold.items, answer.items)


_EXTREMES = tuple(repr(Text((name,))) for name in ("maximum", "minimum"))


def _is_turned_round(named: Mapping[str, Node]) -> bool:
    """Return True if the value called maximum is less than the value called minimum."""
    ends = [named.get(name) for name in _EXTREMES]
    values = [None if end is None else constants.exact(end) for end in ends]
    return values[0] is not None and values[1] is not None and values[0] < values[1]


def _points_once(group: Group) -> Group:
    """Return a list of points without repeats: (1, 2), (3, 4), (1, 2) are two solutions. Numbers may be repeated."""
    points = [item for item in group.items if isinstance(item, Group) and item.kind is GroupKind.TUPLE]
    if group.kind is not GroupKind.LIST or len(points) < len(group.items):
        return group
    return Group(group.kind, tuple(dict.fromkeys(group.items)))


def matrix_or_vector(comparer: Comparer, gold: Node, answer: Node, one: Matrix | Group, other: Node) -> bool:
    """Compare a matrix or vector with an expression: `k A` with a matrix, `3i + 4j` with a vector."""
    if contains(other, Matrix):
        matrix = rewrites.worked_out(other)
        if matrix is None:
            return comparer.left_open(gold, answer)
        return comparer.same(*replaced(gold, one, one, matrix))
    items = children(one)
    if isinstance(one, Matrix) and 1 not in (len(one.rows), len(one.rows[0])):
        return False
    if isinstance(other, Mul | Div | Neg) and isinstance(one, Group) and contains(other, Group):
        return _multiple_of_vector(comparer, gold, one, other)
    if not rewrites.is_in_unit_vectors(other):
        return False
    written = rewrites.in_unit_vectors(items)
    return written is not None and comparer.same(*replaced(gold, one, written, other))


def _multiple_of_vector(comparer: Comparer, gold: Node, one: Group, other: Node) -> bool:
    """Compare a vector with a multiple of one: `1/2 (2, 4)` with `(1, 2)`."""
    factors = other.factors if isinstance(other, Mul) else ()
    vectors = [factor for factor in factors if isinstance(factor, Group)]
    if len(vectors) != 1 or any(symbols(factor) for factor in factors if not isinstance(factor, Group)):
        return False
    rest = tuple(factor for factor in factors if not isinstance(factor, Group))
    scaled = Group(GroupKind.TUPLE, tuple(Mul((*rest, item)) for item in vectors[0].items))
    return comparer.same(*replaced(gold, one, one, scaled))


def ratios(comparer: Comparer, gold: Node, answer: Node) -> bool:
    """Compare a ratio with another one, or with a node that can be read as one: a quotient, a time of day."""
    if isinstance(gold, Ratio) and isinstance(answer, Ratio):
        if len(gold.parts) != len(answer.parts):
            return False
        if contains(gold, Dots) or contains(answer, Dots):
            return comparer.in_order(gold.parts, answer.parts)
        (a, *rest), (b, *others) = gold.parts, answer.parts
        if not all(isinstance(part, EXPRESSION) for part in (*gold.parts, *answer.parts)):
            return False
        return all(comparer.same(Mul((a, y)), Mul((b, x))) for x, y in zip(rest, others, strict=True)) and not all(
            part == Num(0) for part in (*gold.parts, *answer.parts)
        )
    ratio, other = (gold, answer) if isinstance(gold, Ratio) else (answer, gold)
    assert isinstance(ratio, Ratio)
    if isinstance(other, Clock):
        as_ratio = readings.clock_as_ratio(other)
        return as_ratio is not None and comparer.same(*replaced(gold, ratio, ratio, as_ratio))
    if len(ratio.parts) != 2 or not isinstance(other, EXPRESSION) or contains(ratio, Dots):
        return False
    return comparer.same(*replaced(gold, ratio, Div(ratio.parts[0], ratio.parts[1]), other))
