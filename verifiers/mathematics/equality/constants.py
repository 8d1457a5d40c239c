"""Numbers and constants: their values, and how they were written."""

from __future__ import annotations

from fractions import Fraction

from verifiers.mathematics.equality import normal
from verifiers.mathematics.equality.probes import value_of
from verifiers.mathematics.limits import MAX_ITEMS, Budget, LimitExceeded, Undecided
from verifiers.mathematics.nodes import BaseNumber, Call, Const, Div, Mul, Neg, Node, Num, PlusMinus, Pow, Sym


def place(node: Node) -> Fraction | None:
    """Return the value of a real constant, rounded so that equal constants in different forms give equal results.

    None if the value cannot be determined.
    """
    value = exact(node)
    if value is None or value.denominator.bit_length() < 200:
        return value
    return Fraction(round(value * 2**300), 2**300)


def in_ten(node: Node) -> int | None:
    """Return the value of an integer written in any base; None for anything else."""
    if isinstance(node, BaseNumber):
        try:
            return int(node.digits, node.base) if 2 <= node.base <= 36 else None
        except ValueError:
            return None
    return int(node.value) if isinstance(node, Num) and Fraction(node.value).denominator == 1 else None


def spelled(node: Node) -> str:
    """Return the digits of a number written without its base: `1011`, `A3`; "" for anything else."""
    if isinstance(node, Num) and node.ulp is None:
        return str(node.value)
    if isinstance(node, Sym | Const) and len(node.name) <= MAX_ITEMS:
        return node.name.upper()
    return "".join(spelled(factor) or "?" for factor in node.factors) if isinstance(node, Mul) else ""


def decimal(node: Node) -> tuple[Fraction, Fraction] | None:
    """Return (value, value of one unit of the last digit) of a number written as a decimal; None for anything else."""
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
    """Return a number without the record of its written digits."""
    if isinstance(node, Num):
        return Num(node.value)
    return Neg(without_decimals(node.operand)) if isinstance(node, Neg) else node


def literal(node: Node) -> Fraction | None:
    """Return the value of a number or a fraction of two numbers, with or without a sign; None for anything else."""
    if isinstance(node, Num):
        return Fraction(node.value)
    if isinstance(node, Neg):
        inner = literal(node.operand)
        return None if inner is None else -inner
    if isinstance(node, Div) and isinstance(node.top, Num) and isinstance(node.bottom, Num) and node.bottom.value:
        return Fraction(node.top.value) / Fraction(node.bottom.value)
    return None


def rounds_to(value: Fraction, wanted: Fraction, ulp: Fraction) -> bool:
    """Return True if a value rounds to `wanted`, where `ulp` is one unit of the last digit of `wanted`.

    Ties round away from zero or to the even digit: both conventions are accepted.
    """
    if abs(value - wanted) * 2 != ulp:
        return abs(value - wanted) * 2 < ulp
    return abs(wanted) > abs(value) or (wanted / ulp) % 2 == 0


def integral(node: Node) -> bool:
    """Return True if this is written as an integer, with or without a sign."""
    return (isinstance(node, Num) and node.ulp is None and Fraction(node.value).denominator == 1) or (
        isinstance(node, Neg) and integral(node.operand)
    )


def exact(node: Node) -> Fraction | None:
    """Return the value of a real constant; None if it has none.

    Exact if its normal form is a number, otherwise to about 40 digits.
    """
    try:
        value = normal.as_number(normal.normal_form(node, Budget()))
    except (Undecided, LimitExceeded):
        value = None
    return value if value is not None else value_of(node)


def infinite(node: Node) -> int:
    """Return 1 for infinity, -1 for minus infinity, 2 for both, 0 for anything else."""
    if node == Const("oo"):
        return 1
    if isinstance(node, Neg) and node.operand == Const("oo"):
        return -1
    if isinstance(node, PlusMinus) and node.operand == Const("oo"):
        return 2
    return 0


def worked_out(node: Node) -> bool:
    """Return True for a number or a fraction of two numbers, with or without a sign: nothing is left to compute."""
    if isinstance(node, Neg):
        return worked_out(node.operand)
    if isinstance(node, Div):
        return isinstance(node.top, Num) and isinstance(node.bottom, Num)
    return isinstance(node, Num)
