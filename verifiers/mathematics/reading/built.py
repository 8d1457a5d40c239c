"""Construction of nodes from parsed parts: literals, function calls, brackets, signs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

from verifiers.mathematics.limits import MAX_ITEMS, LimitExceeded, ParseError
from verifiers.mathematics.nodes import (
    Call,
    Const,
    Div,
    Group,
    GroupKind,
    Interval,
    Matrix,
    Mul,
    Neg,
    Node,
    Num,
    Pow,
    Quantity,
    Relation,
    Sym,
)

_ARITY: Mapping[str, tuple[int, int]] = {
    "binomial": (2, 2),
    **dict.fromkeys(("log", "Fraction", "Rational"), (1, 2)),
    **dict.fromkeys(("max", "min", "gcd", "lcm"), (1, MAX_ITEMS)),
}
"""Function -> smallest and largest number of arguments; 1 for functions not listed."""
_INVERSES = {name: f"arc{name}" for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")}


_LOGARITHMS = frozenset(("log", "ln", "lg"))


def _logarithm(name: str, arguments: tuple[Node, ...], base: Node | None) -> Node:
    """Build `\\log_b x`, `log(x, b)`, `ln x`, `lg x`; a bare log keeps its base open."""
    if base is not None:
        return Call("log", (arguments[0], base))
    if name == "lg":
        return Call("log", (arguments[0], Num(10)))
    return Call(name, arguments)


def _exponential(name: str, arguments: tuple[Node, ...]) -> Node:
    exponent = Mul((Const("i"), arguments[0])) if name == "cis" else arguments[0]
    return Pow(Const("e"), exponent)


def _quotient_of(name: str, arguments: tuple[Node, ...]) -> Node:
    return Div(arguments[0], arguments[1] if len(arguments) > 1 else Num(1))


def _root_of(name: str, arguments: tuple[Node, ...]) -> Node:
    return Call("root", (arguments[0], Num(2 if name == "sqrt" else 3)))


def determinant(name: str, arguments: tuple[Node, ...]) -> Node:
    """Return the determinant for `\\det A`, `|A|` of a square matrix in full; a call for anything else."""
    matrix = arguments[0]
    if isinstance(matrix, Matrix) and not matrix.bar and len(matrix.rows) == len(matrix.rows[0]) > 1:
        return Matrix(matrix.rows, bar=True)
    return Call(name, arguments)


_BUILT: Mapping[str, Callable[[str, tuple[Node, ...]], Node]] = {
    **dict.fromkeys(("sqrt", "cbrt"), _root_of),
    **dict.fromkeys(("exp", "cis"), _exponential),
    **dict.fromkeys(("Fraction", "Rational"), _quotient_of),
    "binomial": lambda _, arguments: Call("binom", arguments),
    "det": determinant,
}
"""Functions with another form in the tree; all others are calls of their name."""


def number(text: str) -> Num:
    """Parse a literal exactly: `1,234.50`, `.5`, `2.75e11`.

    Example:
        >>> number("0.50").ulp
        Fraction(1, 100)
    """
    groups = None
    if "," in text:
        groups = tuple(int(part) for part in text.split(",")) if "." not in text else None
        text = text.replace(",", "")
    mantissa, _, power = text.lower().partition("e")
    if not power and "." not in mantissa:
        return Num(int(mantissa), None, groups)
    exponent = int(power or 0)
    if abs(exponent) > 9_999:
        raise LimitExceeded("a decimal exponent is over 9999")
    whole, _, decimals = mantissa.partition(".")
    scale = Fraction(10) ** (exponent - len(decimals))
    value = Fraction(int((whole or "0") + decimals) if (whole + decimals) else 0) * scale
    if not power and not decimals:
        return Num(int(value), None, None)
    return Num(value, scale)


def repeating(text: str) -> Num:
    """Parse a repeating decimal given as `0.1.6` (whole, fixed digits, cycle): 0.1666... is 1/6.

    Example:
        >>> repeating("0..3").value
        Fraction(1, 3)
    """
    whole, fixed, cycle = text.split(".")
    if not cycle:
        raise ParseError("a repeating decimal without digits")
    shift = 10 ** len(fixed)
    tail = Fraction(int(cycle), (10 ** len(cycle) - 1) * shift)
    return Num(int(whole) + Fraction(int(fixed or 0), shift) + tail)


def either_way(node: Node, letters: int) -> Node:
    """Return the name of a segment or angle in a canonical order: BA becomes AB, CBA becomes ABC."""
    if isinstance(node, Sym) and len(node.name) == letters and node.name.isalpha() and node.name.isupper():
        return Sym(min(node.name, node.name[::-1]))
    return node


ANGLES = ("angle", "measuredangle")


def chained(sides: tuple[Node, ...], ops: tuple[str, ...]) -> Node:
    """Return a relation of the sides, or the side itself if there is only one."""
    return Relation(sides, ops) if ops else sides[0]


def times(left: Node, right: Node) -> Node:
    """Return the product with one more factor."""
    factors = left.factors if isinstance(left, Mul) else (left,)
    return Mul((*factors, right))


def negated(node: Node) -> Node:
    """Return the negative of a value; of a quantity, the negative of its number."""
    return Quantity(Neg(node.value), node.unit) if isinstance(node, Quantity) else Neg(node)


def of_digits(node: Mul) -> bool:
    """Return True for a product of numbers and names only, whose subscript is then a base."""
    return all(isinstance(factor, Num | Sym) for factor in node.factors)


def is_numeric(node: Node) -> bool:
    """Return True for a number, or a negative, product or quotient of numbers."""
    if isinstance(node, Num):
        return True
    if isinstance(node, Neg):
        return is_numeric(node.operand)
    return isinstance(node, Mul | Div) and all(
        is_numeric(part) for part in (node.factors if isinstance(node, Mul) else (node.top, node.bottom))
    )


def is_mixed(whole: Node, fraction: Node) -> bool:
    """Return True for a mixed number such as `1 1/2`: an integer before a proper fraction, both without decimals."""

    def plain(node: Node) -> bool:
        return isinstance(node, Num) and node.ulp is None

    if not (plain(whole) and isinstance(fraction, Div) and plain(fraction.top) and plain(fraction.bottom)):
        return False
    assert isinstance(fraction.top, Num)
    assert isinstance(fraction.bottom, Num)
    return 0 < fraction.top.value < fraction.bottom.value


def bracketed(opener: str, closer: str, items: list[Node]) -> Node:
    """Build the node of items between two brackets: a grouping, an interval, a tuple, the rows of a matrix.

    Raises:
        ParseError: the brackets do not match.
    """
    if not items:
        raise ParseError("empty brackets")
    if len(items) == 1:
        if (opener == "(" and closer == ")") or (opener == "[" and closer == "]"):
            inner = items[0]
            if opener == "(" and isinstance(inner, Num):
                return Num(inner.value, inner.ulp)
            return inner
        raise ParseError("brackets that do not match")
    round_open, round_close = opener == "(", closer == ")"
    if opener == "[" and closer == "]" and all(isinstance(item, Interval) or _is_row(item) for item in items):
        return Matrix(_rows(items))
    if len(items) == 2 and not (round_open and round_close):
        if opener == "(" and closer == "[":
            raise ParseError("brackets that do not match")
        return Interval(items[0], items[1], opener == "[", closer == "]")
    if round_open != round_close:
        raise ParseError("brackets that do not match")
    return Group(GroupKind.TUPLE, tuple(items))


def _is_row(item: Node) -> bool:
    return isinstance(item, Group) and item.kind is GroupKind.TUPLE


def _rows(items: list[Node]) -> tuple[tuple[Node, ...], ...]:
    rows = tuple(
        (item.low, item.high) if isinstance(item, Interval) else item.items if isinstance(item, Group) else (item,)
        for item in items
    )
    if len({len(row) for row in rows}) != 1:
        raise ParseError("rows must have equal lengths")
    return rows


def function_of(name: str, arguments: tuple[Node, ...], *, base: Node | None, exponent: Node | None) -> Node:
    """Build a function call with the marks at its name: `\\log_2 x`, `\\sin^2 x`, `\\sin^{-1} x`.

    Raises:
        ParseError: it has too few or too many arguments.
    """
    fewest, most = _ARITY.get(name, (1, 1))
    if not fewest <= len(arguments) <= most:
        raise ParseError(f"{name} of {len(arguments)} arguments")
    node = _logarithm(name, arguments, base) if name in _LOGARITHMS else _BUILT.get(name, Call)(name, arguments)
    if exponent is None:
        return node
    if isinstance(exponent, Neg) and exponent.operand == Num(1) and name in _INVERSES:
        return Call(_INVERSES[name], arguments)
    return Pow(node, exponent)
