"""Comparison of an answer with the reference: structures part by part, scalars by tiers, the cheapest first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verifiers.mathematics import integrals, rewrites
from verifiers.mathematics.equality import constants, readings
from verifiers.mathematics.equality.comparer import Comparer, Comparison, Pair, Policy, replaced
from verifiers.mathematics.equality.groups import groups, matrix_or_vector, ratios
from verifiers.mathematics.equality.piecewise import piecewise
from verifiers.mathematics.equality.realsets import line_of
from verifiers.mathematics.equality.recurrences import same_sequence
from verifiers.mathematics.equality.relations import relations
from verifiers.mathematics.equality.residues import same_residues
from verifiers.mathematics.equality.scalars import bases, is_question, numbers, quantities, rounds, scalars, undecidable
from verifiers.mathematics.limits import LimitExceeded
from verifiers.mathematics.nodes import (
    EXPRESSION,
    BaseNumber,
    Builder,
    Cases,
    Clock,
    Const,
    Date,
    Group,
    GroupKind,
    Interval,
    Matrix,
    NamedSet,
    Node,
    Num,
    PlusMinus,
    Quantity,
    Ratio,
    Relation,
    SetOp,
    Sym,
    Text,
    children,
    contains,
    symbols,
)

NOTHING: Mapping[Pair, bool] = {}


def compare(
    reference: Node, answer: Node, policy: Policy | None = None, decided: Mapping[Pair, bool] = NOTHING
) -> Comparison:
    """Compare an answer with the reference. Symmetric, except for the rounding of decimal references.

    Args:
        reference: tree of the reference.
        answer: tree of the answer.
        policy: what counts as the same; None: the defaults.
        decided: results from elsewhere for pairs of expressions that an earlier `Comparison.open` had.

    Never raises: if a limit is reached, the `Comparison` names it.
    """
    comparer = _Comparer(policy or Policy(), decided)
    try:
        reference, answer = readings.natural_logarithms(reference, answer)
        said = same_sequence(comparer, reference, answer)
        said = same_residues(comparer, reference, answer) if said is None else said
        equal = comparer.same(reference, answer) if said is None else said
        if not equal and (products := readings.as_products(reference, answer)) is not None:
            equal = comparer.same(*products)
        if comparer.open and not equal:
            return Comparison(False, "undecided", open=tuple(comparer.open))
        return Comparison(equal, comparer.tier)
    except LimitExceeded as error:
        return Comparison(False, "limit", str(error))
    except RecursionError:
        return Comparison(False, "limit", "the answer is nested too deep")


class _Comparer(Comparer):
    def same(self, gold: Node, answer: Node) -> bool:
        if gold == answer:
            return True
        return self._same(gold, answer) or (
            readings.is_range(gold) and readings.is_range(answer) and _ranges(self, gold, answer)
        )

    def _same(self, gold: Node, answer: Node) -> bool:
        if isinstance(gold, Num) and isinstance(answer, Num):
            return numbers(self, gold, answer)
        values = constants.literal(gold), constants.literal(answer)
        if values[0] is not None and values[1] is not None and self.policy.unsimplified:
            self.reach("number")
            return values[0] == values[1] or rounds(self, gold, values[1], answer)
        self.reach("structure")
        if not contains(gold, Group):
            answer = rewrites.combinations(answer)
        elif not contains(answer, Group):
            gold = rewrites.combinations(gold)
        gold, answer = readings.plain(gold), readings.plain(answer)
        if isinstance(gold, Builder) != isinstance(answer, Builder):
            gold, answer = readings.stated(gold), readings.stated(answer)
        if gold == answer:
            return True
        if _count(gold) != _count(answer):
            gold, answer = rewrites.without_domain(gold), rewrites.without_domain(answer)
        if rewrites.family(gold) or rewrites.family(answer):
            return _families(self, gold, answer)
        if contains(gold, PlusMinus) or contains(answer, PlusMinus):
            return groups(self, readings.both_signs(gold), readings.both_signs(answer))
        return self._by_kind(gold, answer)

    def _by_kind(self, gold: Node, answer: Node) -> bool:
        handler = _either_side(_STATEMENTS, gold, answer)
        if handler is None:
            gold, answer = readings.as_set(gold), readings.as_set(answer)
            handler = _either_side(_SEVERAL, gold, answer)
        if handler is not None:
            return handler(self, gold, answer)
        if isinstance(gold, EXPRESSION) and isinstance(answer, EXPRESSION):
            return scalars(self, gold, answer)
        if isinstance(gold, Cases) != isinstance(answer, Cases):
            return piecewise(self, gold, answer)
        if type(gold) is not type(answer):
            return _mixed(self, gold, answer)
        alike = _ALIKE.get(type(gold))
        return alike is not None and alike(self, gold, answer)


def _count(node: Node) -> int:
    return len(node.items) if isinstance(node, Group) else 0


Handler = Callable[[Comparer, Node, Node], bool]
_STATEMENTS: Sequence[tuple[type[Node], Handler]] = ((Relation, relations), (Quantity, quantities))
_SEVERAL: Sequence[tuple[type[Node], Handler]] = ((Group, groups), (Ratio, ratios), (BaseNumber, bases))
"""Kinds that determine how a pair is compared if one side is of that kind; the first matching kind counts."""


def _either_side(handlers: Sequence[tuple[type[Node], Handler]], gold: Node, answer: Node) -> Handler | None:
    return next((handler for kind, handler in handlers if isinstance(gold, kind) or isinstance(answer, kind)), None)


def _intervals(comparer: Comparer, gold: Interval, answer: Interval) -> bool:
    closed = (gold.low_closed, gold.high_closed) == (answer.low_closed, answer.high_closed)
    return closed and comparer.same(gold.low, answer.low) and comparer.same(gold.high, answer.high)


def _set_operations(comparer: Comparer, gold: SetOp, answer: SetOp) -> bool:
    if gold.op != answer.op or len(gold.parts) != len(answer.parts):
        return False
    return (comparer.in_order if gold.op == "minus" else comparer.matched)(gold.parts, answer.parts)


def _matrices(comparer: Comparer, gold: Matrix, answer: Matrix) -> bool:
    shapes = [len(row) for row in gold.rows] == [len(row) for row in answer.rows]
    if gold.bar and answer.bar:
        values = rewrites.determinant(gold), rewrites.determinant(answer)
        return values[0] is not None and values[1] is not None and comparer.same(values[0], values[1])
    return shapes and gold.bar == answer.bar and comparer.in_order(children(gold), children(answer))


def _cases(comparer: Comparer, gold: Cases, answer: Cases) -> bool:
    if [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
        return piecewise(comparer, gold, answer)
    rows = [Group(GroupKind.TUPLE, row) for row in gold.rows]
    matched = comparer.matched(rows, [Group(GroupKind.TUPLE, row) for row in answer.rows])
    return matched or piecewise(comparer, gold, answer)


def _builders(comparer: Comparer, gold: Builder, answer: Builder) -> bool:
    renamed = readings.renamed_like(answer, gold)
    return comparer.same(gold.head, renamed.head) and comparer.same(gold.condition, renamed.condition)


def _clocks(comparer: Comparer, gold: Clock, answer: Clock) -> bool:
    if gold.meridiem and answer.meridiem and gold.meridiem != answer.meridiem:
        return False
    return gold.minutes == answer.minutes or (
        bool(gold.meridiem) != bool(answer.meridiem) and (gold.minutes - answer.minutes) % 720 == 0
    )


def _dates(comparer: Comparer, gold: Date, answer: Date) -> bool:
    years = gold.year == answer.year or not (gold.year and answer.year)
    return years and (gold.month, gold.day) == (answer.month, answer.day)


def _texts(comparer: Comparer, gold: Text, answer: Text) -> bool:
    return readings.words(gold) == readings.words(answer)


_ALIKE: Mapping[type, Callable[[Comparer, Any, Any], bool]] = {
    Interval: _intervals,
    SetOp: _set_operations,
    Matrix: _matrices,
    Cases: _cases,
    Builder: _builders,
    Clock: _clocks,
    Date: _dates,
    Text: _texts,
}
"""Kind -> comparison of two nodes of that kind that are not identical."""


def _families(comparer: Comparer, gold: Node, answer: Node) -> bool:
    """Compare families of values, such as `2k, k in Z`. `k in Z` may be missing on one side, and k may have another
    name.
    """
    found = [rewrites.family(side) or (side, frozenset[str]()) for side in (gold, answer)]
    (first, names), (second, others) = found
    free = symbols(second) - symbols(first)
    if integrals.has_antiderivative(first) and all(map(integrals.FREE_CONSTANT.fullmatch, others)):
        return comparer.same(first, second)  # + C, C in R
    others = others or (free if len(free) == 1 else names)
    if len(names or others) != 1 or len(others) != 1:
        return False
    (name,) = names or (symbols(first) - symbols(second) or others)
    (other,) = others
    if other in symbols(first) and other != name:
        return False
    return comparer.same(first, rewrites.renamed(second, {other: name}))


def _ranges(comparer: Comparer, gold: Node, answer: Node) -> bool:
    """Compare two sets of reals in any notation, by their canonical pieces."""
    if isinstance(gold, Group) and isinstance(answer, Group) and gold.kind is answer.kind:
        return False
    names = symbols(gold), symbols(answer)
    if names[0] and names[1] and names[0] != names[1] and not isinstance(gold, Builder):
        return False
    lines = line_of(gold, constants.place), line_of(answer, constants.place)
    if lines[0] is None or lines[1] is None or len(lines[0]) != len(lines[1]):
        return False
    return all(
        a.closed == b.closed and (a.node is b.node or (a.node and b.node and comparer.same(a.node, b.node)))
        for piece, other in zip(lines[0], lines[1], strict=True)
        for a, b in ((piece.low, other.low), (piece.high, other.high))
    )


def _mixed(comparer: Comparer, gold: Node, answer: Node) -> bool:
    for one, other in ((gold, answer), (answer, gold)):
        if isinstance(one, Text):
            if isinstance(other, NamedSet):
                return other.name == "empty" and one.words == ("none",)
            return isinstance(other, Sym | Const) and readings.words(one) == (other.name.lower(),)
        if isinstance(one, NamedSet) and one.name == "empty" and isinstance(other, Group):
            return not other.items
        if isinstance(one, Builder) and not isinstance(other, Builder):
            if isinstance(one.condition, Relation) and isinstance(one.head, Sym):
                as_interval = readings.interval_of(one.condition)
                return as_interval is not None and comparer.same(*replaced(gold, one, as_interval, other))
            return False
        if isinstance(one, Matrix) and isinstance(other, EXPRESSION):
            if one.bar:
                value = rewrites.determinant(one)
                return value is not None and comparer.same(*replaced(gold, one, value, other))
            if len(children(one)) == 1:
                return comparer.same(*replaced(gold, one, children(one)[0], other))
            return matrix_or_vector(comparer, gold, answer, one, other)
    return False


__all__ = ["Comparison", "Pair", "Policy", "compare", "is_question", "undecidable"]
