"""Repair of backslashes that were lost or doubled when a text went through JSON or a programming language."""

from __future__ import annotations

import re

_LOST: tuple[tuple[str, str, str], ...] = (
    ("\x07", "\\a", "lpha|pprox|rc|ngle|st"),
    ("\x08", "\\b", "eta|egin|inom|ar|oldsymbol|ullet|ig|f"),
    ("\x0b", "\\v", "ec|ert|arphi|arepsilon|artheta|ee"),
    ("\x0c", "\\f", "rac|orall|lat|box"),
    ("\t", "\\t", r"ext(?:bf|rm|it)?\s?\{|imes|heta|an(?![a-z])|frac|o\b|au(?![a-z])|riangle|ilde"),
    ("\r", "\\r", "ight|angle|ho|floor|ceil"),
    ("\n", "\\n", r"eq\b|abla|otin"),
)
"""Control character, the escape that it was read from, and what must follow for it to have been a LaTeX command."""
_PATTERNS = tuple((lost, escape, re.compile(f"{lost}(?={names})")) for lost, escape, names in _LOST)
_COMMANDS = (
    "[dtc]?frac|sqrt|left|right|pi|text(?:bf|rm)?|cdot|times|[lg]eq?|infty|mathbb|mathrm|mathbf|begin|end|boxed|circ|alpha|beta"
    "|theta|lambda|sin|cos|tan|ln|log|cup|cap|in|pm|quad|sum|int|lim|binom|overline|vec|angle|operatorname|emptyset"
)
_DOUBLED = re.compile(rf"\\\\(?=(?:{_COMMANDS})(?![A-Za-z]))")
_SINGLE = re.compile(r"(?<!\\)\\(?:\\\\)*(?=[A-Za-z])")
_BARE = re.compile(r"(?<![\\A-Za-z])([dt]?frac(?=\s?\{[^{}]*\}\s?\{)|sqrt(?=\s?\{)|boxed(?=\s?\{))")


def repair_escapes(text: str) -> str:
    """Return the text with lost backslashes restored and doubled ones made single.

    Example:
        >>> repair_escapes("\\x0crac{1}{2}"), repair_escapes("\\\\\\\\frac{1}{2}"), repair_escapes("frac{1}{2}")
        ('\\\\frac{1}{2}', '\\\\frac{1}{2}', '\\\\frac{1}{2}')
    """
    if not text.isprintable():
        for lost, escape, pattern in _PATTERNS:
            if lost in text:
                text = pattern.sub(lambda _, escape=escape: escape, text)
    if "\\\\" in text:
        text = halve_backslashes(text)
    return _BARE.sub(r"\\\1", text) if "frac" in text or "sqrt" in text else text


def halve_backslashes(text: str) -> str:
    """Return the text with doubled backslashes before commands made single; row breaks (`\\\\`) stay."""
    if not _DOUBLED.search(text):
        return text
    if not _SINGLE.search(text):
        return text.replace("\\\\", "\\")
    return text if "\\begin" in text else _DOUBLED.sub(lambda _: "\\", text)


def without_form_feeds(text: str) -> str:
    """Restore commands whose first letter became a control character that normal text does not have.

    For a whole text: tab, newline and carriage return stay as they are.
    """
    for lost, escape, pattern in _PATTERNS[:4]:
        if lost in text:
            text = pattern.sub(lambda _, escape=escape: escape, text)
    return text
