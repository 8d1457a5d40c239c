"""Derivatives among factors, and the side from which a limit is taken."""

from __future__ import annotations

from collections.abc import Sequence

from verifiers.mathematics.nodes import Call, Div, Mul, Node, Num, Pow, Relation, Sym
from verifiers.mathematics.reading.tokens import Token

_MARKS = (Sym("d"), Sym("partial"))


def product_of(factors: Sequence[Node]) -> Node:
    r"""Return the product of factors; after `\frac{d}{dx}`, `\frac{d^2}{dx^2}` or with `\partial`, the derivative."""
    for place, factor in enumerate(factors[:-1]):
        operator = _operator(factor)
        if operator is not None:
            derived = Call("deriv", (*operator, product_of(factors[place + 1 :])))
            return derived if place == 0 else Mul((*factors[:place], derived))
    return Mul(tuple(factors)) if len(factors) > 1 else factors[0]


def _operator(node: Node) -> tuple[Node, Node] | None:
    """Return (variable, order) of a derivative operator; None for anything else."""
    if not isinstance(node, Div):
        return None
    mark, order = (node.top.base, node.top.exponent) if isinstance(node.top, Pow) else (node.top, Num(1))
    if mark not in _MARKS or not (isinstance(node.bottom, Mul) and len(node.bottom.factors) == 2):
        return None
    below, variable = node.bottom.factors
    if isinstance(variable, Pow) and variable.exponent == order:
        variable = variable.base
    elif order != Num(1):
        return None
    return (variable, order) if below == mark and isinstance(variable, Sym) else None


def take_side(tokens: list[Token], start: int) -> str:
    r"""Remove the sign from the subscript `{x \to 0^+}` that begins at a token; return "above", "below" or ""."""
    depth, end = 0, start
    for end in range(start, len(tokens)):
        depth += (tokens[end].text == "{") - (tokens[end].text == "}")
        if depth == 0:
            break
    first = end - 1
    braced = first > start and tokens[first].text == "}"
    sign = tokens[first - braced].text
    if sign not in ("+", "-"):
        return ""
    first -= 2 * braced
    if tokens[first - 1].text == "^":
        first -= 1
    elif braced:
        return ""
    del tokens[first:end]
    return "above" if sign == "+" else "below"


def from_side(subscript: Node, side: str) -> Node:
    r"""Return `x \to 0` from above or below; the subscript unchanged if `side` is ""."""
    if not (side and isinstance(subscript, Relation) and len(subscript.sides) == 2):
        return subscript
    return Relation((subscript.sides[0], Call(side, (subscript.sides[1],))), subscript.ops)
