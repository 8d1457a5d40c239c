"""Integrals in a tree: their integrands and variables, wherever the differential is written."""

from __future__ import annotations

import re
from collections.abc import Sequence

from verifiers.mathematics.nodes import Add, Call, Div, Mul, Neg, Node, Num, Pow, Sym, Text, children, symbols
from verifiers.mathematics.rewrites import rebuilt

FREE_CONSTANT = re.compile(r"[CKABDck]|[A-Za-z]_\d|C'|lambda|alpha|beta")
"""Matches names of constants of integration in an answer."""
BINDING = frozenset(("int", "lim", "sum", "prod", "deriv"))
"""Calls that bind a variable."""


def whole(node: Node) -> Node:
    """Extend each integral up to the term with its differential: the parser splits `∫ x^2 + x dx` into two terms."""
    node = rebuilt(node, whole)
    if not isinstance(node, Add):
        return node
    terms = list(node.terms)
    for place, term in enumerate(terms):
        if isinstance(term, Call) and term.name == "int" and with_variables(term.args[2]) is None:
            for end in range(place + 1, len(terms)):
                if with_variables(terms[end]) is not None:
                    body = _joined((term.args[2], *terms[place + 1 : end + 1]))
                    integral = Call("int", (*term.args[:2], body))
                    rest = [*terms[:place], *terms[end + 1 :]]
                    return whole(Add((*rest, integral))) if rest else integral
    return node


def _joined(terms: Sequence[Node]) -> Node:
    """Return the terms of `x^2 + x dx` as `(x^2 + x) dx`."""
    last = with_variables(terms[-1])
    assert last is not None
    marks = [mark for variable in last[1] for mark in (Sym("d"), variable)]
    return Mul((Add((*terms[:-1], last[0])), *marks))


def with_variables(body: Node) -> tuple[Node, tuple[Sym, ...]] | None:
    """Return (integrand, variables in the order written) of `x dx`, `dx/x`; None without a differential."""
    match body:
        case Neg():
            inner = with_variables(body.operand)
            return None if inner is None else (Neg(inner[0]), inner[1])
        case Div():
            inner = with_variables(body.top)
            return None if inner is None else (Div(inner[0], body.bottom), inner[1])
        case Pow(base=Call()):  # `\\sin^2 x dx`
            inner = with_variables(body.base)
            return None if inner is None else (Pow(inner[0], body.exponent), inner[1])
        case Call() if body.name not in BINDING:  # `\\ln x dx` is parsed as the logarithm of `x dx`
            inner = with_variables(body.args[-1])
            return None if inner is None else (Call(body.name, (*body.args[:-1], inner[0])), inner[1])
        case Mul():
            return _of_product(list(body.factors))
        case _:
            return None


def _of_product(factors: list[Node]) -> tuple[Node, tuple[Sym, ...]] | None:
    found: list[Sym] = []
    place = 0
    while place + 1 < len(factors):
        mark, variable = factors[place], factors[place + 1]
        if mark == Sym("d") and isinstance(variable, Sym):
            found.append(variable)
            del factors[place : place + 2]
        else:
            place += 1
    for place, factor in enumerate(factors):
        inner = with_variables(factor) if isinstance(factor, Mul | Div | Pow | Call) else None
        if inner is not None:
            factors[place] = inner[0]
            found += inner[1]
    if not found:
        return None
    return (Mul(tuple(factors)) if len(factors) > 1 else factors[0] if factors else Num(1)), tuple(found)


def lacks_a_variable(node: Node) -> bool:
    """Return True if the tree has an integral without any differential, for which no answer can be checked."""
    return _lacks(whole(node))


def _lacks(node: Node) -> bool:
    bare = isinstance(node, Call) and node.name == "int" and not _has_differential(node.args[2])
    return bare or any(map(_lacks, children(node)))


def _has_differential(body: Node) -> bool:
    """Return True if the integrand has a d anywhere."""
    return "d" in symbols(body)


def nested(node: Node) -> tuple[list[tuple[Node, Node]], Node]:
    """Return (bounds of each integral sign, outermost first; the innermost integrand) of nested integrals."""
    signs: list[tuple[Node, Node]] = []
    while isinstance(node, Call) and node.name == "int":
        signs.append((node.args[0], node.args[1]))
        node = node.args[2]
    return signs, node


def has_no_bounds(low: Node, high: Node) -> bool:
    """Return True if an integral between these is an antiderivative."""
    return isinstance(low, Text) and isinstance(high, Text)


def has_antiderivative(node: Node) -> bool:
    """Return True if the tree has an integral without bounds."""
    bare = isinstance(node, Call) and node.name == "int" and has_no_bounds(*node.args[:2])
    return bare or any(map(has_antiderivative, children(node)))
