"""Is this answer that reference: typed structures element by element, scalars by tiers, cheapest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from verifiers.mathematics import normal, rewrites
from verifiers.mathematics.limits import MAX_ITEMS, Budget, LimitExceeded, ParseError, Undecided
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
    Pow,
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
from verifiers.mathematics.probes import probe_equal
from verifiers.mathematics.realsets import FLIPPED, LINES, line_of
from verifiers.mathematics.units import SYMBOLS, parse_unit


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
        return self._same(gold, answer) or (_is_range(gold) and _is_range(answer) and self._ranges(gold, answer))

    def _same(self, gold: Node, answer: Node) -> bool:
        if isinstance(gold, Num) and isinstance(answer, Num):
            return self._numbers(gold, answer)
        values = _literal(gold), _literal(answer)
        if values[0] is not None and values[1] is not None and self.policy.unsimplified:
            self._reach("number")
            return values[0] == values[1] or self._rounds(gold, values[1], answer)
        self._reach("structure")
        if not contains(gold, Group):
            answer = rewrites.combinations(answer)
        elif not contains(answer, Group):
            gold = rewrites.combinations(gold)
        gold, answer = _plain(gold), _plain(answer)
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
        gold, answer = _as_set(gold), _as_set(answer)
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
        lines = line_of(gold, _place), line_of(answer, _place)
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
                renamed = _renamed(answer, gold)
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
                return _words(gold) == _words(answer)
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
                return isinstance(other, Sym | Const) and _words(one) == (other.name.lower(),)
            if isinstance(one, NamedSet) and one.name == "empty" and isinstance(other, Group):
                return not other.items
            if isinstance(one, Builder) and not isinstance(other, Builder):
                if isinstance(one.condition, Relation) and isinstance(one.head, Sym):
                    as_interval = _interval_of(one.condition)
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
            wanted = _exact(gold)
            if wanted is not None and abs(value - wanted) <= Fraction(self.policy.relative_tolerance) * abs(wanted):
                return True
        written = _decimal(gold)
        if written is None or self.policy.rounding != "reference":
            return False
        wanted, ulp = written
        if ulp >= 1 or not _rounds_to(value, wanted, ulp):
            return False
        mine = _decimal(answer)
        if mine is None:  # a decimal without an end is a decimal all the same
            return not _integral(answer) and abs(wanted) / ulp >= (100 if isinstance(answer, Num) else 10)
        return mine[1] < ulp and abs(wanted) / ulp >= 100 and abs(value - wanted) * 2 < ulp

    def _scalars(self, gold: Node, answer: Node) -> bool:
        if contains(gold, Matrix) and contains(answer, Matrix):
            matrices = rewrites.worked_out(gold), rewrites.worked_out(answer)
            return matrices[0] is not None and matrices[1] is not None and self.same(matrices[0], matrices[1])
        if not self.policy.unsimplified and _worked_out(gold) and not _worked_out(answer):
            return False
        return any(self._scalar(*sides) for sides in _readings(gold, answer, self.policy))

    def _scalar(self, gold: Node, answer: Node) -> bool:
        self._reach("normal form")
        names = symbols(gold), symbols(answer)
        if names[0] != names[1] and (same_letters := _constants(names[0], names[1])):
            answer = rewrites.renamed(answer, same_letters)
            names = names[0], symbols(answer)
        if _infinite(gold) or _infinite(answer):
            return _infinite(gold) == _infinite(answer)
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
        if _decimal(gold) is None or symbols(answer):
            return False
        value = _approximate(answer)
        return value is not None and self._rounds(gold, value, answer)

    # ---- signs, units, relations -----------------------------------------------------------------

    def _signs(self, gold: Node, answer: Node) -> bool:
        return self._groups(_both_signs(gold), _both_signs(answer))

    def _quantities(self, gold: Node, answer: Node) -> bool:
        gold, answer = _letter_unit(gold, answer), _letter_unit(answer, gold)
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
            interval = _interval_of(relation)
            if interval is not None:
                return self.same(*_ordered(gold, relation, interval, other))
        if isinstance(other, Builder):
            return False
        if relation.ops[-1] == "approx" and not symbols(relation.sides[-1]) and not symbols(relation.sides[-2]):
            return self._approximated(gold, relation, other)
        value = self._value_of(relation)
        if value is None and relation is answer and _states_a_value(relation):
            value = relation.sides[-1]
            if not all(self.same(value, side) for side in relation.sides[1:-1]):
                return False
        return value is not None and self.same(*_ordered(gold, relation, value, other))

    def _approximated(self, gold: Node, relation: Relation, other: Node) -> bool:
        """`x = 1/6 = 0.167`, the last with an approximation sign: either value, where one is the other rounded."""
        exact, rounded = relation.sides[-2:]
        value = _exact(exact)
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
        if _is_name(name):
            if isinstance(name, Sym) and name.name in symbols(last):
                return None
            swapped = isinstance(name, Group) and name.items == (Sym("y"), Sym("x"))
            if swapped and isinstance(last, Group) and len(relation.sides) == 2:
                return Group(last.kind, last.items[::-1])
            middle = relation.sides[1:]
        else:
            if _is_name(last) and len(relation.sides) == 2 and isinstance(last, Sym) and not symbols(name):
                return name
            middle = relation.sides
            if symbols(name) and len(relation.sides) == 2:
                return None
        if any(not self.same(side, last) for side in middle[:-1] if "approx" not in relation.ops):
            return None
        return last

    def _two_relations(self, gold: Relation, answer: Relation) -> bool:
        if len(gold.ops) == 1 and len(answer.ops) == 1:
            first, second = _oriented(gold), _oriented(answer)
            if first.ops != second.ops:
                return False
            if self._in_order(first.sides, second.sides):
                return True
            op = first.ops[0]
            if op in ("=", "!=") and self._in_order(first.sides, second.sides[::-1]):
                return True
            if op in ("=", "!=", "<", "<="):
                if _is_definition(first) and _is_definition(second):
                    return self._definitions(first, second)
                return self._proportional(first, second)
            return False
        values = [self._value_of(relation) for relation in (gold, answer)]
        if values[0] is not None and values[1] is not None and set(gold.ops) | set(answer.ops) == {"="}:
            return self.same(values[0], values[1])
        intervals = _interval_of(gold), _interval_of(answer)
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
        for one, other in ((gold, answer), (answer, gold)):
            if isinstance(one, Group) and not isinstance(other, Group):
                if isinstance(other, NamedSet) and other.name == "R":
                    return _whole_line(one)
                if isinstance(other, SetOp) and other.op == "cup" and one.kind is GroupKind.LIST:
                    pieces = [_interval_of(item) if isinstance(item, Relation) else item for item in one.items]
                    if any(piece is None for piece in pieces):
                        return False
                    union = SetOp("cup", tuple(piece for piece in pieces if piece is not None))
                    return self.same(*_ordered(gold, one, union, other))
                if isinstance(other, Num) and other.groups and one.kind is GroupKind.LIST:
                    return self.same(*_ordered(gold, one, one, _grouped(other)))
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
                if isinstance(other, Sym) and all(_is_letter(item) for item in one.items):
                    letters = sorted(item.name for item in one.items if isinstance(item, Sym))
                    return letters == sorted(other.name)
                return False
        assert isinstance(gold, Group)
        assert isinstance(answer, Group)
        if len(gold.items) != len(answer.items):
            if gold.kind is answer.kind is GroupKind.SET:
                return self._each_in(gold.items, answer.items) and self._each_in(answer.items, gold.items)
            return False
        assigned = _assignments(gold), _assignments(answer)
        if assigned[0] and assigned[1]:
            return assigned[0].keys() == assigned[1].keys() and all(
                self.same(value, assigned[1][name]) for name, value in assigned[0].items()
            )
        for mine, theirs in ((gold, assigned[1]), (answer, assigned[0])):
            if theirs and mine.kind is GroupKind.TUPLE:
                sorted_values = tuple(theirs[name] for name in sorted(theirs))
                orders = {sorted_values} if _coordinate_names(theirs) else {sorted_values, tuple(theirs.values())}
                return any(self._in_order(*_ordered(gold, mine, mine.items, values)) for values in orders)
        if GroupKind.TUPLE in (gold.kind, answer.kind) or self.policy.ordered_lists or _has_dots(gold, answer):
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
            as_ratio = _clock_as_ratio(other)
            return as_ratio is not None and self.same(*_ordered(gold, ratio, ratio, as_ratio))
        if len(ratio.parts) != 2 or not isinstance(other, EXPRESSION) or contains(ratio, Dots):
            return False
        return self.same(*_ordered(gold, ratio, Div(ratio.parts[0], ratio.parts[1]), other))

    def _bases(self, gold: Node, answer: Node) -> bool:
        if self.policy.any_base:
            values = _in_ten(gold), _in_ten(answer)
            return values[0] is not None and values[0] == values[1]
        if isinstance(gold, BaseNumber) and isinstance(answer, BaseNumber):
            return gold.base == answer.base and gold.digits.lstrip("0").upper() == answer.digits.lstrip("0").upper()
        based, other = (gold, answer) if isinstance(gold, BaseNumber) else (answer, gold)
        assert isinstance(based, BaseNumber)
        return _spelled(other) == based.digits.upper()


# ---- readings of one node ------------------------------------------------------------------------


def _plain(node: Node) -> Node:
    """Without a set of one membership, a definition's decoration, or a `Text` that is a letter."""
    if isinstance(node, Relation) and node.ops == ("in",) and _is_name(node.sides[0]):
        return node.sides[1]
    if isinstance(node, Matrix) and not node.bar and len(node.rows) == 1 and len(node.rows[0]) == 1:
        return node.rows[0][0]
    if isinstance(node, Cases) and all(len(row) == 1 and isinstance(row[0], Relation) for row in node.rows):
        return Group(GroupKind.LIST, tuple(row[0] for row in node.rows))  # a system
    if isinstance(node, Mul) and len(node.factors) == 2:  # a named point: A(3, 4)
        name, point = node.factors
        if isinstance(name, Sym) and name.name.isupper() and isinstance(point, Group) and _coordinates(point):
            return point
    return node


