"""All limits of the math verifier, and the exceptions that name the limit reached."""

from __future__ import annotations

MAX_REFERENCE_CHARS = 20_000
"""A longer reference is a bad reference."""
MAX_ANSWER_CHARS = 20_000
"""A longer extracted answer exceeds the limit, unless it is identical to the reference."""
MAX_TOKENS = 6_000
MAX_DEPTH = 40
"""Nesting of brackets, exponents and commands. The parser uses up to nine Python frames per level."""
MAX_DIGITS = 4_000
"""Digits of one number literal."""
MAX_BITS = 40_000
"""Bits of any integer in exact arithmetic: 2004! has 19,053."""
MAX_WORK = 12_000
"""Term products in one normal form: about 15 ms."""
MAX_TERMS = 1_500
MAX_ITEMS = 64
"""Items of an unordered group that are matched against each other."""


class ParseError(ValueError):
    """An error for a text that is not mathematics this parser knows; it may still be words."""


class LimitExceeded(ValueError):
    """An error for a limit reached before the question was answered; the message names it."""


class Undecided(ValueError):
    """An error for a question that this tier cannot decide; the next tier is used."""


class Budget:
    """A counter that stops work at a limit.

    Example:
        >>> Budget(10).spend(3)
    """

    __slots__ = ("left",)

    def __init__(self, units: int = MAX_WORK) -> None:
        self.left = units

    def spend(self, units: int) -> None:
        """Spend `units` of work.

        Raises:
            Undecided: the budget is exhausted.
        """
        self.left -= units
        if self.left < 0:
            raise Undecided("the normal form would be too long")
