"""Columns of a row by name: a plain name, or a path of names and numbers joined by dots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeGuard

from verifiers.errors import VerifierError
from verifiers.suggest import did_you_mean

SHOWN = 8
"""Names that an error lists."""


class NoColumn(VerifierError, LookupError):
    """A row has no such column; the message says which part of the name leads nowhere, and what is there."""

    exit_code = 2


def column_of(row: Mapping[str, object], name: str) -> object:
    """The value of a column, which may be null.

    A column of exactly that name wins, dots or not. Otherwise each dot goes one level down: by key into an object, by
    number (from 0; negative: from the end) into a list; a key over a list of objects gives the list of their values.
    Text that holds JSON is text: no dot reaches into it.

    Raises:
        NoColumn: it is not there.

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
    """Whether a row has a column, by the rules of `column_of`."""
    return next(_reached(row, name), None) is not None


def _reached(value: object, path: str) -> Iterator[tuple[object]]:
    """Every value that a path may mean, the longest literal name first."""
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
    """Where a path ends, in words."""
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
        return f"is a list of {len(value)}; it takes a number from 0 to {len(value) - 1}." if value else "is empty."
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        return "is text that looks like JSON: no dot reaches into text. A format may read it (docs/data.md)."
    return f"is {'null' if value is None else type(value).__name__}, with nothing in it."


def _is_object(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, Mapping)


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list)


__all__ = ["NoColumn", "column_of", "has_column"]
