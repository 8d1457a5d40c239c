"""Comparison of printed output with the expected one: one table of rules for every kind of reference that prints.

A rule is a named comparison (`COMPARISONS`) and the differences that it ignores: a tolerance, the case of letters, the
order of lines. A program's output may have megabytes: it is scanned without storing an object per word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, DecimalException
from itertools import zip_longest
from typing import NamedTuple

from verifiers.code.output_sets import same_as_apps, same_as_eurus, same_as_taco
from verifiers.errors import BadReference
from verifiers.verdict import JSON

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
INEXACT = re.compile(r"[.eE]")
WORD = re.compile(r"\S+")
LONGEST_NUMBER = 400


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Allowed distance of a number from the expected one.

    Example:
        >>> Tolerance(absolute=0.01).near(3.14, 3.1415), Tolerance(absolute=0.01).near(3.0, 3.1415)
        (True, False)
    """

    absolute: float = 0.0
    relative: float = 0.0
    """Fraction of the expected value, added to `absolute`, as in numpy.allclose."""
    integers: bool = False
    """True: also applies to expected integers; False: only to numbers written with a point or an exponent."""
    larger: bool = False
    """True: as `math.isclose`: the larger of both terms instead of the sum, relative to the larger of both numbers."""

    def __bool__(self) -> bool:
        return self.absolute > 0 or self.relative > 0

    def near(self, got: float, expected: float) -> bool:
        """Return True if a number is near enough. Infinite numbers only match themselves, nan nothing."""
        if self.larger:
            return math.isclose(got, expected, rel_tol=min(self.relative, 1.0), abs_tol=self.absolute)
        if got == expected:
            return True
        try:
            return abs(got - expected) <= self.absolute + self.relative * abs(expected) < math.inf
        except OverflowError:
            return False


EXACT = Tolerance()


def read_tolerance(value: JSON) -> Tolerance:
    """Read a tolerance from a reference or an option.

    Args:
        value: a number (absolute or relative, whichever is wider, as in `math.isclose`), or an object of absolute,
            relative and integers (added up, as in `numpy.allclose`).

    Raises:
        BadReference: it is neither.
    """
    if isinstance(value, dict):
        unknown = sorted(set(value) - {"absolute", "relative", "integers"})
        if unknown:
            raise BadReference(f"tolerance has no {unknown[0]!r}; it takes absolute, relative and integers.")
        integers = value.get("integers", False)
        if not isinstance(integers, bool):
            raise BadReference(f"tolerance: integers must be true or false; got {integers!r:.80}.")
        absolute, relative = (_amount(value.get(name, 0)) for name in ("absolute", "relative"))
        return Tolerance(absolute, relative, integers)
    amount = _amount(value)
    return Tolerance(amount, amount, larger=True) if amount else EXACT


def _amount(value: JSON) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise BadReference(f"tolerance must be a number of at least 0; got {value!r:.80}.")
    return float(value)


@dataclass(frozen=True, slots=True)
class OutputRule:
    """Rule for comparing printed output."""

    compare: str = "lines"
    """A name of COMPARISONS."""
    tolerance: Tolerance = EXACT
    any_case: bool | tuple[str, ...] = False
    """True: ignore the case of letters; words: ignore it in these words."""
    any_order: bool = False
    """True: ignore the order of lines."""


def read_output_rule(fields: Mapping[str, JSON], default: OutputRule) -> OutputRule:
    """Read the rule of a reference: its own compare, tolerance, any_case and any_order, else those of the default.

    Raises:
        BadReference: a field has a wrong type or value, or any_order is set for a comparison without lines.
    """
    rule = default
    if "compare" in fields:
        rule = replace(rule, compare=_one_of(fields["compare"], COMPARISONS))
    if "tolerance" in fields:
        rule = replace(rule, tolerance=read_tolerance(fields["tolerance"]))
    if "any_case" in fields:
        rule = replace(rule, any_case=_any_case(fields["any_case"]))
    if "any_order" in fields:
        if not isinstance(fields["any_order"], bool):
            raise BadReference(f"any_order must be true or false; got {fields['any_order']!r:.80}.")
        rule = replace(rule, any_order=fields["any_order"])
    if rule.any_order and not COMPARISONS[rule.compare].by_line:
        able = ", ".join(name for name, found in COMPARISONS.items() if found.by_line)
        raise BadReference(f"any_order concerns lines, which compare {rule.compare!r} ignores; use one of {able}.")
    return rule


def _one_of(value: JSON, known: Mapping[str, object]) -> str:
    if not isinstance(value, str) or value not in known:
        raise BadReference(f"compare must be one of {', '.join(known)}; got {value!r:.80}.")
    return value


def _any_case(value: JSON) -> bool | tuple[str, ...]:
    if isinstance(value, bool):
        return value
    if isinstance(value, list) and value and all(isinstance(word, str) and word for word in value):
        return tuple(str(word) for word in value)
    raise BadReference(f"any_case must be true, false or a list of words; got {value!r:.80}.")


def same_output(got: str, expected: str, rule: OutputRule) -> bool:
    """Return True if printed output matches the expected one under a rule.

    Example:
        >>> same_output("yes\\n", "YES", OutputRule("words", any_case=True)), same_output("1 2", "1\\n2", OutputRule())
        (True, False)
    """
    if rule.any_case:
        got, expected = _folded(got, rule.any_case), _folded(expected, rule.any_case)
    return COMPARISONS[rule.compare].holds(got, expected, rule)


def _folded(text: str, any_case: bool | tuple[str, ...]) -> str:
    if any_case is True or not any_case:
        return text.lower() if any_case else text
    words = "|".join(map(re.escape, any_case))
    return re.sub(rf"\b(?:{words})\b", lambda found: found[0].lower(), text, flags=re.IGNORECASE)


