"""Formats by name: how data sets in wide use lay out a problem, a demonstration or a preference, and how it is read.

One table: each `Format` says what it is for, how a row of it is told, and what our own columns are in it. A module
adds its own formats by being named in PROVIDERS: it holds FORMATS, a sequence of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import islice
from typing import NamedTuple, cast, get_args

from tasks.base import TaskError
from tasks.inputs.names import Use
from verifiers.columns import NoColumn, column_of
from verifiers.suggest import did_you_mean

Row = Mapping[str, object]
PROVIDERS = (
    "tasks.code_sets.formats",
    "tasks.inputs.instruction_formats",
    "tasks.inputs.problem_formats",
    "tasks.inputs.demonstration_formats",
    "tasks.inputs.preference_formats",
)
"""Modules that hold FORMATS, in the order in which rows are compared with them."""
LOOKED_AT = 50
"""First rows that a format is recognised by."""
SHARE = 0.5
"""More than this share of them must fit: a few damaged rows do not hide what the others are."""


class UnfitRow(ValueError):
    """A row is not of its format; the message says what it lacks."""


class NothingToGrade(UnfitRow):
    """A row is of its format, and cannot be graded by it (it has no tests, it is interactive): it is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way in which rows of one use are laid out."""

    name: str
    use: Use
    told_by: str
    """How a row of it is told, in words."""
    fits: Callable[[Row], bool]
    """Whether a row is laid out so."""
    read: Callable[[Row], Row]
    """The row in our own columns: {prompt, reference}, {messages} or {prompt, completion}, {prompt, chosen, rejected}
    or {prompt, first, second, label}. Raises `UnfitRow`."""
    example: Row
    source: str
    """URL of where it is described or used."""
    verifier: str | None = None
    """Of problems: what usually grades them."""
    by_itself: bool = True
    """Recognised where no format and no column is named; False: only by name, since other rows look the same."""
    gather: Callable[[Iterable[tuple[str, Row]]], Iterator[tuple[str, Row]]] | None = None
    """Makes rows of `read` out of several, where one says too little: (where, row) in, (where, row) out. A row that
    finds no other comes out as {"unfit": why}."""


class Recognised(NamedTuple):
    """The format that rows are in."""

    format: Format
    fitting: int
    """Rows that fit it, of those looked at."""
    looked_at: int

    @property
    def said(self) -> str:
        """What was recognised, in a sentence; "" where rows are in our own columns already."""
        if self.format.read is as_it_is and self.format.gather is None:
            return ""
        return (
            f"read as format {self.format.name} ({self.format.told_by}); name another format, or the columns, to read"
            " it otherwise."
        )


def as_it_is(row: Row) -> Row:
    """A row that is in our own columns already."""
    return row


@cache
def formats(use: Use | None = None) -> tuple[Format, ...]:
    """Every format, or those of one use, in the order in which rows are compared with them."""
    found: list[Format] = []
    for module in PROVIDERS:
        found += cast("Sequence[Format]", import_module(module).FORMATS)
    return tuple(one for one in found if use in (None, one.use))


def format_named(name: str, use: Use) -> Format:
    """The format of a name, for a use.

    Raises:
        TaskError: there is none; suggests the closest, or says what the format is for.
    """
    found = next((one for one in formats(use) if one.name == name), None)
    if found is not None:
        return found
    other = sorted({one.use for one in formats() if one.name == name})
    names = sorted({one.name for one in formats(use)})
    what = f"format {name!r} is one of {' and '.join(other)}, not of {use}." if other else f"no format named {name!r}."
    raise TaskError(f"{what}{did_you_mean(name, names)} Formats of {use}: {', '.join(names)} (docs/data.md).")


def recognise(rows: Iterable[Row], *, use: Use) -> Recognised | None:
    """The first format of the table that most of the first rows fit; None where none does.

    Args:
        rows: only the first LOOKED_AT are looked at.
        use: what they are for.
    """
    seen = list(islice(rows, LOOKED_AT))
    for one in formats(use):
        fitting = sum(one.fits(row) for row in seen) if one.by_itself else 0
        if fitting > SHARE * len(seen):
            return Recognised(one, fitting, len(seen))
    return None


class Reading(NamedTuple):
    """How rows become rows in our own columns: by a format, by named columns, or both."""

    format: Format | None
    columns: Mapping[str, str]
    """Our column to theirs, which may be dotted; these win over the format."""
    optional: frozenset[str] = frozenset()
    """Columns of ours that a row may lack."""

    def read(self, row: Row) -> Row:
        """A row in our own columns.

        Raises:
            UnfitRow: it is not of the format, or lacks a column.
        """
        named: dict[str, object] = {}
        for ours, theirs in self.columns.items():
            try:
                named[ours] = column_of(row, theirs)
            except NoColumn as error:
                if ours not in self.optional:
                    raise UnfitRow(str(error)) from error
        if self.format is None:
            return {**row, **named}
        return {**self.format.read({**row, **named}), **named}

    def read_all(self, rows: Iterable[tuple[str, Row]]) -> Iterator[tuple[str, Row | UnfitRow]]:
        """(where, row in our own columns or why it is none) of every (where, row)."""
        gather = self.format.gather if self.format else None
        for where, row in gather(rows) if gather else rows:
            try:
                if gather and "unfit" in row:
                    raise UnfitRow(str(row["unfit"]))
                yield where, self.read(row)
            except UnfitRow as error:
                yield where, error


def reading(
    rows: Iterable[Row],
    *,
    use: Use,
    format: str | None,
    columns: Mapping[str, str],
    optional: Iterable[str] = (),
) -> tuple[Reading, str]:
    """How to read rows, and what is to be said of it ("" for nothing).

    A format that is named is taken; one is recognised only where neither it nor a column is named.

    Raises:
        TaskError: there is no such format.
    """
    if format is not None:
        return Reading(format_named(format, use), columns, frozenset(optional)), ""
    found = None if columns else recognise(rows, use=use)
    if found is None:
        return Reading(None, columns, frozenset(optional)), ""
    return Reading(found.format, {}), found.said


def table(use: Use) -> str:
    """The formats of a use as a table of docs/data.md: name, how it is told, an example row, where it is described."""
    rows = ["| format | recognised by | an example row |", "| --- | --- | --- |"]
    for one in formats(use):
        name = f"[{one.name}]({one.source})" if one.source.startswith("https://") else one.name
        told = one.told_by if one.by_itself else f"{one.told_by} (only where it is named)"
        example = json.dumps(one.example, ensure_ascii=False).replace("|", "\\|")
        rows.append(f"| {name} | {told} | `{example}` |")
    return "\n".join(rows)


__all__ = [
    "Format",
    "NothingToGrade",
    "Reading",
    "Recognised",
    "UnfitRow",
    "Use",
    "as_it_is",
    "format_named",
    "formats",
    "reading",
    "recognise",
    "table",
]

if __name__ == "__main__":
    for each in get_args(Use):
        print(f"### {each.capitalize()}\n\n{table(each)}\n")
