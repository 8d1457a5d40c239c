"""Whether what a program returned is what a test expects. The values are data; nothing of the program's runs here.

Both sides are rebuilt as plain built-in objects, so `==` means what it means between those: 1 == 1.0 == True, a list is
no tuple, a dict knows no order.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict, TypeGuard

from verifiers.code.guest import wire
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
"""No value: equal to none."""

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
    """A comparison of a plan."""

    call: dict[str, JSON]
    views: list[list[JSON]]
    """Functions applied to the value before it is compared, innermost first, each with its further arguments."""
    op: str
    expected: JSON
    extra: JSON
    test: int


def holds(case: Case, reply: Mapping[str, JSON] | None, classes: Mapping[str, type]) -> bool:
    """True where a reply satisfies a case of a plan.

    Args:
        case: the comparison.
        reply: the frame of the program's process for the call: a value or what it raised; None where it was not
            reached.
        classes: stand-ins for the classes of the tests, by name: see `stand_ins`.
    """
    op = case["op"]
    if reply is None:
        return False
    if op == "raises":
        return "value" not in reply and _raised(reply.get("raised"), str(case["expected"]))
    if "value" not in reply:
        return False
    value = reply["value"]
    if op in ("true", "false") and isinstance(value, dict) and "$opaque" in value:
        return _truth(value) is (op == "true")
    try:
        got = wire.decode(value, dict(classes))
        for name, *arguments in case["views"]:
            got = VIEWS[str(name)](got, *arguments)
        expected = wire.decode(case["expected"], dict(classes))
        return _compare(op, got, expected, case, classes)
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError):
        return False  # a value of the wrong kind, or one that cannot cross


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
    return bool(RELATIONS[op](got, expected))


def _raised(name: JSON, expected: str) -> bool:
    """Whether an exception that a program raised is of a built-in kind."""
    kind, wanted = getattr(builtins, str(name), None), getattr(builtins, expected, None)
    if not isinstance(kind, type) or not isinstance(wanted, type):
        return False
    return issubclass(kind, Exception) and issubclass(kind, wanted)


def stand_ins(names: Iterable[str]) -> dict[str, type]:
    """A plain class for each class of the tests; two instances are equal where their fields are."""

    def equal(self: object, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    return {name: type(name, (), {"__eq__": equal, "__hash__": None}) for name in names}


def equal(got: JSON, expected: JSON, *, tolerance: Tolerance = EXACT, sequences_alike: bool = False) -> bool:
    """Whether two encoded values are the same, see `same`; what cannot cross equals nothing."""
    try:
        ours, theirs = wire.decode(got), wire.decode(expected)
        return same(ours, theirs, tolerance=tolerance, sequences_alike=sequences_alike)
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError):
        return False


def alike(got: JSON, returned: JSON, *, tolerance: Tolerance) -> bool:
    """Whether an encoded value is what an oracle returned; where that is no plain data (a match object), its truth."""
    if not (isinstance(returned, dict) and "$opaque" in returned):
        return equal(got, returned, tolerance=tolerance)
    return _truth(got) is (_truth(returned) is True)


def _truth(value: JSON) -> bool | None:
    """Whether an encoded value is true; None where it is none."""
    if value is NOTHING:
        return None
    if isinstance(value, dict) and "$opaque" in value:
        opaque = value["$opaque"]
        return opaque[1] if isinstance(opaque, list) and len(opaque) == 2 and isinstance(opaque[1], bool) else None
    try:
        return bool(wire.decode(value))
    except wire.CannotCross:
        return None


def same(got: object, expected: object, *, tolerance: Tolerance, sequences_alike: bool) -> bool:
    """Equality of two plain values.

    Args:
        tolerance: an expected float accepts what is within it.
        sequences_alike: an expected list accepts a tuple of the same items (JSON writes both as a list).
    """
    if isinstance(expected, float) and tolerance and isinstance(got, (int, float)) and not isinstance(got, bool):
        return got == expected or tolerance.near(got, expected)
    if _is_sequence(expected):
        loose = sequences_alike and isinstance(expected, list)
        return (
            _is_sequence(got)
            and (loose or isinstance(got, list) == isinstance(expected, list))
            and len(got) == len(expected)
            and all(
                same(a, b, tolerance=tolerance, sequences_alike=sequences_alike)
                for a, b in zip(got, expected, strict=True)
            )
        )
    if _is_mapping(expected):
        return (
            _is_mapping(got)
            and got.keys() == expected.keys()
            and all(same(got[k], expected[k], tolerance=tolerance, sequences_alike=sequences_alike) for k in expected)
        )
    return got == expected


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list | tuple)


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, dict)