def _coordinates(point: Group) -> bool:
    return point.kind is GroupKind.TUPLE and not symbols(point)


def _ordered(gold: Node, one: object, new_one: object, other: object) -> tuple:  # type: ignore[type-arg]
    """(gold side, answer side) after `one`, whichever side it was, has been replaced."""
    return (new_one, other) if one is gold else (other, new_one)


def _letter_unit(node: Node, other: Node) -> Node:
    """`1000 m` beside a quantity: a last factor that is a unit's letter is that unit."""
    if not (isinstance(other, Quantity) and other.unit.dimension and isinstance(node, Mul)):
        return node
    *factors, last = node.factors
    base, power = (last.base, last.exponent) if isinstance(last, Pow) else (last, Num(1))
    if not (isinstance(base, Sym) and base.name in SYMBOLS and isinstance(power, Num)):
        return node
    value = factors[0] if len(factors) == 1 else Mul(tuple(factors))
    return node if symbols(value) else Quantity(value, parse_unit([base.name, "^", str(power.value)]))


def _whole_line(node: Node) -> bool:
    """Whether this is (-oo, oo)."""
    ends = node.items if isinstance(node, Group) and node.kind is GroupKind.TUPLE and len(node.items) == 2 else ()
    return tuple(_infinite(end) for end in ends) == (-1, 1)


