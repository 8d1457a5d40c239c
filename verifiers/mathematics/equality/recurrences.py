"""Sequences given by a recurrence, compared with the same one in another index or letter, or with a closed form."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from verifiers.mathematics.equality import constants
from verifiers.mathematics.equality.comparer import Comparer
from verifiers.mathematics.equality.realsets import FLIPPED
from verifiers.mathematics.nodes import (
    EXPRESSION,
    Add,
    Call,
    Cases,
    Group,
    GroupKind,
    Mul,
    NamedSet,
    Neg,
    Node,
    Num,
    Relation,
    Sym,
    children,
    symbols,
)
from verifiers.mathematics.rewrites import rebuilt, substituted

MAX_SHIFT = 20
"""Limit on the distance between two terms of a recurrence."""
TERMS = 8
"""Number of terms of two recurrences that are computed to distinguish them."""
_SUBSCRIPT = re.compile(r"([a-zA-Z])_(?:(\d{1,6})|([a-z])(?:([+-])(\d{1,2}))?)")
_INDICES = frozenset("nkmijlprstN")
_POSITIVE = frozenset(("N^*", "N^+", "N_+", "N^{+}", "Z^+", "Z_+", "Z^{+}"))


class _Place(NamedTuple):
    """The index of a term: `a_{n+1}` is (a, n, 1), `a_1` is (a, "", 1)."""

    sequence: str
    letter: str
    """Letter of its index, or ""."""
    shift: int


@dataclass(frozen=True, slots=True)
class _Sequence:
    """The statements about one sequence. `a_{n+1} = 2a_n + 1, a_1 = 1` has the relation `term 0 = 2 (term 1) + 1`."""

    relation: tuple[Node, Node]
    """Its two sides. Term k is k places before the highest term; `index` is the index of the highest term."""
    order: int
    """Distance between its highest and its lowest term; 0 for a closed form."""
    starts: Mapping[int, Node]
    """Index -> value of an initial term."""
    stated: int | None
    """First index of the highest term, if a condition states it."""
    name: str
    index: str
    """Letter of the sequence, and letter of its index."""

    @property
    def first(self) -> int | None:
        """First index of the highest term: as stated, or the one after the last initial term."""
        return self.stated if self.stated is not None or not self.starts else max(self.starts) + 1


def same_sequence(comparer: Comparer, gold: Node, answer: Node) -> bool | None:
    """Return True if an answer gives the reference's sequence, by the same recurrence or in closed form; None for
    others.

    A closed form is inserted into the recurrence and its initial terms, which must hold for any index: a proof by
    induction. Another recurrence may give the same terms: that is left undecided, and so is a recurrence for a closed
    form.
    """
    if not _states_relations(gold) or not _states_relations(answer):
        return None
    applied = _applied_names(gold)
    wanted = _sequence(gold, applied)
    given = _sequence(answer, applied) if wanted is not None else None
    if wanted is None or given is None:
        return None
    if not wanted.order and not given.order:
        return True if _same_formula(comparer, wanted, given) else None
    if not given.order:
        return _fulfils(comparer, wanted, given)
    if not wanted.order:
        return comparer.left_open(gold, answer)
    if wanted.starts.keys() != given.starts.keys() or _begin_apart(wanted, given):
        return False
    if not all(comparer.same(value, given.starts[place]) for place, value in wanted.starts.items()):
        return False
    if _same_relation(comparer, wanted, given):
        return True
    return not _differ_at_a_term(wanted, given) and comparer.left_open(gold, answer)


def _differ_at_a_term(wanted: _Sequence, given: _Sequence) -> bool:
    """Return True if one of the first terms after the initial ones is known to differ."""
    pairs = zip(_terms(wanted), _terms(given), strict=True)
    return any(a is not None and b is not None and abs(a - b) > abs(a) / 2**80 for a, b in pairs)


def _terms(sequence: _Sequence) -> list[Fraction | None]:
    """Return the first TERMS terms after the initial ones, to about 40 digits; None from the first unknown one on."""
    left, right = sequence.relation
    known = {index: constants.place(value) for index, value in sequence.starts.items()}
    found: list[Fraction | None] = []
    for index in range(max(known, default=0) + 1, max(known, default=0) + 1 + TERMS):
        before = {f"term {k}": known.get(index - k) for k in range(1, sequence.order + 1)}
        values: dict[str, Node] = {name: Num(value) for name, value in before.items() if value is not None}
        explicit = left == Sym("term 0") and len(values) == sequence.order
        known[index] = constants.place(substituted(right, values | {"index": Num(index)})) if explicit else None
        found.append(known[index])
    return found


def _states_relations(node: Node) -> bool:
    """Return True for a relation, or a list or system that begins with one."""
    first = node.items[0] if isinstance(node, Group) and node.items else node
    return isinstance(first, Relation | Cases)


def _begin_apart(wanted: _Sequence, given: _Sequence) -> bool:
    return None not in (wanted.first, given.first) and wanted.first != given.first


def _same_relation(comparer: Comparer, wanted: _Sequence, given: _Sequence) -> bool:
    relations = [Relation(side.relation, ("=",)) for side in (wanted, given)]
    return wanted.order == given.order and comparer.same(relations[0], relations[1])


def _same_formula(comparer: Comparer, wanted: _Sequence, given: _Sequence) -> bool:
    """Compare closed forms: `a_n = 2^n` equals `a_n = 2^n, n >= 1`; v_x and v_y are different."""
    if (wanted.name, wanted.index) != (given.name, given.index) or _begin_apart(wanted, given):
        return False
    if None in (wanted.first, given.first) and max(wanted.first or 0, given.first or 0) > 1:
        return False  # n >= 5 leaves terms out
    return not wanted.starts and not given.starts and _same_relation(comparer, wanted, given)


def _fulfils(comparer: Comparer, recurrence: _Sequence, closed: _Sequence) -> bool:
    left, right = recurrence.relation
    starts = sorted(recurrence.starts)
    term, formula = closed.relation
    if term != Sym("term 0") or left != Sym("term 0") or "term 0" in symbols(right) or closed.name != recurrence.name:
        return False
    if len(starts) < recurrence.order or starts != [*range(starts[0], starts[-1] + 1)] or closed.starts:
        return False
    if recurrence.first != starts[-1] + 1 or closed.stated not in (None, starts[0]):
        return False

    def at(index: Node) -> Node:
        return substituted(formula, {"index": index})

    if not all(comparer.same(recurrence.starts[place], at(Num(place))) for place in starts):
        return False
    terms: dict[str, Node] = {f"term {k}": at(Add((Sym("index"), Neg(Num(k))))) for k in range(recurrence.order + 1)}
    whole: dict[str, Node] = {"index": Sym("n")}  # a letter for integers
    return comparer.same(*(substituted(substituted(side, terms), whole) for side in (left, right)))


def _applied_names(node: Node) -> frozenset[str]:
    equations = [s for s in _statements(node) if isinstance(s, Relation)]
    return frozenset(_applied_name(part) for equation in equations for part in _parts(equation)) - {""}


def _sequence(node: Node, applied: frozenset[str]) -> _Sequence | None:
    """Return the single sequence of a relation, or of a list or system of relations; None for anything else."""
    statements = [*_statements(node)]
    if not statements or not all(isinstance(s, Relation) for s in statements):
        return None
    relations = [s for s in statements if isinstance(s, Relation)]
    equations = [s for s in relations if set(s.ops) == {"="}]
    applied |= _applied_names(node)
    found: list[tuple[Relation, frozenset[_Place]]] = []
    for equation in equations:
        read = _with_terms(equation, applied)
        found.append((read, frozenset(_places(read))))
    everywhere = frozenset[_Place]().union(*(places for _, places in found))
    letters = {place.letter for place in everywhere} - {""}
    if len({place.sequence for place in everywhere}) != 1 or len(letters) != 1 or not letters <= _INDICES:
        return None
    (index,), (name,) = letters, {place.sequence for place in everywhere}
    starts: dict[int, Node] = {}
    rules: list[Relation] = []
    for equation, places in found:
        if any(place.letter for place in places):
            rules.append(equation)
        elif not _take_starts(equation, starts):
            return None
    if len(rules) != 1 or len(rules[0].sides) != 2:
        return None
    conditions = [s for s in relations if set(s.ops) != {"="} and not _of_whole_numbers(s)]
    stated = [_first_index(s, index) for s in conditions]
    if len(stated) > 1 or (stated and stated[0] is None):
        return None
    return _canonical(rules[0], index, name, starts, stated[0] if stated else None)


def _canonical(
    rule: Relation, index: str, name: str, starts: Mapping[int, Node], stated: int | None
) -> _Sequence | None:
    places = [*_places(rule)]
    shifts = {place.shift for place in places}
    highest, lowest = max(shifts), min(shifts)
    if highest - lowest > MAX_SHIFT or any(not place.letter for place in places):
        return None
    names: dict[str, Node] = {_key(place): Sym(f"term {highest - place.shift}") for place in places}
    names[index] = Add((Sym("index"), Num(-highest))) if highest else Sym("index")
    left, right = (substituted(side, names) for side in rule.sides)
    if right == Sym("term 0"):
        left, right = right, left
    if highest == lowest and (left != Sym("term 0") or "term 0" in symbols(right)):
        return None
    return _Sequence((left, right), highest - lowest, starts, None if stated is None else stated + highest, name, index)


def _statements(node: Node) -> Iterator[Node]:
    if isinstance(node, Group) and node.kind is not GroupKind.SET:
        yield from node.items
    elif isinstance(node, Cases):
        yield from children(node)
    else:
        yield node


def _parts(node: Node) -> Iterator[Node]:
    yield node
    for child in children(node):
        yield from _parts(child)


def _applied_name(node: Node) -> str:
    """Return the T of `T(1)`, by which `T(n - 1)` is recognised as an application too; "" for anything else."""
    head = node.args[0] if isinstance(node, Call) and node.name == "apply" and len(node.args) == 2 else None
    return head.name if isinstance(head, Sym) and len(head.name) == 1 else ""


def _with_terms(node: Relation, applied: frozenset[str]) -> Relation:
    read = _terms_named(node, applied)
    assert isinstance(read, Relation)
    return read


def _terms_named(node: Node, applied: frozenset[str]) -> Node:
    """Return the tree with `T(n - 1)` written as `T_{n-1}`, whether it was read as an application or as a product."""
    if isinstance(node, Call) and node.name == "apply" and len(node.args) == 2:
        term = _subscripted(_applied_name(node), node.args[1])
        if term is not None:
            return term
    if isinstance(node, Mul):
        factors: list[Node] = []
        for factor in node.factors:
            last = factors[-1] if factors else None
            if isinstance(last, Sym) and last.name in applied and (term := _subscripted(last.name, factor)):
                factors[-1] = term
            else:
                factors.append(_terms_named(factor, applied))
        return factors[0] if len(factors) == 1 else Mul(tuple(factors))
    return rebuilt(node, lambda part: _terms_named(part, applied))


def _subscripted(name: str, index: Node) -> Node | None:
    """Return `T_{n-1}` for T and `n - 1`, `T_1` for T and 1; None if the index is neither."""
    shift = constants.literal(index)
    letter = ""
    if isinstance(index, Sym):
        letter, shift = index.name, Fraction(0)
    elif isinstance(index, Add) and len(index.terms) == 2 and isinstance(index.terms[0], Sym):
        letter, shift = index.terms[0].name, constants.literal(index.terms[1])
    if not name or len(letter) > 1 or shift is None or shift.denominator != 1 or (not letter and shift < 0):
        return None
    return Sym(f"{name}_{letter}{int(shift):+d}" if letter and shift else f"{name}_{letter or int(shift)}")


def _place(name: str) -> _Place | None:
    found = _SUBSCRIPT.fullmatch(name)
    if found is None:
        return None
    sequence, number, index, sign, shift = found.groups()
    return _Place(sequence, index or "", int(number or f"{sign or ''}{shift or 0}"))


def _key(place: _Place) -> str:
    """Return the name of a term, as subscripts are read."""
    shift = f"{place.shift:+d}" if place.letter and place.shift else ""
    return f"{place.sequence}_{place.letter}{shift}" if place.letter else f"{place.sequence}_{place.shift}"


def _places(node: Node) -> Iterator[_Place]:
    return (place for name in symbols(node) if (place := _place(name)) is not None)


def _take_starts(equation: Relation, starts: dict[int, Node]) -> bool:
    """Store the initial values of `a_1 = 1` or `a_1 = a_2 = 1`; return False for anything else."""
    *terms, value = equation.sides
    if not isinstance(value, EXPRESSION) or [*_places(value)]:
        return False
    for term in terms:
        place = _place(term.name) if isinstance(term, Sym) else None
        if place is None or place.shift in starts:
            return False
        starts[place.shift] = value
    return True


def _of_whole_numbers(condition: Relation) -> bool:
    """Return True for `n \\in N` or `n \\in Z`, which do not say where a sequence begins."""
    over = condition.sides[-1]
    return condition.ops == ("in",) and isinstance(over, NamedSet) and over.name in ("N", "Z", "N_0")


def _first_index(condition: Relation, index: str) -> int | None:
    """Return the smallest n of `n \\ge 2`, `n > 1` or `n \\in N^*`; None for another condition."""
    if len(condition.ops) != 1:
        return None
    (op,), (left, right) = condition.ops, condition.sides
    if right == Sym(index) and op in FLIPPED:
        op, left, right = FLIPPED[op], right, left
    if left != Sym(index):
        return None
    if op == "in" and isinstance(right, NamedSet):
        return 1 if right.name in _POSITIVE else None
    bound = constants.literal(right)
    if bound is None or bound.denominator != 1 or op not in (">", ">="):
        return None
    return int(bound) + (op == ">")
