"""Arithmetic expressions over given numbers: `countdown` and `game24`. Parsed without `eval`, with exact fractions."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import NamedTuple

from verifiers.answers.final import final_answer, no_answer
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadReference
from verifiers.verdict import JSON, Outcome, Verdict, fixed

MAX_LENGTH = 500
MAX_DEPTH = 50


class ExpressionError(ValueError):
    """An error for a text that is not an arithmetic expression, or divides by zero."""


class Evaluated(NamedTuple):
    """The value of an expression, and the numbers in it, in order."""

    value: Fraction
    numbers: tuple[int, ...]


def evaluate_expression(text: str) -> Evaluated:
    """Parse and compute `+ - * /` (also x, ×, ÷, unicode minus) over non-negative integers and brackets.

    Raises:
        ExpressionError: anything else, over MAX_LENGTH characters or MAX_DEPTH brackets.

    Example:
        >>> evaluate_expression("(3+5)/2")
        Evaluated(value=Fraction(4, 1), numbers=(3, 5, 2))
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"an expression must have at most {MAX_LENGTH} characters; got {len(text)}.")
    return _Parser(_tokens(text)).parse()


SAME = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "[": "(", "]": ")", "{": "(", "}": ")"})


def _tokens(text: str) -> list[str]:
    plain = text.replace("\\times", "*").replace("\\cdot", "*").replace("\\div", "/")
    plain = plain.replace("\\left", "").replace("\\right", "").translate(SAME)
    tokens: list[str] = []
    at = 0
    while at < len(plain):
        char = plain[at]
        if char.isspace() or char in "$\\":
            at += 1
        elif char in "0123456789":
            end = at
            while end < len(plain) and plain[end] in "0123456789":
                end += 1
            tokens.append(plain[at:end])
            at = end
        elif char in "+-*/()":
            tokens.append(char)
            at += 1
        else:
            raise ExpressionError(f"an expression may have only numbers, + - * / and brackets; got {char!r}.")
    return tokens


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._numbers: list[int] = []

    def parse(self) -> Evaluated:
        value = self._sum(0)
        if self._at != len(self._tokens):
            raise ExpressionError(f"unexpected {self._tokens[self._at]!r}.")
        return Evaluated(value, tuple(self._numbers))

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _sum(self, depth: int) -> Fraction:
        value = self._product(depth)
        while self._peek() in ("+", "-"):
            sign = self._next()
            right = self._product(depth)
            value = value + right if sign == "+" else value - right
        return value

    def _product(self, depth: int) -> Fraction:
        value = self._atom(depth)
        while self._peek() in ("*", "/"):
            sign = self._next()
            right = self._atom(depth)
            if sign == "/" and right == 0:
                raise ExpressionError("division by zero.")
            value = value * right if sign == "*" else value / right
        return value

    def _atom(self, depth: int) -> Fraction:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"an expression must nest at most {MAX_DEPTH} brackets deep.")
        token = self._next()
        if token == "(":
            value = self._sum(depth + 1)
            if self._next() != ")":
                raise ExpressionError("a bracket is not closed.")
            return value
        if token == "-":
            return -self._atom(depth + 1)
        if not token.isdigit():
            raise ExpressionError(f"expected a number; got {token or 'the end'!r}.")
        self._numbers.append(int(token))
        return Fraction(int(token))


class CountdownVerifier(Verifier):
    """The final answer is an expression that uses each given number exactly once and equals the target.

    The answer may end in `= target`. Reference: `{"numbers": [...], "target": n}`.
    """

    name = "countdown"
    reference_schema = {
        "type": "object",
        "properties": {
            "numbers": {"type": "array", "items": {"type": "integer"}, "minItems": 1},
            "target": {"type": "integer"},
        },
        "required": ["numbers", "target"],
    }
    examples = (
        Example(
            completion="#### (3 + 5) * 2",
            reference={"numbers": [2, 3, 5], "target": 16},
            prompt="Numbers: 2, 3, 5. Target: 16.",
        ),
        Example(
            completion="#### 3 * 5 + 2 = 16", reference={"numbers": [2, 3, 5], "target": 16}, outcome=Outcome.INCORRECT
        ),
        Example(completion="#### 16", reference={"numbers": [2, 3, 5], "target": 16}, outcome=Outcome.INCORRECT),
    )

    def check_reference(self, reference: JSON) -> None:
        _numbers_and_target(reference)

    def grade(self, row: GradingRow) -> Verdict:
        numbers, target = _numbers_and_target(row.reference)
        found = final_answer(row)
        if found is None:
            return no_answer()
        expression, equals, stated = found.answer.partition("=")
        answer = found.answer[:200]
        try:
            result = evaluate_expression(expression)
            claimed = evaluate_expression(stated).value if equals else Fraction(target)
        except ExpressionError as error:
            return fixed(Outcome.INCORRECT, f"not an expression: {error}", answer=answer)
        if Counter(result.numbers) != Counter(numbers):
            return fixed(
                Outcome.INCORRECT, f"uses {sorted(result.numbers)}, was given {sorted(numbers)}", answer=answer
            )
        if result.value != target or claimed != target:
            return fixed(Outcome.INCORRECT, f"equals {result.value}, not {target}", answer=answer)
        return fixed(Outcome.CORRECT, f"equals {target} and uses each number once", answer=answer)


def _numbers_and_target(reference: JSON) -> tuple[list[int], int]:
    if isinstance(reference, dict):
        numbers, target = reference.get("numbers"), reference.get("target")
        listed = numbers if isinstance(numbers, list) else []
        whole = [number for number in listed if isinstance(number, int) and not isinstance(number, bool)]
        if whole and len(whole) == len(listed) and isinstance(target, int) and not isinstance(target, bool):
            return whole, target
    raise BadReference(f'reference must be {{"numbers": [integers], "target": integer}}; got {str(reference)[:100]}.')