def _words(text: Text) -> tuple[str, ...]:
    return tuple(word.lower().removesuffix("'s") for part in text.words for word in part.split("-"))


def _is_name(node: Node) -> bool:
    if isinstance(node, Sym | Text):
        return True
    if isinstance(node, Div):  # dy/dx
        parts = [part.factors[0] if isinstance(part, Mul) else part for part in (node.top, node.bottom)]
        parts = [part.base if isinstance(part, Pow) else part for part in parts]
        return all(part in (Sym("d"), Sym("partial")) for part in parts)
    if isinstance(node, Group) and node.kind in (GroupKind.TUPLE, GroupKind.SET):
        return all(isinstance(item, Sym) for item in node.items)
    if isinstance(node, Call) and node.name in (
        "prime",
        "subscript",
        "bar",
        "angle",
        "triangle",
        "arc",
        "measuredangle",
    ):
        return all(_is_name(child) for child in children(node))
    if isinstance(node, Mul) and len(node.factors) == 2 and isinstance(node.factors[0], Sym | Pow):
        if not _is_name(node.factors[0]):
            return False
        inner = node.factors[1]
        return isinstance(inner, Sym) or (isinstance(inner, Group) and inner.kind is GroupKind.TUPLE)
    if isinstance(node, Mul) and isinstance(node.factors[0], Div):  # d/dx of something
        return _is_name(node.factors[0])
    if isinstance(node, Pow):  # A^{-1}, f^{-1}
        return isinstance(node.base, Sym) and node.exponent == Neg(Num(1))
    return isinstance(node, Mul) and len(node.factors) <= 3 and all(isinstance(f, Sym) for f in node.factors)


