"""Every bound of the math verifier in one place, and the exceptions that say which was met."""

from __future__ import annotations

MAX_REFERENCE_CHARS = 20_000
"""A longer gold is a bad reference."""
MAX_ANSWER_CHARS = 20_000
"""A longer extracted answer is a limit exceeded, unless it is the gold itself."""
MAX_TOKENS = 6_000
MAX_DEPTH = 40
"""Nesting of brackets, exponents and commands. The parser uses up to nine Python frames a level."""
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
    """The text is not mathematics that this parser knows; it may still be words."""


class LimitExceeded(ValueError):
    """A bound was met before the question was answered; the message names it."""


class Undecided(ValueError):
    """This tier cannot tell; the next one is asked."""


class Budget:
    """Counts work and stops it at a bound.

    Example:
        >>> Budget(10).spend(3)
    """

    __slots__ = ("left",)

    def __init__(self, units: int = MAX_WORK) -> None:
        self.left = units

    def spend(self, units: int) -> None:
        """Take `units` of work.

        Raises:
            Undecided: the budget is gone.
        """
        self.left -= units
        if self.left < 0:
            raise Undecided("the normal form would be too long")
