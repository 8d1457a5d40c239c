"""Comparison of returned values with expected ones: one table of rules, for references with calls or an oracle.

Both sides are plain built-in objects, rebuilt from transferred data; no program code runs here.
"""

from __future__ import annotations

import cmath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeGuard, cast

from verifiers.code.compare import same
from verifiers.code.guest import wire
from verifiers.code.output import EXACT, Tolerance, read_tolerance
from verifiers.errors import BadReference
from verifiers.verdict import JSON


@dataclass(frozen=True, slots=True)
class ValueRule:
    """Rule for comparing returned values."""

    compare: str = "nested"
    """A name of VALUES."""
    tolerance: Tolerance = EXACT


def read_value_rule(fields: Mapping[str, JSON], default: ValueRule) -> ValueRule:
    """Read the rule of a reference: its own compare and tolerance, else those of the default.

    Raises:
        BadReference: a field has a wrong type or value.
    """
    rule = default
    if "compare" in fields:
        name = fields["compare"]
        if not isinstance(name, str) or name not in VALUES:
            raise BadReference(f"compare must be one of {', '.join(VALUES)}; got {name!r:.80}.")
        rule = replace(rule, compare=name)
    if "tolerance" in fields:
        rule = replace(rule, tolerance=read_tolerance(fields["tolerance"]))
    return rule


def same_value(got: JSON, expected: JSON, rule: ValueRule) -> bool:
    """Return True if two encoded values match under a rule; values that cannot be decoded match nothing.

    Example:
        >>> same_value(5, [5], ValueRule("wrapped")), same_value({"$tuple": [1, 2]}, [1, 2], ValueRule("strict"))
        (True, False)
    """
    try:
        theirs = wire.decode(expected)
        if rule.compare == "not_none" and _is_opaque(got):
            return theirs is True
        return VALUES[rule.compare].holds(wire.decode(got), theirs, rule.tolerance)
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError):
        return False


def _is_opaque(tree: JSON) -> bool:
    return isinstance(tree, dict) and isinstance(tree.get("$opaque"), list) and tree["$opaque"] != ["nothing", False]


def _nested(got: object, expected: object, tolerance: Tolerance) -> bool:
    return same(got, expected, tolerance=tolerance, sequences_alike=True)


def _strict(got: object, expected: object, tolerance: Tolerance) -> bool:
    return same(got, expected, tolerance=tolerance, sequences_alike=False)


def _outer(got: object, expected: object, tolerance: Tolerance) -> bool:
    return _strict(_as_list(got), expected, tolerance)


def _wrapped(got: object, expected: object, tolerance: Tolerance) -> bool:
    got = _as_list(got)
    if _strict(got, expected, tolerance):
        return True
    if not _is_list(expected) or not expected:
        return False
    if _strict(got, expected[0], tolerance):
        return True
    tuples = _is_list(got) and bool(got) and isinstance(got[0], tuple)
    return tuples and _strict([_items(item) for item in _items(got)], expected[0], tolerance)


def _as_list(value: object) -> object:
    return _items(cast("object", value)) if isinstance(value, tuple) else value


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def _items(value: object) -> list[object]:
    """Return the items of a sequence, a set, a dict or a text, as list() does.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(value, list | tuple | set | frozenset | dict | str | bytes):
        return [*cast("Iterable[object]", value)]
    raise TypeError(f"{type(value).__name__} has no items")


def _evalplus(got: object, expected: object, tolerance: Tolerance) -> bool:
    if got == expected:
        return True
    allowed = tolerance
    if not allowed.absolute and _all_floats(expected):
        allowed = Tolerance(absolute=1e-6, relative=1e-7)
    if not allowed.absolute or type(got) is not type(expected):
        return False
    return _all_close(got, expected, allowed)


def _all_floats(value: object) -> bool:
    if isinstance(value, list | tuple):
        items = _items(cast("object", value))
        return bool(items) and all(isinstance(item, float) for item in items)
    return isinstance(value, float)


def _all_close(got: object, expected: object, tolerance: Tolerance) -> bool:
    """Compare numbers, or nested sequences of one shape, as numpy.allclose does."""
    if isinstance(got, list | tuple) and isinstance(expected, list | tuple):
        ours, theirs = _items(cast("object", got)), _items(cast("object", expected))
        return len(ours) == len(theirs) and all(_all_close(a, b, tolerance) for a, b in zip(ours, theirs, strict=True))
    if not isinstance(got, (int, float, complex)) or not isinstance(expected, (int, float, complex)):
        return False
    if got == expected:
        return True
    a, b = complex(got), complex(expected)
    return cmath.isfinite(a) and cmath.isfinite(b) and abs(a - b) <= tolerance.absolute + tolerance.relative * abs(b)


def _set(got: object, expected: object, tolerance: Tolerance) -> bool:
    return wire.hashed([*_items(got)], set) == wire.hashed([*_items(expected)], set)


def _not_none(got: object, expected: object, tolerance: Tolerance) -> bool:
    return (got if isinstance(got, bool) else got is not None) == expected


def _printed(got: object, expected: object, tolerance: Tolerance) -> bool:
    return str(got).strip() == (expected if isinstance(expected, str) else str(expected)).strip()


class ValueComparison(NamedTuple):
    """Named comparison of returned values."""

    holds: Callable[[object, object, Tolerance], bool]
    says: str
    """Description of what has to match, for the documentation."""


VALUES: Mapping[str, ValueComparison] = {
    "nested": ValueComparison(_nested, "Python's equality; an expected list accepts a tuple, at any depth"),
    "strict": ValueComparison(_strict, "Python's equality: a tuple is no list"),
    "outer": ValueComparison(_outer, "Python's equality; a returned tuple counts as a list, one inside it does not"),
    "wrapped": ValueComparison(
        _wrapped,
        "as outer; an expected list also accepts its first item alone ([5] accepts 5), and that item a list of tuples",
    ),
    "evalplus": ValueComparison(
        _evalplus,
        "Python's equality; else the same type, and numbers within the tolerance (1e-6 where floats are expected and"
        " none is given), plus 1e-7 of what is expected",
    ),
    "set": ValueComparison(_set, "the same items as a set, whatever their order and number"),
    "not_none": ValueComparison(_not_none, "true where anything but None or False is returned"),
    "printed": ValueComparison(_printed, "what print() shows of it is the expected text"),
}
"""Values of `compare` in references with calls or an oracle."""
RETURNED_ALONE = frozenset({"evalplus", "set", "not_none"})
"""EvalPlus's rules. They compare only the returned value, even if the canonical solution changes its arguments."""
