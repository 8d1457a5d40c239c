"""Result of the search in a text: the answer, how it was declared, and other answers declared next to it."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_ANSWER = 20_000
"""Characters of an answer that are read; a longer one is truncated, and no reference equals that."""
MAX_LISTED = 100
"""Consecutive declarations that count as one list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """An extracted answer."""

    answer: str
    form: str
    """Form that declared it: boxed, hashes, tag, declared, json, answer line, bold, dollars, last line, bare."""
    repaired: bool = False
    """True if a malformed box was repaired (a missing brace, a lost backslash)."""
    boxes: tuple[str, ...] = ()
    """Every declaration adjacent to the last one, itself included (several answers in sequence), without repeats."""
    at: int = -1
    """Start of its declaration in the text; -1 if not recorded."""
    end: int = -1
    """End of its declaration in the text; -1 if not recorded."""
    decimal_comma: bool = False
    """True if declared in a language that writes 1,5 for one and a half."""


_PLACEHOLDER = re.compile(
    r"(?:\\[lc]?dots|\.{2,}|…|_{2,}|\\underline\{\s*\}|\\text\{\s*\}|[\[<{]?(?:\\text\{)?\s*(?:your|the|final|my|\s)*\s?answer(?:\s+here)?"
    r"\s*[\]>}]{0,2}|\$?LETTER|\$?ANSWER|\$?NUMBER|<[a-z_ ]{1,20}>)?\s*",
    re.IGNORECASE,
)


def is_placeholder(content: str) -> bool:
    """Return True for a placeholder of an answer, as in instructions: nothing, `...`, `your answer`, `$LETTER`.

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
    """Return True if a text begins like a value and not like a sentence: a digit, a formula, the letter of a choice."""
    return _VALUE.match(text) is not None
