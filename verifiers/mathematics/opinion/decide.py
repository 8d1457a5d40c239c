"""The question of whether two expressions are equal, for SymPy. Runs in the SymPy process."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from verifiers.mathematics import integrals
from verifiers.mathematics.nodes import Node
from verifiers.mathematics.opinion.build import Builder, NotBuilt

sympy: Any = importlib.import_module("sympy")  # its own types are partial
DIGITS = 50
AGREE = 40
"""Digits, of DIGITS, in which two values must agree at each point."""
APART = 12
"""Digits to which two values must differ to be called different."""
POINTS: tuple[tuple[int, int], ...] = ((1234, 997), (577, 1201), (2801, 1409), (-1511, 1103), (-389, 1777))
"""Rationals at which expressions in real variables are compared: three positive, two negative."""
WHOLE = (2, 3, 4, 5, 7)
_PENDING = (sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit, sympy.Derivative)
_UNDEFINED = (sympy.nan, sympy.zoo, sympy.oo, -sympy.oo)


def decide(gold: Node, answer: Node) -> str:
    """Return "equal", "different", or "unknown: " with the reason."""
    try:
        builder = Builder((gold, answer))
        left, right = (builder.build(integrals.whole(side)) for side in (gold, answer))
    except NotBuilt as error:
        return f"unknown: {error}"
    left, right = _light(left), _light(right)
    if isinstance(left, sympy.MatrixBase | sympy.MatPow) or isinstance(right, sympy.MatrixBase | sympy.MatPow):
        return _matrices(left.doit(), right.doit())
    if any(map(_antiderivatives, (left, right))):
        return _families(left, right)
    return _values(left, right)


def _values(left: Any, right: Any) -> str:
    """Decide whether two expressions are equal: by their values, then evaluated, finally by simplification."""
    if left.has(*_PENDING) or right.has(*_PENDING):
        if _by_values(left, right) == "equal":
            return "equal"
        # Numerical integration may be inaccurate: only a closed form can show a difference.
        left, right = left.doit(), right.doit()
    if left.has(*_PENDING) or right.has(*_PENDING):
        return "unknown: not worked out"
    if left in _UNDEFINED or right in _UNDEFINED:
        return "unknown: no value" if left == right or left is sympy.nan or right is sympy.nan else "different"
    said = _by_values(left, right)
    return "equal" if said != "different" and sympy.simplify(left - right) == 0 else said


def _antiderivatives(side: Any) -> list[Any]:
    """Return the integrals without bounds in an expression."""
    return [part for part in side.atoms(sympy.Integral) if len(part.limits[0]) == 1]


def _families(left: Any, right: Any) -> str:
    """Decide whether two sides are the same antiderivatives: each with a free constant, and with the same derivative.

    ln x, without the absolute value, is not accepted for 1/x: it has no real value where the other side has one.
    """
    parts = [*_antiderivatives(left), *_antiderivatives(right)]
    variables = {part.limits[0][0] for part in parts}
    if len(variables) > 1:
        return "unknown: antiderivatives in several variables"
    (variable,) = variables
    if not all(_antiderivatives(side) or _free_constant(side, variable) for side in (left, right)):
        return "different"
    slopes = [side.diff(variable) for side in (left, right)]
    if any(map(_antiderivatives, slopes)):
        return "unknown: a function of an antiderivative"
    said = _values(*slopes)
    closed = [side for side in (left, right) if not _antiderivatives(side)]
    return "different" if said == "equal" and any(_leaves_the_reals(side, slopes[0]) for side in closed) else said


def _free_constant(side: Any, variable: Any) -> bool:
    """Return True if a constant of integration is added: C, K, c_1, 2C or ln C, but not the k of `kx`."""
    for name in side.free_symbols - {variable}:
        weight = side.diff(name)
        if integrals.FREE_CONSTANT.fullmatch(str(name)) and weight != 0 and not weight.has(variable):
            return True
    return False


def _leaves_the_reals(side: Any, slope: Any) -> bool:
    """Return True if an antiderivative has no real value at a point where its derivative has one."""
    names, constants = sorted(slope.free_symbols, key=str), side.free_symbols - slope.free_symbols
    for place in range(len(POINTS)):
        point = {name: _point(name, index, place) for index, name in enumerate(names)} | dict.fromkeys(constants, 2)
        values = [_value(expression.subs(point)) for expression in (slope, side)]
        if None not in values and values[0].as_real_imag()[1] == 0 != values[1].as_real_imag()[1]:
            return True
    return False


def _light(side: Any) -> Any:
    """Evaluate derivatives, limits, infinite products and integrals over infinite ranges; leave the others."""
    return side.replace(_is_light, _done).replace(sympy.Product, _product)


def _done(part: Any) -> Any:
    return part.doit()


def _is_light(part: Any) -> bool:
    if isinstance(part, sympy.Integral):
        return any(bound.is_infinite for limit in part.limits for bound in limit[1:])
    return isinstance(part, sympy.Derivative | sympy.Limit)


def _product(body: Any, *limits: Any) -> Any:
    """Return a product; an infinite one as the limit of its finite products."""
    index, low, high = limits[0]
    if high != sympy.oo or len(limits) > 1:
        return sympy.Product(body, *limits).doit()
    end = sympy.Symbol("end", integer=True, positive=True)
    return sympy.limit(sympy.simplify(sympy.product(body, (index, low, end))), end, sympy.oo)


def _matrices(left: Any, right: Any) -> str:
    if not (isinstance(left, sympy.MatrixBase) and isinstance(right, sympy.MatrixBase)):
        return "unknown: a matrix power"
    if left.shape != right.shape:
        return "different"
    said = [_by_values(a, b) for a, b in zip(left, right, strict=True)]
    return next((word for word in said if word != "equal"), "equal")


def _by_values(left: Any, right: Any) -> str:
    """Decide whether two expressions agree at every point at which both have a value."""
    names = sorted(left.free_symbols | right.free_symbols, key=str)
    agreed = 0
    for place in range(len(POINTS) if names else 1):
        same = _same_at(left, right, {name: _point(name, index, place) for index, name in enumerate(names)})
        if same is False:
            return "different"
        agreed += same is True
    return "equal" if agreed else "unknown: no value at any point"


def _point(name: Any, index: int, place: int) -> Any:
    """Return the value of a variable; it differs between variables and between points."""
    if name.is_integer:
        return sympy.Integer(WHOLE[place] + index)
    top, bottom = POINTS[(place + index) % len(POINTS)]
    real = sympy.Rational(top + index, bottom)
    return real if name.is_real else real + sympy.I * sympy.Rational(*POINTS[(place + index + 1) % len(POINTS)])


def _same_at(left: Any, right: Any, point: Mapping[Any, Any]) -> bool | None:
    """Return True if two values agree to AGREE digits, False if they clearly differ, None if neither."""
    values = [_value(side.subs(point)) for side in (left, right)]
    if values[0] is None or values[1] is None:
        return None
    if any(at.is_negative for at in point.values()) and any(value.as_real_imag()[1] != 0 for value in values):
        return None  # for negative values, principal branches may differ although the real functions agree
    scale = max(abs(values[0]), abs(values[1]), sympy.Float(10, DIGITS) ** -AGREE)
    apart = abs(values[0] - values[1])
    if apart <= scale * sympy.Float(10, DIGITS) ** -AGREE:
        return True
    return False if apart > scale * sympy.Float(10, DIGITS) ** -APART else None


def _value(side: Any) -> Any:
    """Return a complex number to DIGITS digits; None if there is no value, or not with that accuracy."""
    try:
        value = side.evalf(DIGITS, maxn=200)
    except (ValueError, TypeError, ZeroDivisionError, NotImplementedError):  # a divergent series, a pole
        return None
    real, imaginary = value.as_real_imag()
    settled = real.is_Number and imaginary.is_Number and value.is_finite
    return value if settled else None
