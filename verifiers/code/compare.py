"""Comparison of a program's values with a test's expected values. The values are data; no program code runs here.

Both sides are rebuilt as plain built-in objects, so `==` has its usual meaning for these: 1 == 1.0 == True, a list
differs from a tuple, the order of a dict does not matter.
"""

from __future__ import annotations

import builtins
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, ValuesView
from typing import Any, TypedDict, cast

from verifiers.code.guest import standard, wire
from verifiers.code.output import EXACT, Tolerance
from verifiers.verdict import JSON


def _set(items: Iterable[object]) -> object:
    return wire.hashed(list(items), set)


def _frozenset(items: Iterable[object]) -> object:
    return wire.hashed(list(items), frozenset)


VIEWS: Mapping[str, Callable[..., object]] = {
    "tuple": tuple,
    "list": list,
    "set": _set,
    "frozenset": _frozenset,
    "sorted": sorted,
    "len": len,
    "int": int,
    "float": float,
    "round": round,
}

NOTHING: JSON = {"$opaque": ["nothing", False]}
"""Placeholder for a missing value; equal to no value."""

RELATIONS: Mapping[str, Callable[[Any, Any], object]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "in": lambda a, b: a in b,
    "not_in": lambda a, b: a not in b,
}


class Case(TypedDict):
    """Comparison in a plan."""

    call: dict[str, JSON]
    views: list[list[JSON]]
    """Functions applied to the value before the comparison, innermost first, each with its further arguments."""
    op: str
    expected: JSON
    extra: JSON
    test: int


def holds(case: Case, reply: Mapping[str, JSON] | None, classes: Mapping[str, type]) -> bool:
    """Return True if a reply satisfies a case of a plan.

    Args:
        case: the comparison.
        reply: reply of the program's process to the call, with a value or the exception raised; None if the call was
            not reached.
        classes: stand-ins for the classes of the tests, by name; see `stand_ins`.
    """
    op = case["op"]
    if reply is None:
        return False
    if op == "raises":
        return "value" not in reply and _raised(reply.get("raised"), str(case["expected"]))
    if "value" not in reply:
        return False
    value = reply["value"]
    if op in ("true", "false") and is_opaque(value):
        return _truth(value) is (op == "true")
    try:
        got = wire.decode(value, dict(classes))
        for name, *arguments in case["views"]:
            got = VIEWS[str(name)](got, *arguments)
        expected = wire.decode(case["expected"], dict(classes))
        return _compare(op, got, expected, case, classes)
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError):
        return False  # a value of the wrong type, or one that cannot be decoded


def _compare(op: str, got: Any, expected: Any, case: Case, classes: Mapping[str, type]) -> bool:
    if op in ("true", "false"):
        return bool(got) is (op == "true")
    if op in ("is", "is_not"):
        return (got is expected) is (op == "is")
    extra = wire.decode(case["extra"], dict(classes))
    if op == "isclose":
        return math.isclose(got, expected, **extra)
    if op in ("within", "closer"):
        distance = abs(got - expected)
        return bool(distance <= extra) if op == "within" else bool(distance < extra)
    if op in ("eq", "ne") and (hasattr(got, "dtype") or hasattr(expected, "dtype")):
        raise TypeError("arrays are not compared as a whole by ==")
    try:
        return bool(RELATIONS[op](got, expected))
    except RecursionError:  # deep or cyclic
        found = same(got, expected, tolerance=EXACT, sequences_alike=False)
        return found is (op == "eq") if op in ("eq", "ne") else False


def _raised(name: JSON, expected: str) -> bool:
    """Return True if the exception that a program raised is a built-in one of the expected kind."""
    kind, wanted = getattr(builtins, str(name), None), getattr(builtins, expected, None)
    if not isinstance(kind, type) or not isinstance(wanted, type):
        return False
    return issubclass(kind, Exception) and issubclass(kind, wanted)


