"""High-precision values of scalar expressions at fixed pseudo-random points, in two precisions and without an epsilon.

Each expression is evaluated at 160 and at 480 bits, plus as many as the spread of its scales requires: compared with
`1`, `1 + e^{-1000}` is evaluated at 4,800. Values that agree at both precisions are trusted; those that shrink with the
precision are zero; anything else is undecided. Equal means equal to all but 60 of these bits at every point.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from verifiers.mathematics.limits import LimitExceeded, Undecided
from verifiers.mathematics.nodes import (
    Add,
    Call,
    Const,
    Div,
    Mul,
    Neg,
    Node,
    Num,
    Pow,
    Relation,
    Sym,
    children,
    symbols,
)

LOW_BITS, HIGH_BITS = 160, 480
_COMPLEX = frozenset(("bar", "re", "im", "arg"))
"""Functions of numbers that may be complex."""
MAX_NODES = 3_000
MAX_WORK = 30_000
"""Nodes evaluated at one point, counted once per 160 bits, functions five times: about 0.1 s."""
MAX_EXTRA_BITS = 12_000
"""Limit on the further bits for widely different scales; beyond it two expressions are not compared."""
MAX_EXPONENT_BITS = 40_000
"""Limit on the bits of the binary exponent of a power; larger towers are refused."""
MAX_TRIG_BITS = 2_000
"""Limit on the magnitude of an angle: its reduction needs that many more bits of pi."""
MAX_TERMS = 2_000
"""Limit on the terms of a sum or product that is added up."""
POINTS = 5

_local = threading.local()


def _contexts() -> tuple[Any, Any]:
    """Return this thread's two mpmath contexts (precision is state of a context; nothing global is changed)."""
    found = getattr(_local, "contexts", None)
    if found is None:
        from mpmath.ctx_mp import MPContext

        low, high = MPContext(), MPContext()
        low.prec, high.prec = LOW_BITS, HIGH_BITS
        found = _local.contexts = (low, high)
    return found


def probe_equal(left: Node, right: Node) -> bool:
    """Return True if both expressions have the same value at every point in the domain of both.

    Raises:
        Undecided: no point could be evaluated, or a value stayed unstable.
        LimitExceeded: a value is too large to be computed.
    """
    if _size(left) + _size(right) > MAX_NODES:
        raise LimitExceeded("the expressions are too long to compare numerically")
    names = sorted(symbols(left) | symbols(right))
    accepted = 0
    points = _points(names, _counters(left) | _counters(right) | _whole_numbers(left) | _whole_numbers(right))
    if names and (_calls(left) | _calls(right)) & {"floor", "ceil", "mod"}:
        points.append({name: (index + 3, 1) for index, name in enumerate(names)})  # where roundings jump
    for point in points:
        verdict = _equal_at(left, right, point)
        if verdict is False:
            return False
        accepted += verdict is True
        if not names and accepted:
            break
    if not accepted:
        raise Undecided("no point at which both expressions have a value")
    return True


def is_undefined(node: Node) -> bool:
    """Return True if a constant has no value: a quotient by 0, the logarithm of 0, 0 to the power of -1.

    False if it contains something that is never evaluated here, such as infinity.
    """
    known = _ANGLES.keys() | _OTHERS.keys() | {"root", "ln", "log"}
    if not _is_plain(node) or not _calls(node) <= known:
        return False
    try:
        return not probe_equal(node, node)
    except Undecided:
        return True
    except LimitExceeded:
        return False


def has_complex_parts(node: Node) -> bool:
    """Return True if a tree has a conjugate, a real or imaginary part, or an argument of a complex number."""
    return bool(_calls(node) & _COMPLEX)


def _is_plain(node: Node) -> bool:
    """Return True for a constant expression with one value: no variable, infinity, ± sign, or structure."""
    plain = isinstance(node, Num | Add | Neg | Mul | Div | Pow | Call) or (
        isinstance(node, Const) and node.name != "oo"
    )
    return plain and all(map(_is_plain, children(node)))


def _calls(node: Node) -> frozenset[str]:
    """Return the names of the functions in a tree."""
    found = frozenset((node.name,)) if isinstance(node, Call) else frozenset[str]()
    for child in children(node):
        found |= _calls(child)
    return found


