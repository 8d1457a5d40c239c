"""Comparison of equations, inequalities and statements of a value."""

from __future__ import annotations

from verifiers.mathematics.equality import constants, normal, readings
from verifiers.mathematics.equality.comparer import Comparer, replaced
from verifiers.mathematics.equality.realsets import FLIPPED
from verifiers.mathematics.equality.scalars import rounds
from verifiers.mathematics.limits import Budget, Undecided
from verifiers.mathematics.nodes import (
    EXPRESSION,
    Add,
    Builder,
    Call,
    Cases,
    Group,
    Interval,
    Neg,
    Node,
    Relation,
    SetOp,
    Sym,
    symbols,
)


def relations(comparer: Comparer, gold: Node, answer: Node) -> bool:
    """Compare two relations, or a relation with the value or interval that it states."""
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return _two_relations(comparer, gold, answer)
    relation, other = (gold, answer) if isinstance(gold, Relation) else (answer, gold)
    assert isinstance(relation, Relation)
    if relation.ops == ("in",):
        return comparer.same(*replaced(gold, relation, relation.sides[1], other))
    if isinstance(other, Interval | SetOp | Builder) or (isinstance(other, Group) and len(other.items) == 2):
        interval = readings.interval_of(relation)
        if interval is not None:
            return comparer.same(*replaced(gold, relation, interval, other))
    if isinstance(other, Builder):
        return False
    if relation.ops[-1] == "approx" and not symbols(relation.sides[-1]) and not symbols(relation.sides[-2]):
        return _approximated(comparer, gold, relation, other)
    value = _value_of(comparer, relation)
    if value is None and readings.labels_a_value(relation) and len(relation.sides) == 2:
        value = relation.sides[-1]
    if value is None and relation is answer and readings.states_a_value(relation):
        value = relation.sides[-1]
        if not all(comparer.same(value, side) for side in relation.sides[1:-1]):
            return False
    return value is not None and comparer.same(*replaced(gold, relation, value, other))


def _approximated(comparer: Comparer, gold: Node, relation: Relation, other: Node) -> bool:
    """Compare `x = 1/6 = 0.167`, with an approximation sign: either value is accepted if one is the other rounded."""
    exact, rounded = relation.sides[-2:]
    value = constants.exact(exact)
    if value is None or not rounds(comparer, rounded, value, exact):
        return False
    before = Relation(relation.sides[:-1], relation.ops[:-1]) if len(relation.ops) > 1 else exact
    return comparer.same(*replaced(gold, relation, before, other)) or comparer.same(
        *replaced(gold, relation, rounded, other)
    )


def _value_of(comparer: Comparer, relation: Relation) -> Node | None:
    """Return the value that `x = 5`, `f(x) = x + 1` or `2 + 3 = 5` states; None if a relation states none."""
    if any(op not in ("=", "approx", "equiv") for op in relation.ops):
        return None
    name, last = relation.sides[0], relation.sides[-1]
    if readings.is_name(name):
        if isinstance(name, Sym) and name.name in symbols(last):
            return None
        swapped = isinstance(name, Group) and name.items == (Sym("y"), Sym("x"))
        if swapped and isinstance(last, Group) and len(relation.sides) == 2:
            return Group(last.kind, last.items[::-1])
        middle = relation.sides[1:]
    else:
        if readings.is_name(last) and len(relation.sides) == 2 and isinstance(last, Sym) and not symbols(name):
            return name
        middle = relation.sides
        if isinstance(last, Cases) and len(relation.sides) == 2:  # |x - 2| by cases
            return last if isinstance(name, EXPRESSION) and comparer.same(name, last) else None
        if symbols(name) and len(relation.sides) == 2:
            return None
    if any(not comparer.same(side, last) for side in middle[:-1] if "approx" not in relation.ops):
        return None
    return last


def _two_relations(comparer: Comparer, gold: Relation, answer: Relation) -> bool:
    if len(gold.ops) == 1 and len(answer.ops) == 1:
        first, second = readings.oriented(gold), readings.oriented(answer)
        if first.ops != second.ops:
            return False
        if comparer.in_order(first.sides, second.sides):
            return True
        op = first.ops[0]
        if op in ("=", "!=") and comparer.in_order(first.sides, second.sides[::-1]):
            return True
        if op in ("=", "!=", "<", "<="):
            if readings.is_definition(first) and readings.is_definition(second):
                return _definitions(comparer, first, second)
            if op == "=" and isinstance(gold.sides[1], Cases) and isinstance(answer.sides[1], Cases):
                wanted, given = _value_of(comparer, gold), _value_of(comparer, answer)
                return wanted is not None and given is not None and comparer.same(wanted, given)
            return _proportional(comparer, first, second)
        return False
    values = [_value_of(comparer, relation) for relation in (gold, answer)]
    if values[0] is not None and values[1] is not None and set(gold.ops) | set(answer.ops) == {"="}:
        return comparer.same(values[0], values[1])
    intervals = readings.interval_of(gold), readings.interval_of(answer)
    if intervals[0] is not None and intervals[1] is not None and symbols(gold) == symbols(answer):
        return comparer.same(intervals[0], intervals[1])
    if gold.ops == answer.ops:
        return comparer.in_order(gold.sides, answer.sides)
    flipped = tuple(FLIPPED.get(op, op) for op in reversed(answer.ops))
    return gold.ops == flipped and comparer.in_order(gold.sides, answer.sides[::-1])


def _definitions(comparer: Comparer, first: Relation, second: Relation) -> bool:
    """Compare definitions: `f(x) = 2x` and `y = 2x` are the same.

    The left sides may differ if they are only names, but must have the same number of primes.
    """
    if _primes(first.sides[0]) != _primes(second.sides[0]):
        return False
    if first.sides[0] != second.sides[0] and isinstance(first.sides[0], Sym) and isinstance(second.sides[0], Sym):
        if not (symbols(first.sides[1]) or symbols(second.sides[1])):
            return (
                comparer.same(first.sides[1], second.sides[1])
                and len(first.sides[0].name) == len(second.sides[0].name)
                and first.sides[0].name.lower() == second.sides[0].name.lower()
            )
        return _proportional(comparer, first, second)
    renamed = readings.bound_like(second, first)
    return renamed is not None and comparer.same(first.sides[1], renamed.sides[1])


def _primes(name: Node) -> int:
    """Return the number of primes of a function name: 1 for f'(x)."""
    head = name.args[0] if isinstance(name, Call) and name.name == "apply" else name
    return head.name.count("'") if isinstance(head, Sym) else 0


def _proportional(comparer: Comparer, first: Relation, second: Relation) -> bool:
    """Return True if left - right of one relation is a constant times that of the other (positive for inequalities)."""
    comparer.reach("normal form")
    try:
        budget = Budget()
        sides = [
            normal.normal_form(Add((relation.sides[0], Neg(relation.sides[1]))), budget) for relation in (first, second)
        ]
    except Undecided:
        return False
    (left, left_bottom), (right, right_bottom) = sides
    if set(left) <= {normal.ONE} or set(right) <= {normal.ONE}:
        return False  # statements about numbers, whose sides have been compared
    if first.ops[0] in ("<", "<=") and not (set(left_bottom) == set(right_bottom) == {normal.ONE}):
        return False
    if set(left) != set(right):
        return False
    monomial = min(left, key=str)
    factor = left[monomial] / right[monomial]
    if any(left[m] != factor * right[m] for m in left):
        return False
    return first.ops[0] in ("=", "!=") or factor / (left_bottom[normal.ONE] / right_bottom[normal.ONE]) > 0