def _is_definition(relation: Relation) -> bool:
    left, right = relation.sides
    return relation.ops == ("=",) and _is_name(left) and not (symbols(left) & symbols(right) and isinstance(left, Sym))


def _oriented(relation: Relation) -> Relation:
    """The same relation with < or <= only."""
    if relation.ops[0] in (">", ">="):
        return Relation(relation.sides[::-1], (FLIPPED[relation.ops[0]],))
    return relation


def _interval_of(relation: Relation) -> Node | None:
    """`a < x <= b` or `x > a` as an interval, where one symbol alone is bounded."""
    ops, sides = relation.ops, relation.sides
    if ops == ("!=",) and isinstance(sides[0], Sym) and not symbols(sides[1]):
        infinity = Const("oo")
        return SetOp(
            "cup", (_interval(Neg(infinity), sides[1], False, False), _interval(sides[1], infinity, False, False))
        )
    if len(ops) == 1 and ops[0] in FLIPPED:
        relation = _oriented(relation)
        low, high = relation.sides
        closed = relation.ops[0] == "<="
        if isinstance(low, Call) and low.name == "abs" and isinstance(low.args[0], Sym) and not symbols(high):
            return _interval(Neg(high), high, closed, closed)
        if isinstance(low, Sym) and not symbols(high):
            return _interval(Neg(Const("oo")), high, False, closed)
        if isinstance(high, Sym) and not symbols(low):
            return _interval(low, Const("oo"), closed, False)
        return None
    if len(ops) == 2 and isinstance(sides[1], Sym) and not (symbols(sides[0]) | symbols(sides[2])):
        if ops[0] in ("<", "<=") and ops[1] in ("<", "<="):
            return _interval(sides[0], sides[2], ops[0] == "<=", ops[1] == "<=")
        if ops[0] in (">", ">=") and ops[1] in (">", ">="):
            return _interval(sides[2], sides[0], ops[1] == ">=", ops[0] == ">=")
    return None


def _interval(low: Node, high: Node, low_closed: bool, high_closed: bool) -> Node:
    if not (low_closed or high_closed):
        return Group(GroupKind.TUPLE, (low, high))
    return Interval(low, high, low_closed, high_closed)


def _as_set(node: Node) -> Node:
    """An interval without a closed end is the pair that it is written as; a builder over an inequality an interval."""
    if isinstance(node, Builder) and isinstance(node.condition, Relation) and isinstance(node.head, Sym):
        found = _interval_of(node.condition)
        return found if found is not None else node
    if isinstance(node, Interval) and not (node.low_closed or node.high_closed):
        return Group(GroupKind.TUPLE, (node.low, node.high))
    if isinstance(node, Interval) and isinstance(node.low, Neg) and node.low.operand == Const("oo"):
        return replace(node, low_closed=False) if node.low_closed else node
    return node


def _is_range(node: Node) -> bool:
    """Whether this may be a set of reals: see `realsets`."""
    match node:
        case Interval() | SetOp() | Builder():
            return True
        case NamedSet():
            return node.name in LINES
        case Relation():
            return any(op in FLIPPED or op in ("!=", "in") for op in node.ops)
        case Group():
            if node.kind is GroupKind.TUPLE:
                return len(node.items) == 2
            if node.kind is GroupKind.SET:
                return True
            return any(_is_range(i) for i in node.items if isinstance(i, Relation))
        case _:
            return False


def _place(node: Node) -> Fraction | None:
    """A real constant to so many digits that equal ones, however they are written, come out the same."""
    exact = _exact(node)
    if exact is None or exact.denominator.bit_length() < 200:
        return exact
    return Fraction(round(exact * 2**300), 2**300)


def _in_ten(node: Node) -> int | None:
    if isinstance(node, BaseNumber):
        try:
            return int(node.digits, node.base) if 2 <= node.base <= 36 else None
        except ValueError:
            return None
    return int(node.value) if isinstance(node, Num) and Fraction(node.value).denominator == 1 else None


