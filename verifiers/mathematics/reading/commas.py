"""Decimal commas: `3,5 m`, `3,05`, and `2,5` in a text whose language uses them."""

from __future__ import annotations

import re

MAX_CHARS = 200
"""Limit on the characters of an answer whose commas are examined."""
_NUMBER = r"(?:\d{1,3}(?:\.\d{3})+|\d{1,12}),\d{1,12}"
_COMMA_NUMBER = re.compile(rf"(?<![\d,.])({_NUMBER})(?![\d,.]*\d)")
_BRACKETED = re.compile(r"[(\[][^)\]]{0,200}\d,\d|\\\{")
_THOUSANDS = re.compile(r"(?<!\d)[1-9]\d{0,2},\d{3}(?!\d)")
_UNIT = re.compile(
    r"[\s$]*[-−]?\d{1,12},\d{1,12}\s{0,4}(?:\\[,;: ]|~)?\s{0,4}(?:\\(?:text|mathrm|textrm|mbox|%)|%|°|€|[^\W\d_])[^,;]*"
)
_LEADING_ZERO = re.compile(r"[\s$]*[-−]?\d{1,12},0\d{1,11}[\s$]*")
_BETWEEN = re.compile(r";|,(?=\s)|\b(?:und|oder|et|ou|y|o|и|или)\b")
_NOT_A_UNIT = re.compile(r"\b(?:and|or|und|oder|et|ou|и|или)\b|[和或与與]", re.IGNORECASE)

_WORDS = (
    "der das und ist nicht ein eine mit für wir sind gilt daher lautet ergibt antwort beträgt wenn sei",
    "le la les est une des donc et avec pour nous dans réponse soit que alors",
    "el los las es una por con para tenemos luego entonces respuesta sea",
    "il gli della una con per quindi risposta sia abbiamo dunque",
    "o os uma com para temos então resposta seja portanto",
    "jest się oraz więc dla mamy odpowiedź wynosi czyli",
)
_LANGUAGES = tuple(frozenset(words.split()) for words in _WORDS)
_ENGLISH = frozenset("the is of and we so that are to this therefore then with for answer thus".split())
_TAIL = 2_000
"""Characters at the end of a text by which its language is recognised."""


def writes_decimal_comma(text: str) -> bool:
    """Return True if a text is in a language with a decimal comma: Russian, German, French, Spanish, ...

    It is recognised by Cyrillic letters, or by the most common words: at least two different ones, and three times as
    many as English ones.

    Example:
        >>> writes_decimal_comma("Also ist die Antwort 2,5."), writes_decimal_comma("So the answer is 2,5.")
        (True, False)
    """
    words = re.findall(r"[^\W\d_]+", text[-_TAIL:].lower())
    cyrillic = sum("а" <= word[0] <= "я" and len(word) > 2 for word in words)
    english = sum(word in _ENGLISH for word in words)
    if cyrillic > max(1, 3 * english):
        return True
    for known in _LANGUAGES:
        found = [word for word in words if word in known]
        if len(set(found)) > 1 and len(found) >= 3 * english:
            return True
    return False


def with_points(text: str, *, by_language: bool) -> str | None:
    """Return the text with decimal commas as points; None if its commas separate values, or may do so.

    A comma between two digits, without a space, is decimal if it is the only one and a unit follows the number (`3,5
    m`; not `1,234 m`) or the decimals begin with a zero followed by more digits (`3,05`). In a language with decimal
    commas it is also decimal if it is the only one in each of the values separated by semicolons, spaced commas or
    "und". Within brackets it never is: `(2,5)` is a pair.

    Example:
        >>> with_points("3,5 m", by_language=False), with_points("2,5", by_language=False)
        ('3.5 m', None)
        >>> with_points("1,5; 2,5", by_language=True)
        '1.5; 2.5'
    """
    if "," not in text or len(text) > MAX_CHARS or _BRACKETED.search(text):
        return None
    parts = _BETWEEN.split(text) if by_language else [text]
    if any(part.count(",") > len(_COMMA_NUMBER.findall(part)) or part.count(",") > 1 for part in parts):
        return None
    if not by_language and not _is_decimal_alone(text):
        return None
    pointed = _COMMA_NUMBER.sub(lambda found: found[1].replace(".", "").replace(",", "."), text)
    return pointed if pointed != text else None


def groups_thousands(text: str) -> bool:
    """Return True if a comma of the text may separate thousands: `1,234`, not `0,125`."""
    return _THOUSANDS.search(text) is not None


def _is_decimal_alone(text: str) -> bool:
    if groups_thousands(text) or _NOT_A_UNIT.search(text):
        return False
    return _LEADING_ZERO.fullmatch(text) is not None or _UNIT.fullmatch(text) is not None
