"""Construction of SymPy objects from typed trees: no text is parsed or evaluated. Runs in the SymPy process."""

from __future__ import annotations

import functools
import importlib
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verifiers.mathematics import integrals
from verifiers.mathematics.nodes import (
    Add,
    Call,
    Const,
    Div,
    Matrix,
    Mul,
    Neg,
    Node,
    Num,
    Pow,
    Relation,
    Sym,
    Text,
    children,
    contains,
    symbols,
)

sympy: Any = importlib.import_module("sympy")  # its own types are partial
WHOLE_LETTERS = frozenset(("n", "k", "m", "N", "i", "j"))
"""Letters of integers, if the expression has a sum, a product, a factorial, a rounding or a matrix power."""
_COUNTING = frozenset(("sum", "prod", "factorial", "factorial2", "binom", "floor", "ceil", "mod", "gcd", "lcm"))


class NotBuilt(ValueError):
    """An error for a part of the tree without a counterpart in SymPy here."""


class Builder:
    """A builder for both sides of one question, with shared symbols.

    Args:
        sides: the trees; the assumptions about their letters are derived from all of them.
    """

    def __init__(self, sides: Sequence[Node]) -> None:
        names = frozenset[str]().union(*map(symbols, sides))
        counts = any(_counts(side) for side in sides)
        unknown = any(contains(side, Call) and _calls(side) & {"re", "im", "arg", "bar"} for side in sides)
        self._symbols: dict[str, Any] = {}
        for name in names:
            if counts and name in WHOLE_LETTERS:
                self._symbols[name] = sympy.Symbol(name, integer=True, positive=True)
            else:
                self._symbols[name] = sympy.Symbol(name, **({} if unknown else {"real": True}))

    def build(self, node: Node) -> Any:
        """Return the SymPy object of a tree, unevaluated.

        Raises:
            NotBuilt: a part of it has no counterpart.
        """
        made = _BUILT.get(type(node))
        if made is None:
            raise NotBuilt(type(node).__name__)
        return made(self, node)

    def symbol(self, node: Node) -> Any:
        """Return the symbol of a variable.

        Raises:
            NotBuilt: the node is not a variable.
        """
        if not isinstance(node, Sym):
            raise NotBuilt("a variable was expected")
        return self._symbols.setdefault(node.name, sympy.Symbol(node.name, real=True))

    def index(self, node: Sym) -> Any:
        """Return the index of a sum as an integer symbol."""
        made = self._symbols[node.name] = sympy.Symbol(node.name, integer=True)
        return made

    def quotient(self, node: Div) -> Any:
        """Build a quotient."""
        return self.build(node.top) / self.build(node.bottom)

    def power(self, node: Pow) -> Any:
        """Build a power, also of a matrix."""
        return self.build(node.base) ** self.build(node.exponent)

    def matrix(self, node: Matrix) -> Any:
        """Build a matrix, or its determinant."""
        made = sympy.Matrix([[self.build(cell) for cell in row] for row in node.rows])
        return made.det() if node.bar else made

    def call(self, node: Call) -> Any:
        """Build a function call, or an operator with a bound variable."""
        if node.name in integrals.BINDING:
            return _BOUND[node.name](self, node.args)
        args = [self.build(argument) for argument in node.args]
        if node.name == "apply":
            raise NotBuilt("an unknown function")
        function = _FUNCTIONS.get(node.name)
        if function is None:
            raise NotBuilt(node.name)
        return function(*args)


def _calls(node: Node) -> frozenset[str]:
    found = frozenset((node.name,)) if isinstance(node, Call) else frozenset[str]()
    return found.union(*map(_calls, children(node)))


def _counts(node: Node) -> bool:
    power_of_matrix = isinstance(node, Pow) and isinstance(node.base, Matrix)
    return power_of_matrix or bool(_calls(node) & _COUNTING) or any(map(_counts, children(node)))


def _integral(builder: Builder, args: Sequence[Node]) -> Any:
    """Build an integral with or without bounds. The innermost integral takes the first differential."""
    signs, body = integrals.nested(Call("int", tuple(args)))
    found = integrals.with_variables(body)
    if found is None or len(found[1]) != len(signs):
        raise NotBuilt("an integral without its variable")
    made = builder.build(found[0])
    if len(signs) == 1 and integrals.has_no_bounds(*signs[0]):
        return sympy.Integral(made, builder.symbol(found[1][0]))
    for variable, (low, high) in zip(found[1], reversed(signs), strict=True):
        if isinstance(low, Text) or isinstance(high, Text):
            raise NotBuilt("an integral without its bounds")
        made = sympy.Integral(made, (builder.symbol(variable), builder.build(low), builder.build(high)))
    return made


