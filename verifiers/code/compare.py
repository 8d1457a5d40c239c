"""Whether what a program returned is what a test expects. The values are data; nothing of the program's runs here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import cast

from verifiers.code.guest import wire
from verifiers.verdict import JSON

VIEWS: Mapping[str, Callable[..., object]] = {
    "tuple": tuple,
    "list": list,
    "set": set,
    "frozenset": frozenset,
    "sorted": sorted,
    "len": len,
    "int": int,
    "float": float,
    "round": round,
}


def holds(case: Mapping[str, JSON], value: JSON, classes: Mapping[str, type]) -> bool:
    """True where a returned value satisfies a case of a plan.

    Args:
        case: views (applied first, innermost first), op, expected, extra.
        value: as the program's process encoded it.
        classes: stand-ins for the classes of the tests, by name: see `stand_ins`.
    """
    op = str(case["op"])
    if op in ("true", "false") and isinstance(value, dict) and "$opaque" in value:
        return bool(cast("list[JSON]", value["$opaque"])[1]) is (op == "true")
    try:
        got: object = wire.decode(value, dict(classes))
        for name, *arguments in cast("list[list[object]]", case["views"]):
            got = VIEWS[str(name)](got, *arguments)
        expected: object = wire.decode(case["expected"], dict(classes))
        return _compare(op, got, expected, case, classes)
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError):
        return False  # a value of the wrong kind, or one that cannot cross


def _compare(op: str, got: object, expected: object, case: Mapping[str, JSON], classes: Mapping[str, type]) -> bool:
    if op in ("true", "false"):
        return bool(got) is (op == "true")
    if op in ("is", "is_not"):
        return (got is expected) is (op == "is")
    extra = wire.decode(case["extra"], dict(classes))
    if op == "isclose":
        return math.isclose(cast(float, got), cast(float, expected), **cast("dict[str, float]", extra))
    if op in ("within", "closer"):
        distance = abs(cast(float, got) - cast(float, expected))
        return bool(distance <= extra) if op == "within" else bool(distance < extra)
    relations: Mapping[str, Callable[[object, object], object]] = {
        "eq": lambda a, b: a == b,
        "ne": lambda a, b: a != b,
        "lt": lambda a, b: a < b,  # type: ignore[operator]
        "le": lambda a, b: a <= b,  # type: ignore[operator]
        "gt": lambda a, b: a > b,  # type: ignore[operator]
        "ge": lambda a, b: a >= b,  # type: ignore[operator]
        "in": lambda a, b: a in b,  # type: ignore[operator]
        "not_in": lambda a, b: a not in b,  # type: ignore[operator]
    }
    return bool(relations[op](got, expected))


def stand_ins(names: list[str]) -> dict[str, type]:
    """A plain class for each class of the tests; two instances are equal where their fields are."""

    def equal(self: object, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    return {name: type(name, (), {"__eq__": equal, "__hash__": None}) for name in names}


def close(got: object, expected: object, tolerance: float) -> bool:
    """Equality where floats may differ by an absolute tolerance, or that relative to the expected value."""
    if isinstance(got, bool) or isinstance(expected, bool):
        return got == expected
    if isinstance(got, (int, float)) and isinstance(expected, (int, float)):
        if tolerance and (isinstance(got, float) or isinstance(expected, float)):
            return math.isclose(got, expected, rel_tol=tolerance, abs_tol=tolerance)
        return got == expected
    if isinstance(got, (list, tuple)) and isinstance(expected, (list, tuple)):
        return len(got) == len(expected) and all(close(a, b, tolerance) for a, b in zip(got, expected, strict=True))
    if isinstance(got, dict) and isinstance(expected, dict):
        return got.keys() == expected.keys() and all(close(got[key], expected[key], tolerance) for key in got)
    return got == expected


def same_output(got: str, expected: str, *, mode: str, tolerance: float) -> bool:
    """Whether printed output is the expected one.

    Args:
        mode: exact; lines (as many lines, each equal after trailing white space is dropped); tokens (the same words).
        tolerance: numbers may differ by it (absolute or relative); 0 compares text.
    """
    if bool(got.strip()) != bool(expected.strip()):
        return False
    if mode == "exact":
        return got == expected
    ours = [line.split() if tolerance else [line.rstrip()] for line in got.rstrip().split("\n")]
    theirs = [line.split() if tolerance else [line.rstrip()] for line in expected.rstrip().split("\n")]
    if mode == "tokens":
        ours, theirs = [got.split()], [expected.split()]
    if len(ours) != len(theirs):
        return False
    return all(
        len(a) == len(b) and all(_same_token(x, y, tolerance) for x, y in zip(a, b, strict=True))
        for a, b in zip(ours, theirs, strict=True)
    )


def _same_token(got: str, expected: str, tolerance: float) -> bool:
    if got == expected:
        return True
    if not tolerance:
        return False
    try:
        return math.isclose(float(got), float(expected), rel_tol=tolerance, abs_tol=tolerance)
    except ValueError:
        return False
