"""Comparison of printed output as in the graders of APPS, TACO and Eurus-2: several attempts, one of which suffices.

APPS: hendrycks/apps, eval/testing_util.py, 362aedc. TACO: FlagOpen/TACO, metrics/testing_util.py, 245eba3. Eurus-2:
PRIME-RL/PRIME, code_util/testing_util.py, 18ad596. They accept more than a person would call the same output; that is
reproduced here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest

LINE_ENDS = dict.fromkeys(map(ord, "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"), "\n")
"""Characters other than a newline at which str.splitlines ends a line."""
LINE = re.compile(r"[^\n]+")
WORD = re.compile(r"\S+")
RELATIVE, ABSOLUTE = 1e-5, 1e-8
"""The defaults of numpy.allclose."""
PLACES = 3
LONGER, MORE = 10, 10_000
"""Compared as a set, an output may be at most LONGER times as long as the expected one plus MORE characters (our
choice). Otherwise megabytes of one repeated line would equal that line, and take as long to compare."""


def same_as_apps(got: str, expected: str) -> bool:
    """Return True if APPS' grader accepts the output.

    Example:
        >>> same_as_apps("2 1\\n", "1 2"), same_as_apps("3.0001", "3"), same_as_apps("4", "3")
        (True, True, False)
    """
    got, theirs = _with_newlines(got), _stripped_lines(expected)
    if _same_text(got, expected, theirs) or _same_numbers(_lines(got), theirs):
        return True
    if _is_flood(got, expected):
        return False
    return _same_sets(got, theirs, str) or _same_sets(got, theirs, _rounded)


def same_as_eurus(got: str, expected: str) -> bool:
    """Return True if the grader of Eurus-2's code rows accepts the output.

    Example:
        >>> same_as_eurus("2 1", "1 2"), same_as_eurus("3.00001", "3"), same_as_eurus("100001", "100000")
        (False, True, False)
    """
    got, theirs = _with_newlines(got), _stripped_lines(expected)
    if _same_text(got, expected, theirs):
        return True
    if all(ours.isdigit() and line.isdigit() for ours, line in zip(_lines(got), theirs, strict=False)):
        return False
    return _same_numbers(_lines(got), theirs)


def same_as_taco(got: str, expected: str) -> bool:
    """Return True if TACO's grader accepts the output.

    If the texts differ, it continues with the output as a single text where APPS' grader has lines: it compares the
    characters of the output as numbers, one per expected line, and then the set of characters of each word.

    Example:
        >>> same_as_taco("1 2\\n", "1 2"), same_as_taco("1 2 \\n3\\n", "1 2\\n3"), same_as_taco("2\\n1\\n", "1\\n2")
        (True, False, True)
    """
    if got.strip() == expected.strip():
        return True
    theirs = _stripped_lines(expected)
    if len(got) == len(theirs) and _same_numbers(iter(got), theirs):
        return True
    if _is_flood(got, expected):
        return False
    if _all_found(map(frozenset, _words(got)), {frozenset(line.split()) for line in theirs}):
        return True
    try:
        digits = (frozenset(map(float, word)) for word in _words(got))
        return _all_found(digits, {frozenset(map(_rounded, line.split())) for line in theirs})
    except ValueError:
        return False


def _is_flood(got: str, expected: str) -> bool:
    return len(got) > LONGER * len(expected) + MORE


def _with_newlines(text: str) -> str:
    """Replace every line end that str.splitlines knows by a newline."""
    return text.replace("\r\n", "\n").translate(LINE_ENDS)


def _stripped_lines(expected: str) -> list[str]:
    return [line.strip() for line in expected.split("\n") if line]


def _lines(text: str) -> Iterator[str]:
    """Yield each line of a text that is not empty."""
    return (found[0] for found in LINE.finditer(text))


def _same_text(got: str, expected: str, theirs: list[str]) -> bool:
    """Return True if the lines are the same: trimmed as a whole, each trimmed, or without the empty ones."""
    ours, wanted = got.strip(), expected.strip()
    if ours == wanted:
        return True
    if ours.count("\n") == wanted.count("\n") and _all_equal(map(str.strip, ours.split("\n")), wanted.split("\n")):
        return True
    whole = got.removesuffix("\n")
    if whole.count("\n") + 1 == len(theirs) and whole.split("\n") == theirs:
        return True
    return _all_equal(_lines(got), theirs)


def _all_equal(ours: Iterable[str], theirs: Iterable[str]) -> bool:
    return all(a == b for a, b in zip_longest(ours, theirs))


def _same_numbers(ours: Iterator[str], theirs: list[str]) -> bool:
    """Return True if each line is one number, near the expected one."""
    try:
        for got, expected in zip_longest(ours, theirs):
            if got is None or expected is None or not _near(float(got), float(expected)):
                return False
    except ValueError:
        return False
    return True


def _near(got: float, expected: float) -> bool:
    return got == expected or (
        math.isfinite(got) and math.isfinite(expected) and abs(got - expected) <= ABSOLUTE + RELATIVE * abs(expected)
    )


def _rounded(word: str) -> float:
    return round(float(word), PLACES)


def _words(line: str) -> Iterator[str]:
    return (found[0] for found in WORD.finditer(line))


def _same_sets(got: str, theirs: list[str], key: Callable[[str], object]) -> bool:
    """Return True if the lines are equal as a set, each line being the set of its words' keys."""
    try:
        wanted = {frozenset(map(key, _words(line))) for line in theirs}
        known = frozenset[object]().union(*wanted)
        seen: set[frozenset[object]] = set()
        for line in _lines(got):
            keys: set[object] = set()
            for found in map(key, _words(line)):
                if found not in known:
                    return False
                keys.add(found)
            if keys:
                seen.add(frozenset(keys))
    except (ValueError, OverflowError):
        return False
    return seen == wanted


def _all_found(ours: Iterable[frozenset[object]], wanted: set[frozenset[object]]) -> bool:
    """Return True if two collections are the same set; stop at the first item that is not wanted."""
    seen: set[frozenset[object]] = set()
    for item in ours:
        if item not in wanted:
            return False
        seen.add(item)
    return seen == wanted
