"""Exact normal form of scalar expressions: a quotient of sums of monomials over atoms, with rational coefficients.

An atom is a variable, pi, e, i, a prime (with a fractional exponent: a surd) or a function of a normal form. Two
expressions with equal cross products are equal; unequal ones may still be equal (trigonometric identities), which the
numeric probes then decide.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from verifiers.mathematics.limits import MAX_BITS, MAX_TERMS, Budget, LimitExceeded, Undecided
from verifiers.mathematics.nodes import Add, Call, Const, Div, Mul, Neg, Node, Num, Pow, Sym

Monomial: TypeAlias = tuple[tuple[str, Fraction | int], ...]
"""(atom, exponent) pairs, sorted, without exponent 0."""
Poly: TypeAlias = dict[Monomial, Fraction]

ONE: Monomial = ()
_SMALL_PRIMES = [p for p in range(2, 1000) if all(p % d for d in range(2, int(p**0.5) + 1))]


class Rational(NamedTuple):
    """A quotient of polynomials, top / bottom."""

    top: Poly
    bottom: Poly


def constant(value: Fraction | int) -> Poly:
    """Return a number as a polynomial."""
    return {ONE: Fraction(value)} if value else {}


def as_number(value: Rational) -> Fraction | None:
    """Return the rational number that a normal form equals; None if it is not a number."""
    if not value.top:
        return Fraction(0)
    if set(value.top) == {ONE} and set(value.bottom) == {ONE}:
        return value.top[ONE] / value.bottom[ONE]
    return None


def _check(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise Undecided("an integer is too long for exact arithmetic")
    return value


def add(left: Poly, right: Poly, budget: Budget) -> Poly:
    """Return left + right."""
    budget.spend(len(right))
    total = dict(left)
    for monomial, coefficient in right.items():
        value = total.get(monomial, Fraction(0)) + coefficient
        if value:
            total[monomial] = value
        else:
            total.pop(monomial, None)
    if len(total) > MAX_TERMS:
        raise Undecided("the normal form has too many terms")
    return total


def multiply(left: Poly, right: Poly, budget: Budget) -> Poly:
    """Return left * right."""
    if len(left) == 1 and ONE in left:
        return {monomial: _check(coefficient * left[ONE]) for monomial, coefficient in right.items()}
    if len(right) == 1 and ONE in right:
        return multiply(right, left, budget)
    budget.spend(len(left) * len(right))
    total: Poly = {}
    for first, a in left.items():
        for second, b in right.items():
            factor, monomial = _join(first, second)
            value = total.get(monomial, Fraction(0)) + _check(a * b * factor)
            if value:
                total[monomial] = value
            else:
                total.pop(monomial, None)
    if len(total) > MAX_TERMS:
        raise Undecided("the normal form has too many terms")
    return total


def _join(first: Monomial, second: Monomial) -> tuple[Fraction, Monomial]:
    exponents: dict[str, Fraction | int] = dict(first)
    for atom, exponent in second:
        exponents[atom] = exponents.get(atom, 0) + exponent
    return _fold(exponents)


def _fold(exponents: dict[str, Fraction | int]) -> tuple[Fraction, Monomial]:
    """Move integer powers of primes and of i to the coefficient; return (coefficient, monomial)."""
    factor = Fraction(1)
    kept: dict[str, Fraction | int] = {}
    for atom, exponent in exponents.items():
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            exponent = int(exponent)
        if exponent == 0:
            continue
        if atom == "i" and isinstance(exponent, int):
            turns = exponent % 4
            factor *= -1 if turns in (2, 3) else 1
            exponent = turns % 2
        elif atom[0].isdigit():
            whole = math.floor(exponent)
            if abs(whole) * int(atom).bit_length() > MAX_BITS:
                raise Undecided("an integer is too long for exact arithmetic")
            factor *= Fraction(int(atom)) ** whole
            exponent = exponent - whole
        if exponent:
            kept[atom] = exponent
    return factor, tuple(sorted(kept.items()))


def normal_form(node: Node, budget: Budget) -> Rational:
    """Return the normal form of a scalar expression.

    Raises:
        Undecided: it has something outside this tier, or exceeds the budget.
    """
    budget.spend(1)
    match node:
        case Num():
            return Rational(constant(_check(Fraction(node.value))), constant(1))
        case Sym():
            return Rational(
                {((node.name if not node.name[:1].isdigit() else "_" + node.name, 1),): Fraction(1)}, constant(1)
            )
        case Const():
            if node.name == "oo":
                raise Undecided("infinity")
            return Rational({((node.name, 1),): Fraction(1)}, constant(1))
        case Neg():
            inner = normal_form(node.operand, budget)
            return Rational({m: -c for m, c in inner.top.items()}, inner.bottom)
        case Add():
            total = normal_form(node.terms[0], budget)
            for term in node.terms[1:]:
                total = _sum(total, normal_form(term, budget), budget)
            return total
        case Mul():
            total = normal_form(node.factors[0], budget)
            for factor in node.factors[1:]:
                other = normal_form(factor, budget)
                total = _reduced(
                    multiply(total.top, other.top, budget), multiply(total.bottom, other.bottom, budget), budget
                )
            return total
        case Div():
            top, bottom = normal_form(node.top, budget), normal_form(node.bottom, budget)
            if not bottom.top:
                raise Undecided("a division by zero")
            return _reduced(multiply(top.top, bottom.bottom, budget), multiply(top.bottom, bottom.top, budget), budget)
        case Pow():
            return _power(node, budget)
        case Call():
            return _call(node, budget)
        case _:
            raise Undecided("not a scalar expression")


def _sum(left: Rational, right: Rational, budget: Budget) -> Rational:
    if left.bottom == right.bottom:
        return _reduced(add(left.top, right.top, budget), left.bottom, budget)
    top = add(multiply(left.top, right.bottom, budget), multiply(right.top, left.bottom, budget), budget)
    return _reduced(top, multiply(left.bottom, right.bottom, budget), budget)


def _reduced(top: Poly, bottom: Poly, budget: Budget) -> Rational:
    """Return top / bottom; a denominator of one term is moved into the numerator."""
    if len(bottom) == 1:
        ((monomial, coefficient),) = bottom.items()
        if monomial == ONE and coefficient == 1:
            return Rational(top, bottom)
        factor, inverse = _fold({atom: -exponent for atom, exponent in monomial})
        return Rational(multiply(top, {inverse: factor / coefficient}, budget), constant(1))
    return Rational(top, bottom)


def _power(node: Pow, budget: Budget) -> Rational:
    exponent = normal_form(node.exponent, budget)
    number = as_number(exponent)
    base = normal_form(node.base, budget)
    if number is not None:
        return raise_to(base, number, budget)
    if set(exponent.bottom) != {ONE}:
        raise Undecided("a fractional exponent")
    key = _base_key(base)
    divisor = exponent.bottom[ONE]
    total = Rational(constant(1), constant(1))
    for monomial, coefficient in exponent.top.items():
        if monomial == ONE:
            factor = raise_to(base, coefficient / divisor, budget)
        else:
            atom = f"{key}^[{_monomial_key(monomial)}]"
            factor = Rational({((atom, coefficient / divisor),): Fraction(1)}, constant(1))
        total = _reduced(multiply(total.top, factor.top, budget), multiply(total.bottom, factor.bottom, budget), budget)
    return total


def _base_key(base: Rational) -> str:
    number = as_number(base)
    if number is not None and number <= 0:
        raise Undecided("a negative base with a variable exponent")
    return f"({key_of(base)})"


def raise_to(base: Rational, exponent: Fraction, budget: Budget) -> Rational:
    """Return base ** exponent, the principal value."""
    if exponent.denominator == 1:
        return _whole_power(base, int(exponent), budget)
    if not base.top:
        if exponent > 0:
            return Rational({}, constant(1))
        raise Undecided("a division by zero")
    if len(base.top) != 1 or set(base.bottom) != {ONE}:
        return _root_of_sum(base, exponent)
    ((monomial, coefficient),) = base.top.items()
    coefficient /= base.bottom[ONE]
    exponents: dict[str, Fraction | int] = {}
    if coefficient < 0:
        if exponent.denominator != 2:
            raise Undecided("an odd root of a negative number")
        exponents["i"] = 2 * exponent
        coefficient = -coefficient
    for atom, power in monomial:
        even = isinstance(power, int) and power % 2 == 0 and exponent.denominator % 2 == 0
        if atom == "i" or (even and not (atom[0].isdigit() or atom in ("pi", "e"))):
            raise Undecided("the root of a square")
        exponents[atom] = power * exponent
    for prime, power in (*_factors(coefficient.numerator), *((p, -k) for p, k in _factors(coefficient.denominator))):
        exponents[str(prime)] = exponents.get(str(prime), 0) + power * exponent
    factor, folded = _fold(exponents)
    return Rational({folded: factor}, constant(1))


def _root_of_sum(base: Rational, exponent: Fraction) -> Rational:
    """Return a power of a sum as a single atom."""
    if set(base.bottom) != {ONE}:
        raise Undecided("the root of a quotient")
    return Rational({((f"<{key_of(base)}>", exponent),): Fraction(1)}, constant(1))


def _whole_power(base: Rational, exponent: int, budget: Budget) -> Rational:
    if exponent < 0:
        if not base.top:
            raise Undecided("a division by zero")
        base = _reduced(base.bottom, base.top, budget)
        exponent = -exponent
    return Rational(_poly_power(base.top, exponent, budget), _poly_power(base.bottom, exponent, budget))


def _poly_power(poly: Poly, exponent: int, budget: Budget) -> Poly:
    if exponent == 0:
        return constant(1)
    if len(poly) == 1:
        ((monomial, coefficient),) = poly.items()
        bits = max(coefficient.numerator.bit_length(), coefficient.denominator.bit_length())
        if coefficient not in (1, -1) and bits * exponent > MAX_BITS:
            raise Undecided("an integer is too long for exact arithmetic")
        factor, folded = _fold({atom: power * exponent for atom, power in monomial})
        return {folded: factor * coefficient**exponent}
    if exponent > 64:  # too long to expand, so one atom: (1 + sqrt 2)^2025
        return {((f"<{key_of(Rational(poly, constant(1)))}>", exponent),): Fraction(1)}
    result = constant(1)
    for bit in bin(exponent)[2:]:
        result = multiply(result, result, budget)
        if bit == "1":
            result = multiply(result, poly, budget)
    return result


def _factors(number: int) -> list[tuple[int, int]]:
    """Return the prime factors below 1000 with exponents, and the rest as one factor (or its exact root)."""
    found: list[tuple[int, int]] = []
    if number.bit_length() > 4000:
        raise Undecided("a surd of a long integer")
    for prime in _SMALL_PRIMES:
        if prime * prime > number:
            break
        count = 0
        while number % prime == 0:
            number //= prime
            count += 1
        if count:
            found.append((prime, count))
    if number > 1:
        for degree in (2, 3, 5):
            root = _integer_root(number, degree)
            if root**degree == number:
                return [*found, (root, degree)]
        found.append((number, 1))
    return found


def _integer_root(number: int, degree: int) -> int:
    if degree == 2:
        return math.isqrt(number)
    low, high = 1, 1 << (number.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        if middle**degree <= number:
            low = middle
        else:
            high = middle - 1
    return low


def _call(node: Call, budget: Budget) -> Rational:
    name = node.name
    if name == "root":
        index = as_number(normal_form(node.args[1], budget))
        if index is None or index == 0:
            raise Undecided("a root with a variable index")
        base = normal_form(node.args[0], budget)
        number = as_number(base)
        if number is not None and number < 0 and index.denominator == 1 and index % 2 == 1:
            root = raise_to(Rational(constant(-number), constant(1)), 1 / index, budget)
            return Rational({m: -c for m, c in root.top.items()}, root.bottom)
        return raise_to(base, 1 / index, budget)
    args = [normal_form(argument, budget) for argument in node.args]
    numbers = [as_number(argument) for argument in args]
    if name in ("ln", "log"):
        return _logarithm(name, args, numbers, budget)
    if name == "percent":
        return Rational(multiply(args[0].top, constant(Fraction(1, 100)), budget), args[0].bottom)
    if name == "degree":
        scaled = multiply(args[0].top, {(("pi", 1),): Fraction(1, 180)}, budget)
        return Rational(scaled, args[0].bottom)
    exact = _exact_call(name, numbers)
    if exact is not None:
        return Rational(constant(exact), constant(1))
    if name in ("factorial", "factorial2", "binom", "gcd", "lcm", "max", "min", "mod") and None not in numbers:
        raise Undecided(f"{name} of these numbers")
    if name in ("sum", "prod", "int", "lim", "deriv", "above", "below", "prime"):
        raise Undecided(name)
    atom = f"{name}({','.join(key_of(argument) for argument in args)})"
    return Rational({((atom, 1),): Fraction(1)}, constant(1))


def _logarithm(name: str, args: list[Rational], numbers: list[Fraction | None], budget: Budget) -> Rational:
    top = _ln(args[0], numbers[0])
    if len(args) == 1:
        if name == "ln":
            return top
        return _quotient(top, _ln(Rational(constant(10), constant(1)), Fraction(10)), budget)
    return _quotient(top, _ln(args[1], numbers[1]), budget)


def _quotient(top: Rational, bottom: Rational, budget: Budget) -> Rational:
    if not bottom.top:
        raise Undecided("a logarithm to base 1")
    return _reduced(multiply(top.top, bottom.bottom, budget), multiply(top.bottom, bottom.top, budget), budget)


def _ln(argument: Rational, number: Fraction | None) -> Rational:
    if number is not None:
        if number <= 0:
            raise Undecided("the logarithm of a number that is not positive")
        total: Poly = {}
        for sign, part in ((1, number.numerator), (-1, number.denominator)):
            for prime, power in _factors(part):
                total[((f"ln({prime})", 1),)] = Fraction(sign * power)
        return Rational(total, constant(1))
    if argument.bottom == constant(1) and len(argument.top) == 1:
        ((monomial, coefficient),) = argument.top.items()
        if coefficient == 1 and len(monomial) == 1 and monomial[0][0] == "e":
            return Rational(constant(Fraction(monomial[0][1])), constant(1))
    return Rational({((f"ln({key_of(argument)})", 1),): Fraction(1)}, constant(1))


def _exact_call(name: str, numbers: list[Fraction | None]) -> Fraction | None:
    if None in numbers or not numbers:
        return None
    values = [number for number in numbers if number is not None]
    whole = all(value.denominator == 1 for value in values)
    first = values[0]
    if name == "abs":
        return abs(first)
    if name in ("floor", "ceil"):
        return Fraction(math.floor(first) if name == "floor" else math.ceil(first))
    if name == "factorial" and whole and 0 <= first <= 4000:
        return Fraction(math.factorial(int(first)))
    if name == "factorial2" and whole and 0 <= first <= 2000:
        return Fraction(math.prod(range(int(first), 0, -2)))
    if name == "binom" and whole and len(values) == 2 and values[1] >= 0 and 0 <= first <= 20_000:
        if min(values[1], first - values[1]) > 4000:
            raise LimitExceeded("a binomial coefficient is too long for exact arithmetic")
        return _check(Fraction(math.comb(int(first), int(values[1]))))
    if name in ("gcd", "lcm") and whole:
        return _check(Fraction((math.gcd if name == "gcd" else math.lcm)(*(int(value) for value in values))))
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    if name == "mod" and whole and len(values) == 2 and values[1]:
        return first % values[1]
    return None


def _monomial_key(monomial: Monomial) -> str:
    return "*".join(f"{atom}^{exponent}" for atom, exponent in monomial)


def key_of(value: Rational) -> str:
    """Return a canonical text of a normal form: equal texts mean equal values."""

    def spelled(poly: Poly) -> str:
        return "+".join(f"{c}*{_monomial_key(m)}" if m else str(c) for m, c in sorted(poly.items(), key=str)) or "0"

    if set(value.bottom) == {ONE} and value.bottom[ONE] == 1:
        return spelled(value.top)
    return f"[{spelled(value.top)}]/[{spelled(value.bottom)}]"


def equal(left: Rational, right: Rational, budget: Budget) -> bool:
    """Return True if the cross products agree; False proves nothing."""
    if left.bottom == right.bottom:
        return left.top == right.top
    return multiply(left.top, right.bottom, budget) == multiply(right.top, left.bottom, budget)
