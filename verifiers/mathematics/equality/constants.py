"""Numbers and constants: what they are worth, and how they were written."""

from __future__ import annotations

from fractions import Fraction

from verifiers.mathematics.equality import normal
from verifiers.mathematics.equality.probes import value_of
from verifiers.mathematics.limits import MAX_ITEMS, Budget, LimitExceeded, Undecided
from verifiers.mathematics.nodes import BaseNumber, Call, Const, Div, Mul, Neg, Node, Num, PlusMinus, Pow, Sym


def place(node: Node) -> Fraction | None:
    """A real constant to so many digits that equal ones, however they are written, come out the same."""
    value = exact(node)
    if value is None or value.denominator.bit_length() < 200:
        return value
    return Fraction(round(value * 2**300), 2**300)


def in_ten(node: Node) -> int | None:
    """The value of a whole number, in whatever base it was written; None for anything else."""
    if isinstance(node, BaseNumber):
        try:
            return int(node.digits, node.base) if 2 <= node.base <= 36 else None
        except ValueError:
            return None
    return int(node.value) if isinstance(node, Num) and Fraction(node.value).denominator == 1 else None


def spelled(node: Node) -> str:
    """The digits of a number written without its base: `1011`, `A3`; "" for anything else."""
    if isinstance(node, Num) and node.ulp is None:
        return str(node.value)
    if isinstance(node, Sym | Const) and len(node.name) <= MAX_ITEMS:
        return node.name.upper()
    return "".join(spelled(factor) or "?" for factor in node.factors) if isinstance(node, Mul) else ""


def decimal(node: Node) -> tuple[Fraction, Fraction] | None:
    """(value, worth of the last digit) of a number written as a decimal, or None."""
    if isinstance(node, Num) and node.ulp is not None:
        return Fraction(node.value), node.ulp
    if isinstance(node, Neg):
        inner = decimal(node.operand)
        return (-inner[0], inner[1]) if inner else None
    if isinstance(node, Call) and node.name == "percent":
        inner = decimal(node.args[0])
        return (inner[0] / 100, inner[1] / 100) if inner else None
    if isinstance(node, Mul) and len(node.factors) == 2 and isinstance(node.factors[0], Num):  # 6.02 * 10^23
        power = node.factors[1]
        ten = isinstance(power, Pow) and power.base == Num(10) and literal(power.exponent)
        inner = decimal(node.factors[0])
        if inner and ten and ten.denominator == 1 and abs(ten) < 1000:
            scale = Fraction(10) ** int(ten)
            return inner[0] * scale, inner[1] * scale
    return None


def without_decimals(node: Node) -> Node:
    """A number as an exact one, however many digits it was written with."""
    if isinstance(node, Num):
        return Num(node.value)
    return Neg(without_decimals(node.operand)) if isinstance(node, Neg) else node


def literal(node: Node) -> Fraction | None:
    """The value of a number, a fraction of numbers, or one with a sign."""
    if isinstance(node, Num):
        return Fraction(node.value)
    if isinstance(node, Neg):
        inner = literal(node.operand)
        return None if inner is None else -inner
    if isinstance(node, Div) and isinstance(node.top, Num) and isinstance(node.bottom, Num) and node.bottom.value:
        return Fraction(node.top.value) / Fraction(node.bottom.value)
    return None


def rounds_to(value: Fraction, wanted: Fraction, ulp: Fraction) -> bool:
    """Nearest; a tie goes away from zero or to the even digit, as people round and as machines do."""
    if abs(value - wanted) * 2 != ulp:
        return abs(value - wanted) * 2 < ulp
    return abs(wanted) > abs(value) or (wanted / ulp) % 2 == 0


def integral(node: Node) -> bool:
    """Whether this is written as a whole number, with a sign or without."""
    return (isinstance(node, Num) and node.ulp is None and Fraction(node.value).denominator == 1) or (
        isinstance(node, Neg) and integral(node.operand)
    )


def exact(node: Node) -> Fraction | None:
    """The value of a real constant: exactly where its normal form is a number, else to about 40 digits, or None."""
    try:
        value = normal.as_number(normal.normal_form(node, Budget()))
    except (Undecided, LimitExceeded):
        value = None
    return value if value is not None else value_of(node)


def infinite(node: Node) -> int:
    """1 for infinity, -1 for minus infinity, 2 for both, 0 for anything else."""
    if node == Const("oo"):
        return 1
    if isinstance(node, Neg) and node.operand == Const("oo"):
        return -1
    if isinstance(node, PlusMinus) and node.operand == Const("oo"):
        return 2
    return 0


def worked_out(node: Node) -> bool:
    """A literal, a fraction of literals, or one with a sign: nothing left to compute."""
    if isinstance(node, Neg):
        return worked_out(node.operand)
    if isinstance(node, Div):
        return isinstance(node.top, Num) and isinstance(node.bottom, Num)
    return isinstance(node, Num)