class AnyClass(dict[str, type]):
    """Mapping that creates a plain class for every name; two instances are equal if their fields are."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str)

    def get(self, name: str, default: object = None) -> Any:
        return self[name]

    def __missing__(self, name: str) -> type:
        return self.setdefault(name, _stand_in(name))


def _stand_in(name: str) -> type:
    def equal_fields(self: object, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    return type(name, (), {"__eq__": equal_fields, "__hash__": None, "stands_in": True})


def stand_ins(names: Iterable[str]) -> dict[str, type]:
    """Create a plain class for each class name of the tests; two instances are equal if their fields are."""
    return {name: _stand_in(name) for name in names}


def equal(got: JSON, expected: JSON, *, tolerance: Tolerance = EXACT, sequences_alike: bool = False) -> bool:
    """Return True if two encoded values are the same (see `same`); values that cannot be decoded equal nothing."""
    try:
        known = AnyClass()
        ours, theirs = wire.decode(got, known), wire.decode(expected, known)
        return same(ours, theirs, tolerance=tolerance, sequences_alike=sequences_alike)
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError):
        return False


def alike(got: JSON, returned: JSON, *, tolerance: Tolerance) -> bool:
    """Return True if an encoded value equals what an oracle returned; for a regex match, any match or True will do."""
    if is_opaque(returned):
        return returned == MATCH and (got == MATCH or got is True)
    return equal(got, returned, tolerance=tolerance)


MATCH: JSON = {"$opaque": ["re.Match", True]}


def comparable(tree: JSON) -> str:
    """Return why an oracle's encoded value cannot be compared with another one; empty if it can."""
    if tree == MATCH:
        return ""
    waiting: list[JSON] = [tree]
    while waiting:
        at = waiting.pop()
        if is_opaque(at):
            assert isinstance(at, dict)
            opaque = at["$opaque"]
            return f"a value of type {opaque[0] if isinstance(opaque, list) else opaque}"
        if isinstance(at, dict):
            found = at.get("$object")
            if isinstance(found, list) and found[1:] == [[]]:
                return f"an instance of {found[0]} without fields"
            waiting += at.values()
        elif isinstance(at, list):
            waiting += at
    return ""


def is_opaque(value: JSON) -> bool:
    """Return True if an encoded value stands only for an object that could not be transferred."""
    return isinstance(value, dict) and "$opaque" in value


def _truth(value: JSON) -> bool | None:
    """Return the truth value of an object that could not be transferred; None if it is unknown."""
    opaque = value["$opaque"] if isinstance(value, dict) else None
    return opaque[1] if isinstance(opaque, list) and len(opaque) == 2 and isinstance(opaque[1], bool) else None


def same(got: object, expected: object, *, tolerance: Tolerance, sequences_alike: bool) -> bool:
    """Return True if two plain values are equal, however deep, shared or cyclic.

    Args:
        got: the program's value.
        expected: the expected value.
        tolerance: range in which a number counts as equal to an expected float.
        sequences_alike: True: an expected list accepts a tuple of the same items (JSON writes both as a list).
    """
    waiting: list[tuple[Any, Any]] = [(got, expected)]
    met: set[tuple[int, int]] = set()
    alive: list[Any] = []  # keeps the objects alive, so that no id is reused
    while waiting:
        ours, theirs = waiting.pop()
        kind = cast("type[object]", type(theirs))
        if issubclass(kind, list | tuple | dict) or hasattr(kind, "stands_in"):
            if (id(ours), id(theirs)) in met:
                continue
            met.add((id(ours), id(theirs)))
        parts = _parts(ours, theirs, tolerance=tolerance, loose=sequences_alike)
        if parts is None:
            return False
        alive += (ours, theirs)
        waiting += parts
    return True


def _parts(got: Any, expected: Any, *, tolerance: Tolerance, loose: bool) -> list[tuple[Any, Any]] | None:
    """Return the pairs of parts that still have to be compared; None if the two values already differ."""
    ours, theirs = cast("type[object]", type(got)), cast("type[object]", type(expected))
    if theirs is float and tolerance and ours in (int, float):
        close = got == expected or tolerance.near(got, expected)
        return [] if close else None
    if issubclass(theirs, Iterator | ValuesView):
        return [(list(got), list(expected))] if issubclass(ours, Iterator | ValuesView) else None
    if issubclass(theirs, list | tuple) and theirs is not standard.Member:
        if not issubclass(ours, list | tuple) or ours is standard.Member or len(got) != len(expected):
            return None
        same_kind = issubclass(ours, list) == issubclass(theirs, list) or (loose and issubclass(theirs, list))
        return list(zip(got, expected, strict=True)) if same_kind else None
    if issubclass(theirs, dict) and theirs is not OrderedDict:
        same_keys = issubclass(ours, dict) and got.keys() == expected.keys()
        return [(got[key], expected[key]) for key in expected] if same_keys else None
    if hasattr(theirs, "stands_in"):
        return [(vars(got), vars(expected))] if ours is theirs else None
    if hasattr(theirs, "iloc") and hasattr(theirs, "to_dict"):
        return [(got.to_dict("split"), expected.to_dict("split"))] if ours is theirs else None
    if hasattr(theirs, "dtype"):
        return _same_arrays(got, expected) if ours is theirs else None
    return [] if got == expected else None


def _same_arrays(got: Any, expected: Any) -> list[tuple[Any, Any]] | None:
    """Return these pairs for two arrays of one shape: the elements and, for pandas columns, the labels; else None."""
    if got.shape != expected.shape:
        return None
    indices = [(got.index.tolist(), expected.index.tolist())] if hasattr(expected, "index") else []
    return [(got.tolist(), expected.tolist()), *indices]