def _spelled(node: Node) -> str:
    """The digits of a number written without its base: `1011`, `A3`; "" for anything else."""
    if isinstance(node, Num) and node.ulp is None:
        return str(node.value)
    if isinstance(node, Sym | Const) and len(node.name) <= MAX_ITEMS:
        return node.name.upper()
    return "".join(_spelled(factor) or "?" for factor in node.factors) if isinstance(node, Mul) else ""


_GENERIC = frozenset(("unit", "square", "sq", "cubic", "cu", "per", ""))
"""Unit words that name nothing."""


def _states_a_value(relation: Relation) -> bool:
    """`m + n = 73`, `f(2) = 42`, `sin t = 3/5`, `P(X > 2) = 1/2`: what stands on the left is what was asked for.

    `2x = 73` and `x^2 = 4` are equations.
    """
    left, right = relation.sides[0], relation.sides[-1]
    if set(relation.ops) != {"="} or symbols(right):
        return False
    if contains(left, (Relation, Call)) or len(symbols(left)) > 1:
        return True
    factors = left.factors if isinstance(left, Mul) else ()
    return len(factors) == 2 and isinstance(factors[0], Sym) and isinstance(factors[1], Num)


def _constants(names: frozenset[str], others: frozenset[str]) -> dict[str, str]:
    """`c_1` is `C_1`: constants of integration in either case, where that makes the names agree."""
    renames = {
        other: name
        for other in others - names
        for name in names - others
        if other[:1] in "cC" and other.lower() == name.lower()
    }
    return renames if {renames.get(other, other) for other in others} == names else {}


def _clock_as_ratio(clock: Clock) -> Ratio | None:
    """`15:10`, which may be the ratio 3 to 2."""
    if clock.meridiem or clock.minutes.denominator != 1:
        return None
    hours, minutes = divmod(int(clock.minutes), 60)
    return Ratio((Num(hours), Num(minutes)))


def _is_letter(node: Node) -> bool:
    return isinstance(node, Sym) and len(node.name) == 1 and node.name.isupper()


def _both_signs(node: Node) -> Node:
    """Every ± at + and at -, together, as a list."""
    if not contains(node, PlusMinus):
        return node if isinstance(node, Group) else Group(GroupKind.LIST, (node,))
    items = node.items if isinstance(node, Group) else (node,)
    if isinstance(node, Relation) and node.ops == ("=",):
        items = (node.sides[1],)
    expanded: list[Node] = []
    for item in items:
        if contains(item, PlusMinus):
            expanded += [_signed(item, 1), _signed(item, -1)]
        else:
            expanded.append(item)
    if len(expanded) > MAX_ITEMS:
        raise LimitExceeded(f"over {MAX_ITEMS} values")
    return Group(GroupKind.LIST if not isinstance(node, Group) else node.kind, tuple(expanded))


def _signed(node: Node, sign: int) -> Node:
    match node:
        case PlusMinus():
            inner = _signed(node.operand, sign)
            return inner if node.sign * sign > 0 else Neg(inner)
        case Add():
            return Add(tuple(_signed(term, sign) for term in node.terms))
        case Mul():
            return Mul(tuple(_signed(factor, sign) for factor in node.factors))
        case Neg():
            return Neg(_signed(node.operand, sign))
        case Div():
            return Div(_signed(node.top, sign), _signed(node.bottom, sign))
        case Pow():
            return Pow(_signed(node.base, sign), _signed(node.exponent, sign))
        case Call():
            return Call(node.name, tuple(_signed(argument, sign) for argument in node.args))
        case Group():
            return Group(node.kind, tuple(_signed(item, sign) for item in node.items))
        case Relation():
            return Relation(tuple(_signed(side, sign) for side in node.sides), node.ops)
        case Quantity():
            return Quantity(_signed(node.value, sign), node.unit)
        case _:
            return node


def _assignments(group: Group) -> dict[str, Node]:
    """`x = 1, y = 2` as a mapping; empty where the items are not all assignments to different names."""
    found: dict[str, Node] = {}
    for item in group.items:
        if not (isinstance(item, Relation) and item.ops == ("=",) and _is_name(item.sides[0])):
            return {}
        found[repr(item.sides[0])] = item.sides[1]
    return found if len(found) == len(group.items) else {}


def _grouped(number: Num) -> Group:
    return Group(GroupKind.LIST, tuple(Num(part) for part in number.groups or ()))


