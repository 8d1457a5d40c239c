"""Comparison of numbers and scalar expressions by tiers, the cheapest first; quantities and numbers in other bases."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from verifiers.mathematics import rewrites
from verifiers.mathematics.equality import constants, normal, readings
from verifiers.mathematics.equality.comparer import Comparer, Policy, replaced
from verifiers.mathematics.equality.probes import has_complex_parts, probe_equal, value_of
from verifiers.mathematics.limits import Budget, Undecided
from verifiers.mathematics.nodes import (
    Add,
    BaseNumber,
    Call,
    Const,
    Div,
    Group,
    Matrix,
    Mul,
    Neg,
    Node,
    Num,
    Pow,
    Quantity,
    Sym,
    Unit,
    children,
    contains,
    symbols,
)


def numbers(comparer: Comparer, gold: Num, answer: Num) -> bool:
    """Compare two numbers by value, or by the rounding of a decimal reference."""
    comparer.reach("number")
    return gold.value == answer.value or rounds(comparer, gold, Fraction(answer.value), answer)


def rounds(comparer: Comparer, gold: Node, value: Fraction, answer: Node, *, surd: bool = False) -> bool:
    """Return True if an exact value rounds to the decimal reference, in the digits that it was written with.

    The reference must have two significant digits, or three if it has one decimal and no unit: 2.5 is a half, but 9.8
    m/s^2 was measured. Two are enough for a surd, which no decimal equals. A plain decimal answer must have more digits
    than the reference. With a relative tolerance, values within it are accepted too.
    """
    if comparer.policy.relative_tolerance > 0:
        wanted = constants.exact(gold)
        if wanted is not None and abs(value - wanted) <= Fraction(comparer.policy.relative_tolerance) * abs(wanted):
            return True
    written = constants.decimal(gold)
    if written is None or comparer.policy.rounding != "reference":
        return False
    wanted, ulp = written
    if not constants.rounds_to(value, wanted, ulp):
        return False
    mine = constants.decimal(answer)
    digits = 10 if comparer.measured or ulp <= Fraction(1, 100) or ulp >= 1 else 100
    if mine is None:  # a decimal without an end is a decimal too
        least = 100 if isinstance(answer, Num) else 10 if surd else digits
        return not constants.integral(answer) and abs(wanted) / ulp >= least
    return mine[1] < ulp and abs(wanted) / ulp >= digits and abs(value - wanted) * 2 < ulp


def scalars(comparer: Comparer, gold: Node, answer: Node) -> bool:
    """Compare two expressions: by their normal forms, then by their values at some points."""
    if contains(gold, Matrix) and contains(answer, Matrix):
        matrices = rewrites.worked_out(gold), rewrites.worked_out(answer)
        if matrices[0] is None or matrices[1] is None:
            return comparer.left_open(gold, answer)
        return comparer.same(matrices[0], matrices[1])
    if contains(gold, Matrix) or contains(answer, Matrix):
        one, other = (gold, answer) if contains(gold, Matrix) else (answer, gold)
        worked_out = rewrites.dot_product(one) or rewrites.worked_out(one)
        if worked_out is not None:
            return comparer.same(*replaced(gold, one, worked_out, other))
    if not comparer.policy.unsimplified and constants.worked_out(gold) and not constants.worked_out(answer):
        return False
    return any(_scalar(comparer, *sides) for sides in _readings(gold, answer, comparer.policy))


def _scalar(comparer: Comparer, gold: Node, answer: Node) -> bool:
    comparer.reach("normal form")
    for letters in readings.constants_renamed(gold, answer):
        if _same_expression(comparer, gold, rewrites.renamed(answer, letters)):
            return True
    return _same_expression(comparer, gold, answer)


def _same_expression(comparer: Comparer, gold: Node, answer: Node) -> bool:
    names = symbols(gold), symbols(answer)
    if constants.infinite(gold) or constants.infinite(answer):
        return constants.infinite(gold) == constants.infinite(answer)
    try:
        budget = Budget()
        left, right = normal.normal_form(gold, budget), normal.normal_form(answer, budget)
        if normal.equal(left, right, budget):
            return True
        exact = normal.as_number(left), normal.as_number(right)
        if exact[0] is not None and exact[1] is not None:
            comparer.fall_back("normal form")
            return rounds(comparer, gold, exact[1], answer)
        if _polynomial(left) and _polynomial(right) and names[0] | names[1]:
            return names[0] == names[1] and _same_antiderivative(gold, answer, names[0], ("C", "K"))
    except Undecided:
        pass
    comparer.reach("numeric")
    try:
        if probe_equal(gold, answer):
            return True
        if names[0] == names[1] and (names[0] & _CONSTANTS):
            return _same_antiderivative(gold, answer, names[0], ("C", "K", "c", "k"))
    except Undecided:
        if _same_series(comparer, gold, answer):
            return True
        return comparer.left_open(gold, answer)
    return _rounded_surd(comparer, gold, answer)


def _same_series(comparer: Comparer, gold: Node, answer: Node) -> bool:
    """Compare two infinite sums, integrals or limits without evaluating them: the same kind, with equal parts."""
    if not (isinstance(gold, Call) and isinstance(answer, Call) and gold.name == answer.name):
        return False
    return gold.name in ("sum", "prod", "int", "lim", "deriv") and comparer.in_order(gold.args, answer.args)


_UNEVALUATED: Mapping[str, str] = {"int": "an integral", "lim": "a limit", "deriv": "a derivative"}


def undecidable(node: Node) -> str:
    """Return the kind of a part that no tier evaluates, so that only the same expression equals it; "" if there is
    none.
    """
    if isinstance(node, Call):
        if node.name in _UNEVALUATED:
            return _UNEVALUATED[node.name]
        if node.name in ("sum", "prod") and constants.infinite(node.args[1]):
            return "an infinite series"
    if isinstance(node, Pow) and isinstance(node.base, Matrix):
        return "a matrix power"
    return next((kind for kind in map(undecidable, children(node)) if kind), "")


FEW_DIGITS = 15


def is_question(gold: Node, answer: Node) -> bool:
    """Return True if an undecided pair is passed to the second opinion: unevaluated parts, or complex numbers.

    An answer that leaves unevaluated what the reference has evaluated is not passed, equal or not: it may be the
    problem itself. Nor is a decimal of many digits, which may be a value truncated where the comparison still sees a
    difference; a decimal of few digits is equal only if the value ends there.
    """
    if not undecidable(gold) and (undecidable(answer) or not (has_complex_parts(gold) or has_complex_parts(answer))):
        return False
    written = constants.decimal(answer)
    return written is None or abs(written[0]) < written[1] * 10**FEW_DIGITS


def _rounded_surd(comparer: Comparer, gold: Node, answer: Node) -> bool:
    """Return True if a constant rounds to the decimal reference, or, with a tolerance, if two constants agree within
    it.
    """
    approximate = constants.decimal(gold) is not None or comparer.policy.relative_tolerance > 0
    if not approximate or symbols(gold) or symbols(answer):
        return False
    value = value_of(answer)
    return value is not None and rounds(comparer, gold, value, answer, surd=True)


def quantities(comparer: Comparer, gold: Node, answer: Node) -> bool:
    """Compare two values of which at least one has a unit."""
    gold, answer = readings.letter_unit(gold, answer), readings.letter_unit(answer, gold)
    if isinstance(gold, Quantity) and isinstance(answer, Quantity):
        return _two_quantities(comparer, gold, answer)
    if (angle := _in_degrees(gold, answer)) is not None:
        return comparer.same(*angle)
    comparer.measured = True
    if not comparer.policy.units_optional or _bear_other_marks(gold, answer):
        return False
    if isinstance(gold, Group) or isinstance(answer, Group):
        return False
    return comparer.same(
        gold.value if isinstance(gold, Quantity) else gold, answer.value if isinstance(answer, Quantity) else answer
    )


def _bear_other_marks(gold: Node, answer: Node) -> bool:
    """Return True if only one side has a unit, and the other has a mark: 90 square units and 90°, 25 ft and 25_6."""
    quantity, other = (gold, answer) if isinstance(gold, Quantity) else (answer, gold)
    if not isinstance(quantity, Quantity) or quantity.unit.dimension == (("angle", 1),):
        return False
    if not (quantity.unit.dimension or quantity.unit.words):
        return False
    return isinstance(other, BaseNumber) or (isinstance(other, Call) and other.name == "degree")


def _two_quantities(comparer: Comparer, gold: Quantity, answer: Quantity) -> bool:
    first, second = gold.unit, answer.unit
    comparer.measured = bool(first.dimension and second.dimension)
    if first.sense and second.sense and first.sense != second.sense:
        return False
    if first.dimension and second.dimension:
        if {"sterling", "pound"} == {*first.words[:1], *second.words[:1]}:
            return comparer.same(gold.value, answer.value)
        if first.dimension != second.dimension:
            converted = _on_scale_of(first, answer)
            return converted is not None and comparer.same(gold.value, converted)
        if first.factor != second.factor:
            scaled = Mul((answer.value, Num(second.factor / first.factor)))
            return comparer.same(gold.value, scaled)
    elif first.words != second.words:
        named = [{word for word in unit.words if word not in _GENERIC} for unit in (first, second)]
        if not comparer.policy.units_optional or (all(named) and not named[0] & named[1]):
            return False
    return comparer.same(gold.value, answer.value)


_KELVIN: Mapping[str, tuple[Fraction, Fraction]] = {
    "K": (Fraction(1), Fraction(0)),
    "celsius": (Fraction(1), Fraction(27315, 100)),
    "fahrenheit": (Fraction(5, 9), Fraction(45967, 180)),
}
"""Temperature scale -> (a, b): kelvins are a t + b (SI brochure 2019, 2.3.1)."""


def _on_scale_of(unit: Unit, other: Quantity) -> Node | None:
    """Return a temperature converted to the scale of this unit; None for anything else."""
    scales = [part.dimension[0][0] for part in (unit, other.unit) if len(part.dimension) == 1 and part.factor == 1]
    if len(scales) != 2 or not all(scale in _KELVIN for scale in scales):
        return None
    (a, b), (c, d) = _KELVIN[scales[0]], _KELVIN[scales[1]]
    return Add((Mul((Num(c / a), other.value)), Num((d - b) / a)))


def _in_degrees(gold: Node, answer: Node) -> tuple[Node, Node] | None:
    """Return both sides as values of an angle, if one is in radians and the other in degrees; else None."""
    sides: list[Node] = []
    kinds: set[str] = set()
    for side in (gold, answer):
        if isinstance(side, Call) and side.name == "degree":
            kinds.add("degree")
            sides.append(Div(Mul((side.args[0], Const("pi"))), Num(180)))
        elif isinstance(side, Quantity) and side.unit.dimension == (("radian", 1),):
            kinds.add("radian")
            sides.append(side.value)
    return (sides[0], sides[1]) if kinds == {"degree", "radian"} else None


_GENERIC = frozenset(("unit", "square", "sq", "cubic", "cu", "per", ""))
"""Unit words without a meaning of their own."""


def bases(comparer: Comparer, gold: Node, answer: Node) -> bool:
    """Compare two numbers of which at least one is written in another base."""
    if comparer.policy.any_base:
        values = constants.in_ten(gold), constants.in_ten(answer)
        return values[0] is not None and values[0] == values[1]
    if isinstance(gold, BaseNumber) and isinstance(answer, BaseNumber):
        return gold.base == answer.base and gold.digits.lstrip("0").upper() == answer.digits.lstrip("0").upper()
    if isinstance(gold, BaseNumber):
        return constants.spelled(answer) == gold.digits.upper()
    assert isinstance(answer, BaseNumber)
    spelled = constants.spelled(gold)
    if _IN_BASE.get(answer.base, _NEVER).fullmatch(spelled):
        return spelled == answer.digits.upper()
    value = constants.in_ten(answer)
    return value is not None and constants.literal(gold) == value


_NEVER = re.compile(r"(?!)")
_IN_BASE: Mapping[int, re.Pattern[str]] = {2: re.compile(r"[01]+"), 16: re.compile(r"[\dA-F]*[A-F][\dA-F]*")}
"""Base -> form of a reference that was written in it without stating so: zeros and ones, letters."""


_CONSTANTS = frozenset(("C", "K", "c", "k"))


def _same_antiderivative(gold: Node, answer: Node, names: frozenset[str], allowed: Sequence[str]) -> bool:
    """Return True if two sums with the same free constant differ by a term without their single variable.

    With further parameters (`\\frac{1}{a}\\arctan\\frac{x}{a} + C`) the constant must be a capital: `ax^2 + bx + c` is
    not an antiderivative.
    """
    constant = next((name for name in allowed if _is_free(name, gold) and _is_free(name, answer)), "")
    rest = names - {constant}
    variables = rest & readings.VARIABLES if len(rest) > 1 and constant.isupper() else rest
    if not constant or len(variables) != 1 or (constant.isupper() and not variables <= readings.VARIABLES):
        return False
    difference = Add((gold, Neg(answer)))
    fixed = rewrites.substituted(difference, dict.fromkeys(variables, Num(Fraction(1234, 997))))
    return probe_equal(difference, fixed)


def _is_free(constant: str, side: Node) -> bool:
    """Return True if a name is a term by itself, once, and appears nowhere else."""
    terms = side.terms if isinstance(side, Add) else ()
    others = [term for term in terms if term != Sym(constant)]
    return len(others) == len(terms) - 1 and not any(constant in symbols(term) for term in others)


def _polynomial(value: normal.Rational) -> bool:
    """Return True for variables with integer exponents only: then unequal normal forms are unequal functions."""
    return all(
        isinstance(exponent, int) and atom.isidentifier() and atom not in ("e", "pi", "i")
        for poly in value
        for monomial in poly
        for atom, exponent in monomial
    )


def _readings(gold: Node, answer: Node, policy: Policy) -> Iterator[tuple[Node, Node]]:
    """Yield pairs of readings: without a percent or degree sign that one side has; as written; with real odd roots."""
    for name in ("percent", "degree"):
        marked = [(isinstance(side, Call) and side.name == name) or _negated(side, name) for side in (gold, answer)]
        if marked[0] and marked[1]:
            yield _unmarked(gold, name), _unmarked(answer, name)
            return
        optional = policy.percent_optional if name == "percent" else policy.units_optional
        if marked[1] and name == "percent" and (value := constants.exact(_unmarked(answer, name))) is not None:
            optional = optional and abs(value) >= 1  # 0.5% is not 0.5
        if marked[0] != marked[1] and optional:
            plain = _unmarked(gold, name)
            if name == "percent" and constants.decimal(answer) is None:
                plain = constants.without_decimals(plain)  # 13/12 is not 1.1 %
            yield plain, _unmarked(answer, name)
    yield gold, answer
    if rewrites.has_odd_roots(gold) or rewrites.has_odd_roots(answer):
        yield rewrites.with_real_roots(gold), rewrites.with_real_roots(answer)


def _negated(node: Node, name: str) -> bool:
    return isinstance(node, Neg) and isinstance(node.operand, Call) and node.operand.name == name


def _unmarked(node: Node, name: str) -> Node:
    if isinstance(node, Neg):
        return Neg(_unmarked(node.operand, name))
    return node.args[0] if isinstance(node, Call) and node.name == name else node