def _limit(builder: Builder, args: Sequence[Node]) -> Any:
    low, _, body = args
    if not (isinstance(low, Relation) and low.ops == ("to",)):
        raise NotBuilt("a limit without its variable")
    variable, place = low.sides
    side = "+-"
    if isinstance(place, Call) and place.name in ("above", "below"):
        side, place = ("+" if place.name == "above" else "-"), place.args[0]
    at = builder.build(place)
    if at.is_infinite:
        side = "-" if at == sympy.oo else "+"
    return sympy.Limit(builder.build(body), builder.symbol(variable), at, side)


def _series(kind: Callable[..., Any]) -> Callable[[Builder, Sequence[Node]], Any]:
    def made(builder: Builder, args: Sequence[Node]) -> Any:
        low, high, body = args
        if not (isinstance(low, Relation) and low.ops == ("=",)) or isinstance(high, Text):
            raise NotBuilt("a sum without a range")
        name = low.sides[0]
        if not isinstance(name, Sym):
            raise NotBuilt("a sum without its index")
        index = builder.index(name)
        return kind(builder.build(body), (index, builder.build(low.sides[1]), builder.build(high)))

    return made


def _derivative(builder: Builder, args: Sequence[Node]) -> Any:
    variable, order, body = args
    times = builder.build(order)
    if not (times.is_Integer and 1 <= times <= 20):
        raise NotBuilt("a derivative of a variable order")
    return sympy.Derivative(builder.build(body), (builder.symbol(variable), int(times)))


def _product(factors: Sequence[Any]) -> Any:
    """Multiply in order, since matrices do not commute."""
    return functools.reduce(operator.mul, factors)


def _logarithm(argument: Any, base: Any = 10) -> Any:
    return sympy.log(argument) / sympy.log(base)


def _natural(argument: Any, base: Any = None) -> Any:
    return sympy.log(argument) if base is None else _logarithm(argument, base)


def _degrees(angle: Any) -> Any:
    return angle * sympy.pi / 180


def _percent(value: Any) -> Any:
    return value / 100


def _root(radicand: Any, index: Any) -> Any:
    return sympy.real_root(radicand, index) if index.is_odd and radicand.is_real else sympy.root(radicand, index)


_BOUND: Mapping[str, Callable[[Builder, Sequence[Node]], Any]] = {
    "int": _integral,
    "lim": _limit,
    "sum": _series(sympy.Sum),
    "prod": _series(sympy.Product),
    "deriv": _derivative,
}
"""Operator with a bound variable -> its builder."""
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "root": _root,
    "ln": _natural,
    "log": _logarithm,
    "degree": _degrees,
    "percent": _percent,
    "abs": sympy.Abs,
    "bar": sympy.conjugate,
    "ceil": sympy.ceiling,
    "binom": sympy.binomial,
    "arcsinh": sympy.asinh,
    "arccosh": sympy.acosh,
    "arctanh": sympy.atanh,
    "max": sympy.Max,
    "min": sympy.Min,
    "mod": sympy.Mod,
    **{
        name: getattr(sympy, name)
        for name in (
            "sin cos tan cot sec csc sinh cosh tanh coth sech csch floor factorial factorial2 gamma zeta erf sign re im"
            " arg gcd lcm"
        ).split()
    },
    **{f"arc{name}": getattr(sympy, f"a{name}") for name in "sin cos tan cot sec csc".split()},
}
"""Function of the tree -> SymPy's function."""
_BUILT: Mapping[type, Callable[[Builder, Any], Any]] = {
    Num: lambda _, node: sympy.Rational(node.value.numerator, node.value.denominator),
    Sym: Builder.symbol,
    Const: lambda _, node: {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}[node.name],
    Add: lambda builder, node: sympy.Add(*map(builder.build, node.terms)),
    Neg: lambda builder, node: -builder.build(node.operand),
    Mul: lambda builder, node: _product([builder.build(factor) for factor in node.factors]),
    Div: Builder.quotient,
    Pow: Builder.power,
    Call: Builder.call,
    Matrix: Builder.matrix,
}
