"""What is found in a text: the answer, how it was declared, and what else was declared beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_ANSWER = 20_000
"""Characters of an answer that are looked at; a longer one is cut, which no reference equals."""
MAX_LISTED = 100
"""Declarations side by side that are taken for one list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """An extracted answer."""

    answer: str
    form: str
    """Which form declared it: boxed, hashes, tag, declared, json, answer line, bold, dollars, last line, bare."""
    repaired: bool = False
    """True where a malformed box was mended (a missing brace, a lost backslash)."""
    boxes: tuple[str, ...] = ()
    """Every declaration adjacent to the last one, itself included (several answers side by side), without repeats."""
    at: int = -1
    """Where its declaration begins, where that matters; -1 elsewhere."""
    end: int = -1
    """Where its declaration ends, where that matters; -1 elsewhere."""
    decimal_comma: bool = False
    """True where it was declared in a language that writes 1,5 for one and a half."""


_PLACEHOLDER = re.compile(
    r"(?:\\[lc]?dots|\.{2,}|…|_{2,}|\\underline\{\s*\}|\\text\{\s*\}|[\[<{]?(?:\\text\{)?\s*(?:your|the|final|my|\s)*\s?answer(?:\s+here)?"
    r"\s*[\]>}]{0,2}|\$?LETTER|\$?ANSWER|\$?NUMBER|<[a-z_ ]{1,20}>)?\s*",
    re.IGNORECASE,
)


def is_placeholder(content: str) -> bool:
    """Whether this stands for an answer in an instruction: nothing, `...`, `your answer`, `$LETTER`.

    Example:
        >>> is_placeholder("..."), is_placeholder("42")
        (True, False)
    """
    return len(content) < 40 and _PLACEHOLDER.fullmatch(content.strip()) is not None


_VALUE = re.compile(
    r"[\s$*(\[{\\-]*(?:\d|\.\d|(?:frac|dfrac|tfrac|sqrt|pi|infty|text|mathrm|mathbf|boxed|left|begin|pm|emptyset|mathbb|ln|log|sin|cos|tan)(?![a-z])"
    r"|[A-J](?![A-Za-z])(?!\s+[a-z]{2})|[a-j][).]|[€£¥₹√π∞∅])|\$|\\\(|\\\["
)


def is_value(text: str) -> bool:
    """Whether this begins as a value does, and not as a sentence: a digit, a formula, the letter of a choice."""
    return _VALUE.match(text) is not None
