"""Is this answer that reference: typed structures element by element, scalars by tiers, cheapest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from verifiers.mathematics import rewrites
from verifiers.mathematics.equality import constants, normal, readings
from verifiers.mathematics.equality.probes import probe_equal, value_of
from verifiers.mathematics.equality.realsets import FLIPPED, line_of
from verifiers.mathematics.limits import MAX_ITEMS, Budget, LimitExceeded, Undecided
from verifiers.mathematics.nodes import (
    EXPRESSION,
    Add,
    BaseNumber,
    Builder,
    Call,
    Cases,
    Clock,
    Const,
    Date,
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
    """identical, number, structure, normal form, numeric, limit."""
    limited: str = ""
    """Where the answer's size met a bound: which."""


Side = TypeVar("Side")
_TIERS = ("identical", "number", "structure", "normal form", "numeric")


def compare(reference: Node, answer: Node, policy: Policy | None = None) -> Comparison:
    """Whether the answer says what the reference says. Symmetric but for the rounding of decimal references.

    Never raises: a bound that is met is a `Comparison` that names it.
    """
    comparer = _Comparer(policy or Policy())
    try:
        return Comparison(comparer.same(reference, answer), comparer.tier)
    except LimitExceeded as error:
        return Comparison(False, "limit", str(error))
    except RecursionError:
        return Comparison(False, "limit", "the answer is nested too deep")


