"""Conditions after a value: `k\\pi (k \\in \\mathbb{Z})`, `x^2 for x > 0`."""

from __future__ import annotations

from verifiers.mathematics.reading.tokens import Token

OPENERS = frozenset(("(", "[", "{", "\\{", "langle", "lfloor", "lceil", "lvert", "lVert"))
CLOSERS = frozenset((")", "]", "}", "\\}", "rangle", "rfloor", "rceil", "rvert", "rVert"))
_LEADING = frozenset(("for", "with", "where"))
_EACH = frozenset(("all", "any", "every", "each"))


def condition_apart(part: list[Token]) -> list[list[Token]]:
    """Split tokens into those of a value and those of the condition after it; without a condition, one list.

    The condition must begin with a letter that the value has: `P(X > 2)` has no condition.
    """
    bracketed = part[-1].text == ")" and part[-1].kind == "op"
    place = _opening(part) if bracketed else _leading_word(part)
    if not place:
        return [part]
    value, condition = part[:place], part[place + 1 : -1 if bracketed else None]
    while condition and not bracketed and condition[0].text.lower() in _EACH:
        condition = condition[1:]
    if not condition or condition[0].kind != "sym" or not any(token.kind == "rel" for token in condition):
        return [part]
    known = any(token.kind == "sym" and token.text == condition[0].text for token in value)
    return [value, condition] if known else [part]


def _opening(part: list[Token]) -> int:
    """Return the index of the last opening bracket, which must have no bracket inside; 0 for none."""
    for place in range(len(part) - 2, 0, -1):
        if part[place].text in OPENERS or part[place].text in CLOSERS:
            return place if part[place].text == "(" else 0
    return 0


def _leading_word(part: list[Token]) -> int:
    return next((i for i, token in enumerate(part) if token.kind == "word" and token.text.lower() in _LEADING), 0)