def _counters(node: Node) -> frozenset[str]:
    """Return the names in the bounds of sums and products: their values are integers."""
    found: frozenset[str] = frozenset()
    if isinstance(node, Call) and node.name in ("sum", "prod"):
        found = symbols(node.args[1]) | symbols(node.args[0])
        if isinstance(node.args[0], Relation):
            found -= symbols(node.args[0].sides[0])
    for child in children(node):
        found |= _counters(child)
    return found


_WHOLE_ARGUMENTS = frozenset(("factorial", "factorial2", "binom", "gcd", "lcm"))
_WHOLE_LETTERS = frozenset(("n", "k", "m", "N", "i", "j"))


def _whole_numbers(node: Node) -> frozenset[str]:
    """Return the names with integer values: n in n!, in (-1)^n, and, if the letter suggests it, in roundings."""
    found: frozenset[str] = frozenset()
    if isinstance(node, Call) and node.name in _WHOLE_ARGUMENTS:
        found = symbols(node)
    elif isinstance(node, Call) and node.name in ("floor", "ceil", "mod"):
        found = symbols(node) & _WHOLE_LETTERS
    elif isinstance(node, Pow) and isinstance(node.base, Neg) and isinstance(node.base.operand, Num):
        found = symbols(node.exponent)
    for child in children(node):
        found |= _whole_numbers(child)
    return found


def _points(names: list[str], counters: frozenset[str]) -> list[Mapping[str, tuple[int, int]]]:
    """Return test points: rationals (integers for counters), always the same for the same names.

    Three points are positive, one negative, one mixed. With counters there are twice as many.
    """
    rng = random.Random(f"probe {names}")
    points: list[Mapping[str, tuple[int, int]]] = []
    whole = sum(name in counters for name in names)
    for index in range((2 * POINTS if whole else POINTS) if names else 1):
        point: dict[str, tuple[int, int]] = {}
        for name in names:
            top, bottom = rng.randrange(101, 4001), rng.randrange(997, 1999)
            if name in counters:
                point[name] = (2 + index + (top % 4 if whole > 1 else 0), 1)
                continue
            negative = index == 3 or (index > 3 and rng.random() < 0.5)
            point[name] = (-top if negative else top, bottom)
        points.append(point)
    return points


def _equal_at(left: Node, right: Node, point: Mapping[str, tuple[int, int]]) -> bool | None:
    """Return True or False; None if the point is outside the domain of either side."""
    low, high = _contexts()
    negative = any(top < 0 for top, _ in point.values())
    try:
        coarse, fine, bits = _twice((left, right), low, high, point)
    except LimitExceeded:
        raise
    except (ZeroDivisionError, ValueError):  # Undecided, or a pole that mpmath reports
        return None
    except (OverflowError, MemoryError) as error:
        raise LimitExceeded("a value is too large to be worked out") from error
    complex_sides = [
        isinstance(value, high.mpc) and abs(value.imag) > abs(value) * high.mpf(2) ** -100 for value in fine
    ]
    if negative and any(complex_sides):
        if not all(complex_sides) and ("abs" in _calls(left)) != ("abs" in _calls(right)):
            return False  # ln x has no value where ln|x| has one
        return None  # for negative values, principal branches may differ although the real functions agree
    exact = [_settled(c, f, high) for c, f in zip(coarse, fine, strict=True)]
    if None in exact:
        return None
    a, b = (value for value in exact if value is not None)
    scale = max(abs(a), abs(b))
    if scale == 0:
        return True
    return bool(abs(a - b) <= scale * high.mpf(2) ** -(bits - 60))


def _twice(
    nodes: tuple[Node, ...], low: Any, high: Any, point: Mapping[str, tuple[int, int]]
) -> tuple[list[Any], list[Any], int]:
    """Return (values at the lower precision, at the higher one, the higher precision).

    Both precisions are raised as the scales within the expressions require.
    """
    low.prec, high.prec = LOW_BITS, HIGH_BITS
    low.spread = 0
    low.work = high.work = MAX_WORK
    coarse = [_value(node, low, point) for node in nodes]
    extra = 3 * int(low.spread)
    if extra > MAX_EXTRA_BITS:
        raise LimitExceeded("the scales within the answer are too far apart")
    if extra > LOW_BITS:
        low.prec, high.prec = LOW_BITS + extra, HIGH_BITS + extra
        coarse = [_value(node, low, point) for node in nodes]
    high.spread = 0
    return coarse, [_value(node, high, point) for node in nodes], high.prec


