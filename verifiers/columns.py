"""Columns of a row, by a plain name or by a dotted path of names and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeGuard

from verifiers.errors import VerifierError
from verifiers.suggest import did_you_mean

SHOWN = 8
"""Most column names that an error lists."""


class NoColumn(VerifierError, LookupError):
    """The row has no such column. The message says which part of the path failed and which names exist there."""

    exit_code = 2


def column_of(row: Mapping[str, object], name: str) -> object:
    """Return the value of a column, which may be None.

    A column with exactly this name wins, even if the name contains dots. Otherwise each dot goes one level down: by key
    into an object, by number into a list (from 0; negative numbers count from the end). A key applied to a list of
    objects gives the list of their values. Text that contains JSON is not parsed.

    Raises:
        NoColumn: there is no such column.

    Example:
        >>> row = {"a.b": 1, "a": {"b": 2, "c": [{"d": 3}, {"d": 4}]}}
        >>> column_of(row, "a.b"), column_of(row, "a.c.0.d"), column_of(row, "a.c.d")
        (1, 3, [3, 4])
    """
    found = next(_reached(row, name), None)
    if found is None:
        raise NoColumn(_absence(row, name))
    return found[0]


def has_column(row: Mapping[str, object], name: str) -> bool:
    """Return True if a row has a column, by the rules of `column_of`."""
    return next(_reached(row, name), None) is not None


def _reached(value: object, path: str) -> Iterator[tuple[object]]:
    """Yield every value that a path may refer to, the longest literal name first, each in a 1-tuple."""
    if _is_object(value):
        if path in value:
            yield (value[path],)
        cuts = [at for at, char in enumerate(path) if char == "."]
        for at in reversed(cuts):
            if path[:at] in value:
                yield from _reached(value[path[:at]], path[at + 1 :])
        return
    if not _is_list(value):
        return
    head, dot, rest = path.partition(".")
    if head.removeprefix("-").isdecimal():
        place = int(head) if len(head) < 10 else len(value)
        if -len(value) <= place < len(value):
            if dot:
                yield from _reached(value[place], rest)
            else:
                yield (value[place],)
        return
    if value and all(_is_object(one) for one in value):
        each = [next(_reached(one, path), None) for one in value]
        if all(one is not None for one in each):
            yield ([one[0] for one in each if one is not None],)


def _absence(row: Mapping[str, object], name: str) -> str:
    """Return the error text: the part of the path that failed, and the names that exist there."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        parent = ".".join(parts[:length])
        found = next(_reached(row, parent), None)
        if found is not None:
            return f"has no column {name!r}: {parent!r} {_inside(found[0], parts[length])}"
    names = [str(key) for key in row]
    listed = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"has no column {name!r}. It has: {listed or 'none'}.{did_you_mean(name, names)}"


def _inside(value: object, wanted: str) -> str:
    if _is_object(value):
        names = [str(key) for key in value]
        return f"has {', '.join(names[:SHOWN]) or 'nothing'} in it.{did_you_mean(wanted, names)}"
    if _is_list(value):
        return f"is a list of {len(value)}; its keys are the numbers 0 to {len(value) - 1}." if value else "is empty."
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        return "is text that looks like JSON, and paths do not reach into text. A format may parse it (docs/data.md)."
    return f"is {'null' if value is None else type(value).__name__} and contains no columns."


def _is_object(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, Mapping)


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list)


__all__ = ["NoColumn", "column_of", "has_column"]
