"""A calculator with exact, bounded arithmetic. It reads expressions itself: nothing is evaluated as Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from tasks.base import TaskError
from tasks.environments.calls import Parse
from tasks.environments.tools import Answer, Past, Tool, ToolEnvironment
from verifiers import JSON

MOST_CHARACTERS = 1_000
MOST_DIGITS = 1_000
"""Digits of any number, read, between or returned."""
DEEPEST = 50
PLACES = 12
"""Significant digits of a quotient whose decimal expansion does not end."""
TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d*)?|\.\d+)|(\*\*|//|[-+*/%^()×·÷−]))")
SAME = {"×": "*", "·": "*", "÷": "/", "−": "-", "^": "**"}


class CalculationError(ValueError):
    """The expression cannot be computed; the message is for the policy."""


def calculate(text: str) -> str:
    """Compute an expression of numbers with + - * / // % ** and parentheses, exactly.

    Args:
        text: at most MOST_CHARACTERS; a trailing `=` is ignored, digits may be grouped by commas.
    Returns:
        An integer, or a decimal: exact where it ends within MOST_DIGITS digits, else rounded to PLACES digits.
    Raises:
        CalculationError: it is no such expression, divides by zero, or grows over MOST_DIGITS digits.

    Example:
        >>> calculate("4812*9307"), calculate("1/8"), calculate("2/3"), calculate("-7//2")
        ('44785284', '0.125', '0.666666666667', '-4')
    """
    if len(text) > MOST_CHARACTERS:
        raise CalculationError(f"the expression must have at most {MOST_CHARACTERS} characters")
    plain = re.sub(r"(?<=\d),(?=\d{3}(?:\D|$))", "", text).rstrip().removesuffix("=")
    return _written(_Expression(_tokens(plain)).value())


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    place = 0
    text = text.rstrip()
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None:
            raise CalculationError(f"cannot read {text[place:].strip()[:20]!r}; use numbers, + - * / // % ** and ( )")
        found.append(match[1] or SAME.get(match[2], match[2]))
        place = match.end()
    if not found:
        raise CalculationError("the expression is empty")
    return found


class _Expression:
    """Recursive descent over the tokens; powers bind tighter than signs, and to the right."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens, self._place, self._depth = tokens, 0, 0

    def value(self) -> Fraction:
        found = self._sum()
        if self._place < len(self._tokens):
            raise CalculationError(f"cannot read {self._tokens[self._place]!r} there")
        return found

    def _next(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    def _take(self, *wanted: str) -> str:
        token = self._next()
        if token not in wanted:
            return ""
        self._place += 1
        return token

    def _sum(self) -> Fraction:
        return self._left_to_right(self._product, "+", "-")

    def _product(self) -> Fraction:
        return self._left_to_right(self._signed, "*", "/", "//", "%")

    def _left_to_right(self, part: Callable[[], Fraction], *operators: str) -> Fraction:
        found = part()
        while operator := self._take(*operators):
            found = _applied(operator, found, part())
        return found

    def _signed(self) -> Fraction:
        negative = False
        while sign := self._take("+", "-"):
            negative ^= sign == "-"
        found = self._power()
        return -found if negative else found

    def _power(self) -> Fraction:
        base = self._atom()
        if not self._take("**"):
            return base
        self._deeper()
        exponent = self._signed()
        self._depth -= 1
        return _applied("**", base, exponent)

    def _atom(self) -> Fraction:
        if self._take("("):
            self._deeper()
            found = self._sum()
            if not self._take(")"):
                raise CalculationError("a parenthesis is not closed")
            self._depth -= 1
            return found
        token = self._next()
        if not token or not (token[0].isdecimal() or token[0] == "."):
            raise CalculationError(f"a number is missing {f'before {token!r}' if token else 'at the end'}")
        self._place += 1
        return _bounded(Fraction(token))

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise CalculationError(f"the expression nests deeper than {DEEPEST}")


def _applied(operator: str, left: Fraction, right: Fraction) -> Fraction:
    if operator in ("/", "//", "%") and not right:
        raise CalculationError("division by zero")
    if operator == "**":
        return _power(left, right)
    result = {
        "+": lambda: left + right,
        "-": lambda: left - right,
        "*": lambda: left * right,
        "/": lambda: left / right,
        "//": lambda: Fraction(left // right),
        "%": lambda: left % right,
    }[operator]()
    return _bounded(result)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise CalculationError("an exponent must be a whole number")
    if not base and exponent < 0:
        raise CalculationError("division by zero")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(base) != 1 and base and bits * abs(exponent) > 8 * MOST_DIGITS:
        raise CalculationError(f"the result has more than {MOST_DIGITS} digits")
    if abs(base) == 1:
        exponent = Fraction(int(exponent) % 2)
    return _bounded(base ** int(exponent))


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > 3.33 * MOST_DIGITS:
        raise CalculationError(f"the result has more than {MOST_DIGITS} digits")
    return value


def _written(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    if rest != 1 or places > MOST_DIGITS:
        return _rounded(value)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _rounded(value: Fraction) -> str:
    """Write PLACES significant digits, rounded half up, without an exponent."""
    size, power = abs(value), 0
    while size >= 10:
        size, power = size / 10, power + 1
    while size < 1:
        size, power = size * 10, power - 1
    digits = int(size * 10 ** (PLACES - 1) + Fraction(1, 2))
    shift = power - PLACES + 1
    whole = Fraction(digits) * Fraction(10) ** shift
    text = _written(whole)
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"-{text}" if value < 0 else text


class CalculatorTool(Tool):
    """Computes an expression.

    Args:
        fails: True: answers every call with "error" (a control: does a policy gain from the answers?).
        add: added to every integer result (a control: a tool that is wrong).
    """

    name = "calculator"
    description = "Computes an arithmetic expression exactly, such as (12+3)*4/7."
    uses_seed = False

    def __init__(self, *, fails: bool = False, add: int = 0) -> None:
        self._fails, self._add = fails, add

    def call(self, arguments: Mapping[str, JSON], past: Sequence[Past], seed: int) -> Answer:
        if self._fails:
            return Answer("error", error=True)
        try:
            result = calculate(str(arguments["text"]))
        except CalculationError as error:
            return Answer(f"Error: {error}", error=True)
        return Answer(str(int(result) + self._add) if self._add and result.lstrip("-").isdecimal() else result)


class Calculator(ToolEnvironment):
    """A calculator that the policy calls as `<calc>4812*9307</calc>`.

    Args:
        parse: tagged, or tool_call.
        opening: begin of a tagged call.
        closing: its end; ends the turn.
        max_calls: calls answered in one turn.
        fails: answer every call with "error" (a control).
        add: add this to every integer result (a control).
    """

    name = "calculator"
    sample_turns = ("<calc>6*7</calc>", "42")

    def __init__(
        self,
        *,
        parse: Parse = "tagged",
        opening: str = "<calc>",
        closing: str = "</calc>",
        max_calls: int = 4,
        fails: bool = False,
        add: int = 0,
    ) -> None:
        if parse == "fenced":
            raise TaskError("the calculator takes parse: tagged or tool_call; fenced blocks are for python.")
        tool = CalculatorTool(fails=fails, add=add)
        super().__init__([tool], parse=parse, opening=opening, closing=closing, max_calls=max_calls)
        if parse == "tagged":
            self.sample_turns = (f"{opening}6*7{closing}", "42")