def _settled(coarse: Any, fine: Any, high: Any) -> Any:
    """Return the trusted value: the fine one, or 0 if it only shrinks with the precision; None if neither holds."""
    if high.isnan(fine) or high.isinf(fine):
        return None
    coarse = high.convert(coarse)
    if fine == 0 or abs(fine) < abs(coarse) * high.mpf(2) ** -(HIGH_BITS - LOW_BITS - 60):
        return high.mpf(0)
    if abs(fine - coarse) <= abs(fine) * high.mpf(2) ** -(LOW_BITS // 2):
        return fine
    return None


def _size(node: Node) -> int:
    return 1 + sum(_size(child) for child in children(node))


def _value(node: Node, ctx: Any, point: Mapping[str, tuple[int, int]]) -> Any:
    """Return the value in a context, with bounded work that is checked before each power and function."""
    ctx.work -= ctx.prec // LOW_BITS * (5 if isinstance(node, Call | Pow) else 1)
    if ctx.work < 0:
        raise LimitExceeded("a value takes too long to be worked out")
    match node:
        case Num():
            return ctx.mpf(node.value.numerator) / node.value.denominator
        case Sym():
            if node.name not in point:
                raise Undecided("a bound variable outside its sum")
            top, bottom = point[node.name]
            return ctx.mpf(top) / bottom
        case Const():
            if node.name == "oo":
                raise Undecided("infinity")
            return {"pi": +ctx.pi, "e": +ctx.e, "i": ctx.mpc(0, 1)}[node.name]
        case Neg():
            return -_value(node.operand, ctx, point)
        case Add():
            terms = [_value(term, ctx, point) for term in node.terms]
            sizes = [_magnitude(term, ctx) for term in terms if term != 0]
            ctx.spread += max(sizes) - min(sizes) if sizes else 0
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            return total
        case Mul():
            total = _value(node.factors[0], ctx, point)
            for factor in node.factors[1:]:
                total = total * _value(factor, ctx, point)
            return total
        case Div():
            return _value(node.top, ctx, point) / _value(node.bottom, ctx, point)
        case Pow():
            return _power(_value(node.base, ctx, point), _value(node.exponent, ctx, point), ctx)
        case Call():
            return _call(node, ctx, point)
        case _:
            raise Undecided("not a scalar expression")


def _magnitude(value: Any, ctx: Any) -> int:
    """Return the number of bits before the binary point; 0 for 0."""
    found = ctx.mag(value)
    return int(found) if found not in (ctx.ninf, ctx.inf) and not ctx.isnan(value) else 0


def _power(base: Any, exponent: Any, ctx: Any) -> Any:
    if _magnitude(exponent, ctx) > 64:
        raise LimitExceeded("a power is too large to be worked out")
    size = abs(_magnitude(base, ctx)) * abs(exponent)
    if size > 2.0 ** MAX_EXPONENT_BITS.bit_length() * 2**48:
        raise LimitExceeded("a power is too large to be worked out")
    ctx.spread += _smallness(exponent, ctx)
    if base == 0 and ctx.re(exponent) <= 0:
        if exponent == 0:
            return ctx.mpf(1)
        raise ZeroDivisionError
    return ctx.power(base, exponent)


def _smallness(value: Any, ctx: Any) -> int:
    """Return the bits by which a value is closer to zero than 1, where functions are nearly linear."""
    return max(0, -_magnitude(value, ctx)) if value != 0 else 0


_SATURATING = frozenset("sinh cosh tanh coth sech csch arctan arccot".split())
"""Functions that approach a limit or another function for large arguments."""


def _real(value: Any, ctx: Any) -> Any:
    if isinstance(value, ctx.mpc):
        if value.imag != 0:
            raise Undecided("a real argument was expected")
        return value.real
    return value


def _call(node: Call, ctx: Any, point: Mapping[str, tuple[int, int]]) -> Any:
    if node.name in ("sum", "prod"):
        return _series(node, ctx, point)
    if node.name in _COMPLEX and symbols(node):
        raise Undecided(f"{node.name} of what may be complex")
    args = [_value(argument, ctx, point) for argument in node.args]
    first = args[0]
    ctx.spread += _smallness(first, ctx)
    if node.name in _SATURATING:
        size = _magnitude(first, ctx)
        ctx.spread += size if node.name.startswith("arc") else 3 * 2 ** min(max(size, 0), 20)
    if node.name == "root":
        return _root(first, args[1], ctx)
    if node.name in ("ln", "log"):
        if first == 0:
            raise ZeroDivisionError
        base = args[1] if len(args) > 1 else (ctx.e if node.name == "ln" else ctx.mpf(10))
        return ctx.ln(first) / ctx.ln(base)
    if node.name in _ANGLES:
        if _magnitude(first, ctx) > MAX_TRIG_BITS:
            raise LimitExceeded("an angle is too large to be worked out")
        return _ANGLES[node.name](ctx, first)
    if node.name in _OTHERS:
        if any(_magnitude(argument, ctx) > MAX_EXPONENT_BITS for argument in args):
            raise LimitExceeded(f"an argument of {node.name} is too large to be worked out")
        return _OTHERS[node.name](ctx, args)
    raise Undecided(node.name)


def _root(radicand: Any, index: Any, ctx: Any) -> Any:
    if index == 0:
        raise ZeroDivisionError
    real = not isinstance(radicand, ctx.mpc) or radicand.imag == 0
    if real and ctx.re(radicand) < 0 and ctx.isint(index) and int(ctx.re(index)) % 2:
        return -_power(-ctx.re(radicand), 1 / index, ctx)
    return _power(radicand, 1 / index, ctx)


def _gamma(ctx: Any, argument: Any) -> Any:
    if _magnitude(argument, ctx) > 60:
        raise LimitExceeded("a factorial is too large to be worked out")
    return ctx.gamma(argument)


def _special(ctx: Any, function: str, argument: Any) -> Any:
    if _magnitude(argument, ctx) > 6:
        raise LimitExceeded(f"an argument of {function} is too large to be worked out")
    return getattr(ctx, function)(_real(argument, ctx))


def _double_factorial(ctx: Any, argument: Any) -> Any:
    if _magnitude(argument, ctx) > 14:
        raise LimitExceeded("a factorial is too large to be worked out")
    if not ctx.isint(argument):
        raise Undecided("a double factorial between whole numbers")
    return ctx.fac2(argument)


def _series(node: Call, ctx: Any, point: Mapping[str, tuple[int, int]]) -> Any:
    """Return a sum or product over an integer range of at most MAX_TERMS."""
    low, high, body = node.args
    if not (isinstance(low, Relation) and low.ops == ("=",) and isinstance(low.sides[0], Sym)):
        raise Undecided("a sum without a range")
    first, last = (_value(side, ctx, point) for side in (low.sides[1], high))
    if not (ctx.isint(first) and ctx.isint(last)):
        raise Undecided("a sum with a variable range")
    start, stop = int(ctx.re(first)), int(ctx.re(last))
    if stop - start > MAX_TERMS or _size(body) * (stop - start) > 20_000:
        raise LimitExceeded(f"a sum has over {MAX_TERMS} terms")
    total = ctx.mpf(0 if node.name == "sum" else 1)
    for index in range(start, stop + 1):
        term = _value(body, ctx, {**point, low.sides[0].name: (index, 1)})
        total = total + term if node.name == "sum" else total * term
    return total


def _reciprocal(function: str) -> Callable[[Any, Any], Any]:
    def value(ctx: Any, argument: Any) -> Any:
        below = getattr(ctx, function)(argument)
        if below == 0 or _magnitude(below, ctx) < 40 - ctx.prec:
            raise ZeroDivisionError
        return 1 / below

    return value


def _tangent(ctx: Any, argument: Any) -> Any:
    below = ctx.cos(argument)
    if below == 0 or _magnitude(below, ctx) < 40 - ctx.prec:
        raise ZeroDivisionError
    return ctx.sin(argument) / below


def _cotangent(ctx: Any, argument: Any) -> Any:
    below = ctx.sin(argument)
    if below == 0 or _magnitude(below, ctx) < 40 - ctx.prec:
        raise ZeroDivisionError
    return ctx.cos(argument) / below


_ANGLES: Mapping[str, Callable[[Any, Any], Any]] = {
    "sin": lambda ctx, x: ctx.sin(x),
    "cos": lambda ctx, x: ctx.cos(x),
    "tan": _tangent,
    "cot": _cotangent,
    "sec": _reciprocal("cos"),
    "csc": _reciprocal("sin"),
}


def _small(function: str) -> Callable[[Any, list[Any]], Any]:
    """Return a function whose argument must be below 2^40, since its value grows exponentially."""

    def value(ctx: Any, args: list[Any]) -> Any:
        if _magnitude(args[0], ctx) > 40:
            raise LimitExceeded(f"an argument of {function} is too large to be worked out")
        return getattr(ctx, function)(args[0])

    return value


def _whole(ctx: Any, function: str, args: list[Any]) -> Any:
    value = _real(args[0], ctx)
    if _magnitude(value, ctx) > ctx.prec - 40:
        raise Undecided("a rounding beyond the precision")
    nearest = ctx.nint(value)
    if value != nearest and abs(value - nearest) < ctx.mpf(2) ** (40 - ctx.prec):
        value = nearest
    return getattr(ctx, function)(value)


def _applied(ctx: Any, args: list[Any]) -> Any:
    """Return a pseudo-random value in [1, 2) for an unknown function, fixed by its name and arguments."""
    seed = "|".join(ctx.nstr(argument, 30) for argument in args)
    return 1 + ctx.mpf(random.Random(seed).getrandbits(64)) / 2**64


_OTHERS: Mapping[str, Callable[[Any, list[Any]], Any]] = {
    "apply": _applied,
    "abs": lambda ctx, a: abs(a[0]),
    "bar": lambda ctx, a: ctx.conj(a[0]),
    "re": lambda ctx, a: ctx.re(a[0]),
    "im": lambda ctx, a: ctx.im(a[0]),
    "arg": lambda ctx, a: ctx.arg(a[0]),
    "sign": lambda ctx, a: ctx.sign(_real(a[0], ctx)),
    "max": lambda ctx, a: max(_real(x, ctx) for x in a),
    "min": lambda ctx, a: min(_real(x, ctx) for x in a),
    "floor": lambda ctx, a: _whole(ctx, "floor", a),
    "ceil": lambda ctx, a: _whole(ctx, "ceil", a),
    "percent": lambda ctx, a: a[0] / 100,
    "degree": lambda ctx, a: a[0] * ctx.pi / 180,
    "factorial": lambda ctx, a: _gamma(ctx, a[0] + 1),
    "factorial2": lambda ctx, a: _double_factorial(ctx, a[0]),
    "gamma": lambda ctx, a: _gamma(ctx, a[0]),
    "zeta": lambda ctx, a: _special(ctx, "zeta", a[0]),
    "erf": lambda ctx, a: _special(ctx, "erf", a[0]),
    "binom": lambda ctx, a: _gamma(ctx, a[0] + 1) / (_gamma(ctx, a[1] + 1) * _gamma(ctx, a[0] - a[1] + 1)),
    "arcsin": lambda ctx, a: ctx.asin(a[0]),
    "arccos": lambda ctx, a: ctx.acos(a[0]),
    "arctan": lambda ctx, a: ctx.atan(a[0]),
    "arccot": lambda ctx, a: ctx.pi / 2 - ctx.atan(a[0]),
    "arcsec": lambda ctx, a: ctx.acos(1 / a[0]),
    "arccsc": lambda ctx, a: ctx.asin(1 / a[0]),
    "sinh": _small("sinh"),
    "cosh": _small("cosh"),
    "tanh": lambda ctx, a: ctx.tanh(a[0]),
    "coth": lambda ctx, a: 1 / ctx.tanh(a[0]),
    "sech": lambda ctx, a: 1 / _small("cosh")(ctx, a),
    "csch": lambda ctx, a: 1 / _small("sinh")(ctx, a),
    "arcsinh": lambda ctx, a: ctx.asinh(a[0]),
    "arccosh": lambda ctx, a: ctx.acosh(a[0]),
    "arctanh": lambda ctx, a: ctx.atanh(a[0]),
}


def value_of(node: Node) -> Fraction | None:
    """Return a real constant as a fraction accurate to about 40 digits; None if it has no settled real value."""
    low, high = _contexts()
    if symbols(node) or _size(node) > MAX_NODES:
        return None
    try:
        (coarse,), (fine,), _ = _twice((node,), low, high, {})
        settled = _settled(coarse, fine, high)
    except (ZeroDivisionError, ValueError, OverflowError):
        return None
    if settled is None or (isinstance(settled, high.mpc) and settled.imag != 0):
        return None
    real = high.re(settled)
    if abs(_magnitude(real, high)) > 2_000:
        return None
    sign, mantissa, exponent, _ = real._mpf_
    value = Fraction(int(mantissa)) * Fraction(2) ** exponent
    return -value if sign else value