def _exact(got: str, expected: str, rule: OutputRule) -> bool:
    return got == expected


def _lines(got: str, expected: str, rule: OutputRule) -> bool:
    return _by_line(got.rstrip(), expected.rstrip(), rule, _same_line)


def _trimmed(got: str, expected: str, rule: OutputRule) -> bool:
    return _by_line(got.strip(), expected.strip(), rule, lambda a, b, rule: _same_line(a.strip(), b.strip(), rule))


def _tokens(got: str, expected: str, rule: OutputRule) -> bool:
    return _by_line(got.rstrip(), expected.rstrip(), rule, _same_words)


def _decimals(got: str, expected: str, rule: OutputRule) -> bool:
    return _by_line(got.strip(), expected.strip(), rule, _same_decimals)


def _by_line(got: str, expected: str, rule: OutputRule, same: Callable[[str, str, OutputRule], bool]) -> bool:
    """Return True if two texts have the same number of lines and corresponding lines are the same."""
    if got.count("\n") != expected.count("\n"):
        return False
    if rule.any_order:
        ours, theirs = sorted(got.split("\n"), key=_order), sorted(expected.split("\n"), key=_order)
        return all(same(a, b, rule) for a, b in zip(ours, theirs, strict=True))
    return all(same(a, b, rule) for a, b in zip(_each_line(got), _each_line(expected), strict=True))


def _order(line: str) -> list[tuple[bool, float, str]]:
    """Return the sort key of a line; numbers sort by value, so that 1.0 and 1.00 are together."""
    return [(True, float(word), "") if _is_number(word) else (False, 0.0, word) for word in line.split()]


def _each_line(text: str) -> Iterator[str]:
    """Yield each line of a text."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def _same_line(got: str, expected: str, rule: OutputRule) -> bool:
    """Return True if two lines are the same except for blanks at their ends."""
    got, expected = got.rstrip(), expected.rstrip()
    if got == expected or not rule.tolerance:
        return got == expected
    if got.count(" ") != expected.count(" "):
        return False
    return all(_same_word(a, b, rule) for a, b in zip(got.split(" "), expected.split(" "), strict=True))


def _same_words(got: str, expected: str, rule: OutputRule) -> bool:
    """Return True if two texts have the same words, whatever blanks and line breaks separate them."""
    if got == expected:
        return True
    pairs = zip_longest(WORD.finditer(got), WORD.finditer(expected))
    return all(a is not None and b is not None and _same_word(a[0], b[0], rule) for a, b in pairs)


def _same_word(got: str, expected: str, rule: OutputRule) -> bool:
    if got == expected:
        return True
    tolerance = rule.tolerance
    if not tolerance or not (tolerance.integers or INEXACT.search(expected)):
        return False
    return _is_number(got) and _is_number(expected) and tolerance.near(float(got), float(expected))


def _is_number(word: str) -> bool:
    return len(word) <= LONGEST_NUMBER and NUMBER.fullmatch(word) is not None


def _same_decimals(got: str, expected: str, rule: OutputRule) -> bool:
    """Return True if two lines are the same text, or all their words are numbers of exactly the same values."""
    if got.strip() == expected.strip():
        return True
    pairs = zip_longest(WORD.finditer(got), WORD.finditer(expected))
    return all(a is not None and b is not None and _same_decimal(a[0], b[0], rule) for a, b in pairs)


def _same_decimal(got: str, expected: str, rule: OutputRule) -> bool:
    try:
        return Decimal(got) == Decimal(expected) or (_same_word(got, expected, rule) and got != expected)
    except DecimalException:
        return False


def _apps(got: str, expected: str, rule: OutputRule) -> bool:
    return same_as_apps(got, expected)


def _taco(got: str, expected: str, rule: OutputRule) -> bool:
    return same_as_taco(got, expected)


def _eurus(got: str, expected: str, rule: OutputRule) -> bool:
    return same_as_eurus(got, expected)


class Comparison(NamedTuple):
    """Named comparison of printed output."""

    holds: Callable[[str, str, OutputRule], bool]
    says: str
    """Description of what has to match, for the documentation."""
    by_line: bool = False
    """True if it compares line by line, so that the order can be ignored."""


COMPARISONS: Mapping[str, Comparison] = {
    "exact": Comparison(_exact, "every byte"),
    "lines": Comparison(
        _lines, "every line, but for blanks at its end and empty lines at the end of the output", by_line=True
    ),
    "trimmed": Comparison(
        _trimmed, "every line, but for blanks at its two ends and empty lines at the top and the end", by_line=True
    ),
    "tokens": Comparison(
        _tokens, "as many lines, and in each the same words, whatever stands between them", by_line=True
    ),
    "words": Comparison(_same_words, "the same words in the whole output, wherever its lines break"),
    "decimals": Comparison(
        _decimals,
        "as trimmed; and a line of numbers matches one of exactly equal numbers (1.0 and 1)",
        by_line=True,
    ),
    "apps": Comparison(
        _apps,
        "as trimmed, without empty lines; or a number in each line, to within 1e-5 of it; or the same lines as a set,"
        " each the set of its words, or of its numbers to three places",
    ),
    "taco": Comparison(
        _taco,
        "the whole text, but for blanks and empty lines at its two ends; or the same sets of characters, an oddity",
    ),
    "eurus": Comparison(
        _eurus,
        "as trimmed, without empty lines; or a number in each line, to within 1e-5 of it, unless all are integers",
    ),
}
"""Values of `compare`, in references with cases and in the verifier's options."""