def _has_dots(*groups: Group) -> bool:
    return any(isinstance(item, Dots) for group in groups for item in group.items)


def _renamed(builder: Builder, like: Builder) -> Builder:
    """With the one variable of its head called as in the other."""
    (old, *more), (new, *others) = sorted(symbols(builder.head)) or [""], sorted(symbols(like.head)) or [""]
    if more or others or "" in (old, new) or old == new or new in symbols(builder.condition):
        return builder
    return Builder(rewrites.renamed(builder.head, {old: new}), rewrites.renamed(builder.condition, {old: new}))


def _coordinate_names(names: dict[str, Node]) -> bool:
    return set(names) <= {repr(Sym(letter)) for letter in "xyz"}


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


# ---- numbers -------------------------------------------------------------------------------------


def _decimal(node: Node) -> tuple[Fraction, Fraction] | None:
    """(value, worth of the last digit) of a number written as a decimal, or None."""
    if isinstance(node, Num) and node.ulp is not None:
        return Fraction(node.value), node.ulp
    if isinstance(node, Neg):
        inner = _decimal(node.operand)
        return (-inner[0], inner[1]) if inner else None
    if isinstance(node, Call) and node.name == "percent":
        return _decimal(node.args[0])
    return None


def _literal(node: Node) -> Fraction | None:
    """The value of a number, a fraction of numbers, or one with a sign."""
    if isinstance(node, Num):
        return Fraction(node.value)
    if isinstance(node, Neg):
        inner = _literal(node.operand)
        return None if inner is None else -inner
    if isinstance(node, Div) and isinstance(node.top, Num) and isinstance(node.bottom, Num) and node.bottom.value:
        return Fraction(node.top.value) / Fraction(node.bottom.value)
    return None


def _rounds_to(value: Fraction, wanted: Fraction, ulp: Fraction) -> bool:
    """Nearest; a tie goes away from zero or to the even digit, as people round and as machines do."""
    if abs(value - wanted) * 2 != ulp:
        return abs(value - wanted) * 2 < ulp
    return abs(wanted) > abs(value) or (wanted / ulp) % 2 == 0


def _integral(node: Node) -> bool:
    return (isinstance(node, Num) and node.ulp is None and Fraction(node.value).denominator == 1) or (
        isinstance(node, Neg) and _integral(node.operand)
    )


def _exact(node: Node) -> Fraction | None:
    try:
        value = normal.as_number(normal.normal_form(node, Budget()))
    except (Undecided, LimitExceeded):
        value = None
    return value if value is not None else _approximate(node)


def _approximate(node: Node) -> Fraction | None:
    """A real constant to about 40 digits, or None."""
    from verifiers.mathematics.probes import value_of

    return value_of(node)


def _infinite(node: Node) -> int:
    if node == Const("oo"):
        return 1
    if isinstance(node, Neg) and node.operand == Const("oo"):
        return -1
    if isinstance(node, PlusMinus) and node.operand == Const("oo"):
        return 2
    return 0


def _polynomial(value: normal.Rational) -> bool:
    """Only variables with whole exponents: then unequal normal forms are unequal functions."""
    return all(
        isinstance(exponent, int) and atom.isidentifier() and atom not in ("e", "pi", "i")
        for poly in value
        for monomial in poly
        for atom, exponent in monomial
    )


def _worked_out(node: Node) -> bool:
    """A literal, a fraction of literals, or one with a sign: nothing left to compute."""
    if isinstance(node, Neg):
        return _worked_out(node.operand)
    if isinstance(node, Div):
        return isinstance(node.top, Num) and isinstance(node.bottom, Num)
    return isinstance(node, Num)


def _readings(gold: Node, answer: Node, policy: Policy) -> list[tuple[Node, Node]]:
    """Both sides as written; and, where one side alone bears a percent or degree sign, without the sign."""
    pairs: list[tuple[Node, Node]] = []
    for name in ("percent", "degree"):
        marked = [(isinstance(side, Call) and side.name == name) or _negated(side, name) for side in (gold, answer)]
        optional = policy.percent_optional if name == "percent" else policy.units_optional
        if marked[1] and name == "percent" and (value := _exact(_unmarked(answer, name))) is not None:
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


__all__ = ["Comparison", "ParseError", "Policy", "compare"]
