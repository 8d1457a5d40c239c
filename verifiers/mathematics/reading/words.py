"""Words with a mathematical meaning: numbers, scales, months, common answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

UNITS_TO_NINETEEN = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
SMALL: Mapping[str, int] = {
    **{word: value for value, word in enumerate(UNITS_TO_NINETEEN)},
    **{word: 20 + 10 * index for index, word in enumerate(TENS)},
}
SCALES: Mapping[str, int] = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
MONTHS: Mapping[str, int] = {
    name: index + 1
    for index, names in enumerate(
        [
            ("january", "jan"),
            ("february", "feb"),
            ("march", "mar"),
            ("april", "apr"),
            ("may",),
            ("june", "jun"),
            ("july", "jul"),
            ("august", "aug"),
            ("september", "sep", "sept"),
            ("october", "oct"),
            ("november", "nov"),
            ("december", "dec"),
        ]
    )
    for name in names
}
STOP_WORDS = frozenset(
    "a an the is are it its be there that this of to will has have for answer solution function number series sequence "
    "limit integral".split()
)
NUMBERED = frozenset("one two three four five six seven eight nine ten".split())

SYNONYMS: Mapping[str, str] = {
    "no solutions": "none",
    "no solution": "none",
    "no": "no",
    "none": "none",
    "no real solutions": "none",
    "no real solution": "none",
    "no real roots": "none",
    "no such": "none",
    "not exist": "undefined",
    "does not exist": "undefined",
    "do not exist": "undefined",
    "doesn't exist": "undefined",
    "dne": "undefined",
    "undefined": "undefined",
    "not defined": "undefined",
    "empty set": "none",
    "emptyset": "none",
    "null set": "none",
    "infinitely many": "infinitely many",
    "infinitely many solutions": "infinitely many",
    "infinite number solutions": "infinitely many",
    "infinite solutions": "infinitely many",
    "infinite": "infinitely many",
    "infinity": "infinity",
    "all real numbers": "all reals",
    "all reals": "all reals",
    "any real number": "all reals",
    "all real": "all reals",
    "every real number": "all reals",
    "real numbers": "all reals",
}
"""Phrase (without stop words) -> one standard wording."""

SHORT_WORDS = frozenset(
    "yes odd all any the not per day min sec mph kph hrs lbs one two six ten are has net mod off out red who how "
    "its may jan feb mar apr jun jul aug sep oct nov dec new old big few men man boy dog cat egg eggs mph am pm "
    "no is if by to of an on at as it be so do up we he none only each both mrs row top set box bus car cup pen "
    "for but was his her him she had let dne".split()
)
"""Words of two and three letters that are not products of variables."""


def number_from_words(words: Sequence[str]) -> int | None:
    """Return the integer that words spell: `["twenty", "five"]` is 25; None if they spell none.

    Example:
        >>> number_from_words(["three", "hundred", "and", "four"])
        304
    """
    total = current = 0
    seen = False
    for index, word in enumerate(words):
        if word == "and" and seen and index + 1 < len(words):
            continue
        if word in SMALL:
            value = SMALL[word]
            if current % 100 and not (current % 100 >= 20 and current % 10 == 0 and 0 < value < 10):
                return None
            current += value
        elif word == "hundred" and seen:
            current *= 100
        elif word in SCALES and seen:
            total += (current or 1) * SCALES[word]
            current = 0
        else:
            return None
        seen = True
    return total + current if seen else None


PARTS: Mapping[str, int] = {
    "half": 2,
    "halve": 2,
    "third": 3,
    "quarter": 4,
    **{f"{word}th": value for word, value in (("four", 4), ("six", 6), ("seven", 7), ("ten", 10), ("hundred", 100))},
    **{f"{word}th": value for word, value in (("thirteen", 13), ("fifteen", 15), ("sixteen", 16), ("thousand", 1000))},
    "fifth": 5,
    "eighth": 8,
    "ninth": 9,
    "twelfth": 12,
    "twentieth": 20,
}
"""Name of a fraction's denominator -> denominator; plurals end in s."""


def value_of_words(words: Sequence[str]) -> Fraction | int | None:
    """Return the number that words spell, with fractions and a sign; None if they spell none.

    Example:
        >>> value_of_words(["one", "and", "a", "half"]), value_of_words(["two", "thirds"])
        (Fraction(3, 2), Fraction(2, 3))
    """
    if len(words) > 1 and words[0] in ("negative", "minus"):
        value = value_of_words(words[1:])
        return None if value is None else -value
    whole = number_from_words(words)
    if whole is not None or not words:
        return whole
    part = PARTS.get(words[-1].removesuffix("s"))
    if part is None or (words[-1] in ("third", "half") and len(words) == 1):
        return Fraction(1, 2) if list(words) == ["half"] else None
    before = list(words[:-1])
    if not before:
        return None
    if "and" in before:
        place = len(before) - 1 - before[::-1].index("and")
        whole, before = number_from_words(before[:place]), before[place + 1 :]
        if whole is None:
            return None
    top = 1 if before in (["a"], ["an"], []) else number_from_words(before)
    return None if top is None else (whole or 0) + Fraction(top, part)


_FOLDED: Mapping[str, str] = {
    "convergent": "converges",
    "converge": "converges",
    "divergent": "diverges",
    "diverge": "diverges",
}
_NOUNS = frozenset(("triangle", "line", "curve", "graph", "quadrilateral", "angle", "system", "matrix"))
"""Nouns that are dropped after an adjective."""


def phrase(words: Sequence[str]) -> str:
    """Return a standard wording of the words: lower case, no stop words, synonyms merged."""
    lowered = [word.lower().strip(".'\"") for word in words]
    whole = " ".join(lowered)
    if whole in SYNONYMS:
        return SYNONYMS[whole]
    lowered = [_FOLDED.get(word, word) for word in lowered]
    if len(lowered) > 1 and lowered[-1] in _NOUNS:
        lowered = lowered[:-1]
    kept = " ".join(word for word in lowered if word and word not in STOP_WORDS)
    return SYNONYMS.get(kept, kept or whole)


EXTREMES: Mapping[str, str] = {
    **dict.fromkeys(
        "max;maximum;max value;maximum value;largest value;greatest value;最大值;最大值为;最大值是;极大值;极大值为;"
        "valor máximo;máximo;valeur maximale;наибольшее значение;максимум".split(";"),
        "maximum",
    ),
    **dict.fromkeys(
        "min;minimum;min value;minimum value;smallest value;least value;最小值;最小值为;最小值是;极小值;极小值为;"
        "valor mínimo;mínimo;valeur minimale;наименьшее значение;минимум".split(";"),
        "minimum",
    ),
}
"""Label -> maximum or minimum."""
