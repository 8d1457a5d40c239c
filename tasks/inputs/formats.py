"""Formats by name: how widely used data sets lay out a problem, a demonstration or a preference, and how to read them.

One table: each `Format` has its use, how its rows are recognised, and how they become our own columns. A module listed
in PROVIDERS adds its formats: a sequence named FORMATS.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    "tasks.inputs.rubric_formats",
    "tasks.inputs.problem_formats",
    "tasks.inputs.demonstration_formats",
    "tasks.inputs.preference_formats",
    "tasks.inputs.unpaired_formats",
)
"""Modules with a sequence FORMATS, in the order in which rows are compared with them."""
LOOKED_AT = 50
"""Number of first rows by which a format is recognised."""
SHARE = 0.5
"""More than this share of them must fit, so that a few damaged rows do not hide the format of the others."""


class UnfitRow(ValueError):
    """An error for a row that does not fit its format; the message says what it lacks."""


class NothingToGrade(UnfitRow):
    """An error for a row that fits its format but cannot be graded (no tests, interactive): it is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One layout of rows for one use."""

    name: str
    use: Use
    told_by: str
    """Description of how its rows are recognised."""
    fits: Callable[[Row], bool]
    """True if a row has this layout."""
    read: Callable[[Row], Row]
    """Returns the row in our own columns: {prompt, reference}, {messages} or {prompt, completion}, {prompt, chosen,
    rejected} or {prompt, first, second, label}, or {prompt, completion, label}. Raises `UnfitRow`.
    """
    example: Row
    source: str
    """URL of its description or of a data set that uses it."""
    verifier: str | None = None
    """For problems: name of the usual verifier."""
    verifier_options: Mapping[str, object] = field(default_factory=dict[str, object])
    """Options of that verifier that have no default; placeholders for the user to fill in."""
    by_itself: bool = True
    """True if recognised when no format and no column is named; False: used only by name, since other rows look the
    same.
    """
    gather: Callable[[Iterable[tuple[str, Row]]], Iterator[tuple[str, Row]]] | None = None
    """Combines several rows into one that `read` takes, if one row alone is not enough: (where, row) in, (where, row)
    out. A row without a partner comes out as {"unfit": why}.
    """


class Recognised(NamedTuple):
    """The format recognised from the first rows."""

    format: Format
    fitting: int
    """Number of the examined rows that fit it."""
    looked_at: int

    @property
    def said(self) -> str:
        """A sentence about the recognised format; "" if rows are in our own columns already."""
        if self.format.read is as_it_is and self.format.gather is None:
            return ""
        return (
            f"read as format {self.format.name} ({self.format.told_by}); name another format, or the columns, to read"
            " it otherwise."
        )


def as_it_is(row: Row) -> Row:
    """Return a row unchanged: it is in our own columns already."""
    return row


@cache
def formats(use: Use | None = None) -> tuple[Format, ...]:
    """Return all formats, or those of one use, in the order in which rows are compared with them."""
    found: list[Format] = []
    for module in PROVIDERS:
        found += cast("Sequence[Format]", import_module(module).FORMATS)
    return tuple(one for one in found if use in (None, one.use))


def format_named(name: str, use: Use) -> Format:
    """Return the format of a name for a use.

    Raises:
        TaskError: there is none; suggests the closest name, or says for which use the format is.
    """
    found = next((one for one in formats(use) if one.name == name), None)
    if found is not None:
        return found
    other = sorted({one.use for one in formats() if one.name == name})
    names = sorted({one.name for one in formats(use)})
    what = f"format {name!r} is one of {' and '.join(other)}, not of {use}." if other else f"no format named {name!r}."
    raise TaskError(f"{what}{did_you_mean(name, names)} Formats of {use}: {', '.join(names)} (docs/data.md).")


def recognise(rows: Iterable[Row], *, use: Use) -> Recognised | None:
    """Return the first format of the table that most of the first rows fit; None if there is none.

    Args:
        rows: only the first LOOKED_AT are examined.
        use: problems, demonstrations, preferences or unpaired.
    """
    seen = list(islice(rows, LOOKED_AT))
    for one in formats(use):
        fitting = sum(one.fits(row) for row in seen) if one.by_itself else 0
        if fitting > SHARE * len(seen):
            return Recognised(one, fitting, len(seen))
    return None


class Reading(NamedTuple):
    """How to convert rows to our own columns: by a format, by named columns, or both."""

    format: Format | None
    columns: Mapping[str, str]
    """Our column -> their column, which may be dotted; these take precedence over the format."""
    optional: frozenset[str] = frozenset()
    """Our columns that a row may lack."""

    def read(self, row: Row) -> Row:
        """Return the row in our own columns.

        Raises:
            UnfitRow: it does not fit the format, or lacks a column.
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
        """Yield (where, row in our own columns, or the error that explains why not) for each (where, row)."""
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
    """Choose how to read rows, and return it with a sentence for the user ("" for none).

    A named format is used. A format is recognised only if no format and no column is named.

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
    """Return the table of docs/data.md for one use: name, how it is recognised, an example row."""
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