class _Comparer:
    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.level = 0

    @property
    def tier(self) -> str:
        return _TIERS[self.level]

    def _reach(self, tier: str) -> None:
        self.level = max(self.level, _TIERS.index(tier))

    # ---- dispatch --------------------------------------------------------------------------------

    def same(self, gold: Node, answer: Node) -> bool:
        if gold == answer:
            return True
        return self._same(gold, answer) or (
            readings.is_range(gold) and readings.is_range(answer) and self._ranges(gold, answer)
        )

    def _same(self, gold: Node, answer: Node) -> bool:
        if isinstance(gold, Num) and isinstance(answer, Num):
            return self._numbers(gold, answer)
        values = constants.literal(gold), constants.literal(answer)
        if values[0] is not None and values[1] is not None and self.policy.unsimplified:
            self._reach("number")
            return values[0] == values[1] or self._rounds(gold, values[1], answer)
        self._reach("structure")
        if not contains(gold, Group):
            answer = rewrites.combinations(answer)
        elif not contains(answer, Group):
            gold = rewrites.combinations(gold)
        gold, answer = readings.plain(gold), readings.plain(answer)
        if gold == answer:
            return True
        families = rewrites.family(gold), rewrites.family(answer)
        if families[0] or families[1]:
            return self._families(gold, answer)
        if contains(gold, PlusMinus) or contains(answer, PlusMinus):
            return self._signs(gold, answer)
        if isinstance(gold, Quantity) or isinstance(answer, Quantity):
            return self._quantities(gold, answer)
        if isinstance(gold, Relation) or isinstance(answer, Relation):
            return self._relations(gold, answer)
        gold, answer = readings.as_set(gold), readings.as_set(answer)
        if isinstance(gold, Group) or isinstance(answer, Group):
            return self._groups(gold, answer)
        if isinstance(gold, Ratio) or isinstance(answer, Ratio):
            return self._ratios(gold, answer)
        if isinstance(gold, BaseNumber) or isinstance(answer, BaseNumber):
            return self._bases(gold, answer)
        if isinstance(gold, EXPRESSION) and isinstance(answer, EXPRESSION):
            return self._scalars(gold, answer)
        if type(gold) is not type(answer):
            return self._mixed(gold, answer)
        return self._alike(gold, answer)

    def _ranges(self, gold: Node, answer: Node) -> bool:
        """Sets of reals, however they were written, by their canonical pieces."""
        if isinstance(gold, Group) and isinstance(answer, Group) and gold.kind is answer.kind:
            return False
        names = symbols(gold), symbols(answer)
        if names[0] and names[1] and names[0] != names[1] and not isinstance(gold, Builder):
            return False
        lines = line_of(gold, constants.place), line_of(answer, constants.place)
        if lines[0] is None or lines[1] is None or len(lines[0]) != len(lines[1]):
            return False
        return all(
            a.closed == b.closed and (a.node is b.node or (a.node and b.node and self.same(a.node, b.node)))
            for piece, other in zip(lines[0], lines[1], strict=True)
            for a, b in ((piece.low, other.low), (piece.high, other.high))
        )

    def _families(self, gold: Node, answer: Node) -> bool:
        """`k in Z` may be left out, and its letter is free."""
        found = [rewrites.family(side) or (side, frozenset[str]()) for side in (gold, answer)]
        (first, names), (second, others) = found
        free = symbols(second) - symbols(first)
        others = others or (free if len(free) == 1 else names)
        if len(names or others) != 1 or len(others) != 1:
            return False
        (name,) = names or (symbols(first) - symbols(second) or others)
        (other,) = others
        if other in symbols(first) and other != name:
            return False
        return self.same(first, rewrites.renamed(second, {other: name}))

    def _alike(self, gold: Node, answer: Node) -> bool:
        match gold, answer:
            case Interval(), Interval():
                closed = (gold.low_closed, gold.high_closed) == (answer.low_closed, answer.high_closed)
                return closed and self.same(gold.low, answer.low) and self.same(gold.high, answer.high)
            case SetOp(), SetOp():
                if gold.op != answer.op or len(gold.parts) != len(answer.parts):
                    return False
                if gold.op == "minus":
                    return self._in_order(gold.parts, answer.parts)
                return self._matched(gold.parts, answer.parts)
            case Matrix(), Matrix():
                shapes = [len(row) for row in gold.rows] == [len(row) for row in answer.rows]
                return shapes and gold.bar == answer.bar and self._in_order(children(gold), children(answer))
            case Cases(), Cases():
                if [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
                    return False
                rows = [Group(GroupKind.TUPLE, row) for row in gold.rows]
                return self._matched(rows, [Group(GroupKind.TUPLE, row) for row in answer.rows])
            case Builder(), Builder():
                renamed = readings.renamed_like(answer, gold)
                return self.same(gold.head, renamed.head) and self.same(gold.condition, renamed.condition)
            case Clock(), Clock():
                if gold.meridiem and answer.meridiem and gold.meridiem != answer.meridiem:
                    return False
                return gold.minutes == answer.minutes or (
                    bool(gold.meridiem) != bool(answer.meridiem) and (gold.minutes - answer.minutes) % 720 == 0
                )
            case Date(), Date():
                years = gold.year == answer.year or not (gold.year and answer.year)
                return years and (gold.month, gold.day) == (answer.month, answer.day)
            case Text(), Text():
                return readings.words(gold) == readings.words(answer)
            case NamedSet(), NamedSet():
                return gold == answer
            case _:
                return False

    def _matrix_or_vector(self, gold: Node, answer: Node, one: Matrix | Group, other: Node) -> bool:
        """`k A` beside a matrix, `3i + 4j` beside a vector."""
        if contains(other, Matrix):
            matrix = rewrites.worked_out(other)
            return matrix is not None and self.same(*_ordered(gold, one, one, matrix))
        items = children(one)
        if isinstance(one, Matrix) and 1 not in (len(one.rows), len(one.rows[0])):
            return False
        if isinstance(other, Mul | Div | Neg) and isinstance(one, Group) and contains(other, Group):
            return self._multiple_of_vector(gold, one, other)
        if not rewrites.is_in_unit_vectors(other):
            return False
        written = rewrites.in_unit_vectors(items)
        return written is not None and self.same(*_ordered(gold, one, written, other))

    def _multiple_of_vector(self, gold: Node, one: Group, other: Node) -> bool:
        """`1/2 (2, 4)` beside `(1, 2)`."""
        factors = other.factors if isinstance(other, Mul) else ()
        vectors = [factor for factor in factors if isinstance(factor, Group)]
        if len(vectors) != 1 or any(symbols(factor) for factor in factors if not isinstance(factor, Group)):
            return False
        rest = tuple(factor for factor in factors if not isinstance(factor, Group))
        scaled = Group(GroupKind.TUPLE, tuple(Mul((*rest, item)) for item in vectors[0].items))
        return self.same(*_ordered(gold, one, one, scaled))

    def _mixed(self, gold: Node, answer: Node) -> bool:
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
                    return as_interval is not None and self.same(*_ordered(gold, one, as_interval, other))
                return False
            if isinstance(one, Matrix) and isinstance(other, EXPRESSION):
                if len(children(one)) == 1:
                    return self.same(*_ordered(gold, one, children(one)[0], other))
                return self._matrix_or_vector(gold, answer, one, other)
        return False

    # ---- numbers and scalars ---------------------------------------------------------------------

    def _numbers(self, gold: Num, answer: Num) -> bool:
        self._reach("number")
        return gold.value == answer.value or self._rounds(gold, Fraction(answer.value), answer)

    def _rounds(self, gold: Node, value: Fraction, answer: Node) -> bool:
        """Whether an exact value is the decimal reference to the digits it was written with.

        A plain decimal answer must bear more digits than the reference, and the reference at least three significant
        ones; a fraction or a surd is what the reference was rounded from.
        """
        if self.policy.relative_tolerance > 0:
            wanted = constants.exact(gold)
            if wanted is not None and abs(value - wanted) <= Fraction(self.policy.relative_tolerance) * abs(wanted):
                return True
        written = constants.decimal(gold)
        if written is None or self.policy.rounding != "reference":
            return False
        wanted, ulp = written
        if ulp >= 1 or not constants.rounds_to(value, wanted, ulp):
            return False
        mine = constants.decimal(answer)
        if mine is None:  # a decimal without an end is a decimal all the same
            return not constants.integral(answer) and abs(wanted) / ulp >= (100 if isinstance(answer, Num) else 10)
        return mine[1] < ulp and abs(wanted) / ulp >= 100 and abs(value - wanted) * 2 < ulp

    def _scalars(self, gold: Node, answer: Node) -> bool:
        if contains(gold, Matrix) and contains(answer, Matrix):
            matrices = rewrites.worked_out(gold), rewrites.worked_out(answer)
            return matrices[0] is not None and matrices[1] is not None and self.same(matrices[0], matrices[1])
        if not self.policy.unsimplified and constants.worked_out(gold) and not constants.worked_out(answer):
            return False
        return any(self._scalar(*sides) for sides in _readings(gold, answer, self.policy))

    def _scalar(self, gold: Node, answer: Node) -> bool:
        self._reach("normal form")
        names = symbols(gold), symbols(answer)
        if names[0] != names[1] and (same_letters := readings.constants_renamed(names[0], names[1])):
            answer = rewrites.renamed(answer, same_letters)
            names = names[0], symbols(answer)
        if constants.infinite(gold) or constants.infinite(answer):
            return constants.infinite(gold) == constants.infinite(answer)
        try:
            budget = Budget()
            left, right = normal.normal_form(gold, budget), normal.normal_form(answer, budget)
            if normal.equal(left, right, budget):
                return True
            numbers = normal.as_number(left), normal.as_number(right)
            if numbers[0] is not None and numbers[1] is not None:
                self.level = min(self.level, _TIERS.index("normal form"))
                return self._rounds(gold, numbers[1], answer)
            if _polynomial(left) and _polynomial(right) and names[0] | names[1]:
                return False
        except Undecided:
            pass
        self._reach("numeric")
        try:
            if probe_equal(gold, answer):
                return True
            if names[0] == names[1] and (constant := _free_constant(gold, answer)):
                return _differ_by_a_constant(gold, answer, names[0] - {constant})
        except Undecided:
            return self._same_series(gold, answer)
        return self._rounded_surd(gold, answer)

    def _same_series(self, gold: Node, answer: Node) -> bool:
        """An infinite sum, an integral or a limit that nobody evaluates: the same one, its parts equal."""
        if not (isinstance(gold, Call) and isinstance(answer, Call) and gold.name == answer.name):
            return False
        return gold.name in ("sum", "prod", "int", "lim") and self._in_order(gold.args, answer.args)

    def _rounded_surd(self, gold: Node, answer: Node) -> bool:
        if constants.decimal(gold) is None or symbols(answer):
            return False
        value = value_of(answer)
        return value is not None and self._rounds(gold, value, answer)

    # ---- signs, units, relations -----------------------------------------------------------------

    def _signs(self, gold: Node, answer: Node) -> bool:
        return self._groups(readings.both_signs(gold), readings.both_signs(answer))

    def _quantities(self, gold: Node, answer: Node) -> bool:
        gold, answer = readings.letter_unit(gold, answer), readings.letter_unit(answer, gold)
        if isinstance(gold, Quantity) and isinstance(answer, Quantity):
            first, second = gold.unit, answer.unit
            if first.dimension and second.dimension:
                if {"sterling", "pound"} == {*(gold.unit.words[:1]), *(answer.unit.words[:1])}:
                    return self.same(gold.value, answer.value)
                if first.dimension != second.dimension:
                    return False
                if first.factor != second.factor:
                    scaled = Mul((answer.value, Num(second.factor / first.factor)))
                    return self.same(gold.value, scaled)
            elif first.words != second.words:
                named = [{word for word in unit.words if word not in _GENERIC} for unit in (first, second)]
                if not self.policy.units_optional or (all(named) and not named[0] & named[1]):
                    return False
            return self.same(gold.value, answer.value)
        if not self.policy.units_optional:
            return False
        if isinstance(gold, Group) or isinstance(answer, Group):
            return False
        return self.same(
            gold.value if isinstance(gold, Quantity) else gold, answer.value if isinstance(answer, Quantity) else answer
        )

    def _relations(self, gold: Node, answer: Node) -> bool:
        if isinstance(gold, Relation) and isinstance(answer, Relation):
            return self._two_relations(gold, answer)
        relation, other = (gold, answer) if isinstance(gold, Relation) else (answer, gold)
        assert isinstance(relation, Relation)
        if relation.ops == ("in",):
            return self.same(*_ordered(gold, relation, relation.sides[1], other))
        if isinstance(other, Interval | SetOp | Builder) or (isinstance(other, Group) and len(other.items) == 2):
            interval = readings.interval_of(relation)
            if interval is not None:
                return self.same(*_ordered(gold, relation, interval, other))
        if isinstance(other, Builder):
            return False
        if relation.ops[-1] == "approx" and not symbols(relation.sides[-1]) and not symbols(relation.sides[-2]):
            return self._approximated(gold, relation, other)
        value = self._value_of(relation)
        if value is None and relation is answer and readings.states_a_value(relation):
            value = relation.sides[-1]
            if not all(self.same(value, side) for side in relation.sides[1:-1]):
                return False
        return value is not None and self.same(*_ordered(gold, relation, value, other))

    def _approximated(self, gold: Node, relation: Relation, other: Node) -> bool:
        """`x = 1/6 = 0.167`, the last with an approximation sign: either value, where one is the other rounded."""
        exact, rounded = relation.sides[-2:]
        value = constants.exact(exact)
        if value is None or not self._rounds(rounded, value, exact):
            return False
        before = Relation(relation.sides[:-1], relation.ops[:-1]) if len(relation.ops) > 1 else exact
        return self.same(*_ordered(gold, relation, before, other)) or self.same(
            *_ordered(gold, relation, rounded, other)
        )

    def _value_of(self, relation: Relation) -> Node | None:
        """The value that `x = 5`, `f(x) = x + 1` or `2 + 3 = 5` states; None for a relation that states none."""
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
            if symbols(name) and len(relation.sides) == 2:
                return None
        if any(not self.same(side, last) for side in middle[:-1] if "approx" not in relation.ops):
            return None
        return last

    def _two_relations(self, gold: Relation, answer: Relation) -> bool:
        if len(gold.ops) == 1 and len(answer.ops) == 1:
            first, second = readings.oriented(gold), readings.oriented(answer)
            if first.ops != second.ops:
                return False
            if self._in_order(first.sides, second.sides):
                return True
            op = first.ops[0]
            if op in ("=", "!=") and self._in_order(first.sides, second.sides[::-1]):
                return True
            if op in ("=", "!=", "<", "<="):
                if readings.is_definition(first) and readings.is_definition(second):
                    return self._definitions(first, second)
                return self._proportional(first, second)
            return False
        values = [self._value_of(relation) for relation in (gold, answer)]
        if values[0] is not None and values[1] is not None and set(gold.ops) | set(answer.ops) == {"="}:
            return self.same(values[0], values[1])
        intervals = readings.interval_of(gold), readings.interval_of(answer)
        if intervals[0] is not None and intervals[1] is not None and symbols(gold) & symbols(answer):
            return self.same(intervals[0], intervals[1])
        if gold.ops == answer.ops:
            return self._in_order(gold.sides, answer.sides)
        flipped = tuple(FLIPPED.get(op, op) for op in reversed(answer.ops))
        return gold.ops == flipped and self._in_order(gold.sides, answer.sides[::-1])

    def _definitions(self, first: Relation, second: Relation) -> bool:
        """`f(x) = 2x` and `y = 2x`: the name on the left may differ where it is a name alone."""
        if first.sides[0] != second.sides[0] and isinstance(first.sides[0], Sym) and isinstance(second.sides[0], Sym):
            if not (symbols(first.sides[1]) or symbols(second.sides[1])):
                return (
                    self.same(first.sides[1], second.sides[1])
                    and len(first.sides[0].name) == len(second.sides[0].name)
                    and first.sides[0].name.lower() == second.sides[0].name.lower()
                )
            return self._proportional(first, second)
        return self.same(first.sides[1], second.sides[1])

    def _proportional(self, first: Relation, second: Relation) -> bool:
        """Whether left - right of one is a constant times that of the other; positive for an inequality."""
        self._reach("normal form")
        try:
            budget = Budget()
            sides = [
                normal.normal_form(Add((relation.sides[0], Neg(relation.sides[1]))), budget)
                for relation in (first, second)
            ]
        except Undecided:
            return False
        (left, left_bottom), (right, right_bottom) = sides
        if not left or not right:
            return not left and not right
        if first.ops[0] in ("<", "<=") and not (set(left_bottom) == set(right_bottom) == {normal.ONE}):
            return False
        if set(left) != set(right):
            return False
        monomial = min(left, key=str)
        factor = left[monomial] / right[monomial]
        if any(left[m] != factor * right[m] for m in left):
            return False
        return first.ops[0] in ("=", "!=") or factor / (left_bottom[normal.ONE] / right_bottom[normal.ONE]) > 0

    # ---- several values --------------------------------------------------------------------------

    def _groups(self, gold: Node, answer: Node) -> bool:
        """At least one of them a group: of values in order, in any order, or without repetition."""
        if isinstance(gold, Group) and isinstance(answer, Group):
            return self._two_groups(gold, answer)
        one, other = (gold, answer) if isinstance(gold, Group) else (answer, gold)
        assert isinstance(one, Group)
        return self._group_and_other(gold, answer, one, other)

    def _group_and_other(self, gold: Node, answer: Node, one: Group, other: Node) -> bool:
        """A group beside what says the same without being one: a matrix, an interval, its only item."""
        if isinstance(other, NamedSet) and other.name == "R":
            return readings.whole_line(one)
        if isinstance(other, SetOp) and other.op == "cup" and one.kind is GroupKind.LIST:
            pieces = [readings.interval_of(item) if isinstance(item, Relation) else item for item in one.items]
            if any(piece is None for piece in pieces):
                return False
            union = SetOp("cup", tuple(piece for piece in pieces if piece is not None))
            return self.same(*_ordered(gold, one, union, other))
        if isinstance(other, Num) and other.groups and one.kind is GroupKind.LIST:
            return self.same(*_ordered(gold, one, one, readings.grouped(other)))
        if isinstance(other, Matrix) and one.kind is not GroupKind.SET:
            vector = len(other.rows) == 1 or len(other.rows[0]) == 1
            return vector and self._in_order(*_ordered(gold, one, one.items, children(other)))
        if isinstance(other, Interval) and one.kind is GroupKind.TUPLE and len(one.items) == 2:
            if other.low_closed or other.high_closed:
                return False
            return self._in_order(*_ordered(gold, one, one.items, (other.low, other.high)))
        if len(one.items) == 1:
            return self.same(*_ordered(gold, one, one.items[0], other))
        if isinstance(other, Call) and other.name == "binom" and one.kind is GroupKind.TUPLE:
            return self._in_order(*_ordered(gold, one, one.items, other.args))  # a column vector
        again = one.kind is GroupKind.LIST and isinstance(other, EXPRESSION) and len(one.items) <= 4
        if (
            again
            and len(set(one.items)) == len(one.items)
            and all(self.same(*_ordered(gold, one, item, other)) for item in one.items)
        ):
            return True  # 7/2, or 3.5
        if isinstance(other, EXPRESSION) and one.kind is GroupKind.TUPLE:
            return self._matrix_or_vector(gold, answer, one, other)
        if isinstance(other, Sym) and all(readings.is_letter(item) for item in one.items):
            letters = sorted(item.name for item in one.items if isinstance(item, Sym))
            return letters == sorted(other.name)
        return False

    def _two_groups(self, gold: Group, answer: Group) -> bool:
        if len(gold.items) != len(answer.items):
            if gold.kind is answer.kind is GroupKind.SET:
                return self._each_in(gold.items, answer.items) and self._each_in(answer.items, gold.items)
            return False
        assigned = readings.assignments(gold), readings.assignments(answer)
        if assigned[0] and assigned[1]:
            return assigned[0].keys() == assigned[1].keys() and all(
                self.same(value, assigned[1][name]) for name, value in assigned[0].items()
            )
        for mine, theirs in ((gold, assigned[1]), (answer, assigned[0])):
            if theirs and mine.kind is GroupKind.TUPLE:
                sorted_values = tuple(theirs[name] for name in sorted(theirs))
                orders = (
                    {sorted_values} if readings.coordinate_names(theirs) else {sorted_values, tuple(theirs.values())}
                )
                return any(self._in_order(*_ordered(gold, mine, mine.items, values)) for values in orders)
        if GroupKind.TUPLE in (gold.kind, answer.kind) or self.policy.ordered_lists or readings.has_dots(gold, answer):
            if GroupKind.SET in (gold.kind, answer.kind) and GroupKind.TUPLE in (gold.kind, answer.kind):
                return False
            return self._in_order(gold.items, answer.items)
        return self._matched(gold.items, answer.items)

    def _in_order(self, gold: Sequence[Node], answer: Sequence[Node]) -> bool:
        return len(gold) == len(answer) and all(self.same(a, b) for a, b in zip(gold, answer, strict=True))

    def _each_in(self, items: Sequence[Node], others: Sequence[Node]) -> bool:
        return len(items) <= MAX_ITEMS and all(any(self.same(item, other) for other in others) for item in items)

    def _matched(self, gold: Sequence[Node], answer: Sequence[Node]) -> bool:
        """Whether the items pair off, in any order (an equivalence, so the first match is as good as any)."""
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

    def _ratios(self, gold: Node, answer: Node) -> bool:
        if isinstance(gold, Ratio) and isinstance(answer, Ratio):
            if len(gold.parts) != len(answer.parts):
                return False
            if contains(gold, Dots) or contains(answer, Dots):
                return self._in_order(gold.parts, answer.parts)
            (a, *rest), (b, *others) = gold.parts, answer.parts
            if not all(isinstance(part, EXPRESSION) for part in (*gold.parts, *answer.parts)):
                return False
            return all(self.same(Mul((a, y)), Mul((b, x))) for x, y in zip(rest, others, strict=True)) and not all(
                part == Num(0) for part in (*gold.parts, *answer.parts)
            )
        ratio, other = (gold, answer) if isinstance(gold, Ratio) else (answer, gold)
        assert isinstance(ratio, Ratio)
        if isinstance(other, Clock):
            as_ratio = readings.clock_as_ratio(other)
            return as_ratio is not None and self.same(*_ordered(gold, ratio, ratio, as_ratio))
        if len(ratio.parts) != 2 or not isinstance(other, EXPRESSION) or contains(ratio, Dots):
            return False
        return self.same(*_ordered(gold, ratio, Div(ratio.parts[0], ratio.parts[1]), other))

    def _bases(self, gold: Node, answer: Node) -> bool:
        if self.policy.any_base:
            values = constants.in_ten(gold), constants.in_ten(answer)
            return values[0] is not None and values[0] == values[1]
        if isinstance(gold, BaseNumber) and isinstance(answer, BaseNumber):
            return gold.base == answer.base and gold.digits.lstrip("0").upper() == answer.digits.lstrip("0").upper()
        based, other = (gold, answer) if isinstance(gold, BaseNumber) else (answer, gold)
        assert isinstance(based, BaseNumber)
        return constants.spelled(other) == based.digits.upper()


def _ordered(gold: Node, one: Node, new_one: Side, other: Side) -> tuple[Side, Side]:
    """Return (gold side, answer side) after `one`, whichever side it was, has been replaced."""
    return (new_one, other) if one is gold else (other, new_one)


_GENERIC = frozenset(("unit", "square", "sq", "cubic", "cu", "per", ""))
"""Unit words that name nothing."""


def _free_constant(gold: Node, answer: Node) -> str:
    """The C of `... + C` on both sides, or ""."""
    terms = [node.terms if isinstance(node, Add) else () for node in (gold, answer)]
    for name in ("C", "c", "K", "k"):
        free = all(Sym(name) in part and part.count(Sym(name)) == 1 for part in terms)
        if free and all(name not in symbols(term) or term == Sym(name) for part in terms for term in part):
            return name
    return ""


def _differ_by_a_constant(gold: Node, answer: Node, names: frozenset[str]) -> bool:
    """Whether two antiderivatives are the same up to their constant."""
    difference = Add((gold, Neg(answer)))
    fixed = rewrites.substituted(difference, dict.fromkeys(names, Num(Fraction(1234, 997))))
    return len(names) == 1 and probe_equal(difference, fixed)


def _polynomial(value: normal.Rational) -> bool:
    """Only variables with whole exponents: then unequal normal forms are unequal functions."""
    return all(
        isinstance(exponent, int) and atom.isidentifier() and atom not in ("e", "pi", "i")
        for poly in value
        for monomial in poly
        for atom, exponent in monomial
    )


def _readings(gold: Node, answer: Node, policy: Policy) -> list[tuple[Node, Node]]:
    """Both sides as written; and, where one side alone bears a percent or degree sign, without the sign."""
    pairs: list[tuple[Node, Node]] = []
    for name in ("percent", "degree"):
        marked = [(isinstance(side, Call) and side.name == name) or _negated(side, name) for side in (gold, answer)]
        optional = policy.percent_optional if name == "percent" else policy.units_optional
        if marked[1] and name == "percent" and (value := constants.exact(_unmarked(answer, name))) is not None:
            optional = optional and abs(value) >= 1  # 0.5% is not 0.5
        if marked[0] != marked[1] and optional:
            pairs.append((_unmarked(gold, name), _unmarked(answer, name)))
        elif marked[0] and marked[1]:
            return [(_unmarked(gold, name), _unmarked(answer, name))]
    return [*pairs, (gold, answer)]


def _negated(node: Node, name: str) -> bool:
    return isinstance(node, Neg) and isinstance(node.operand, Call) and node.operand.name == name


def _unmarked(node: Node, name: str) -> Node:
    if isinstance(node, Neg):
        return Neg(_unmarked(node.operand, name))
    return node.args[0] if isinstance(node, Call) and node.name == name else node


__all__ = ["Comparison", "Policy", "compare"]
