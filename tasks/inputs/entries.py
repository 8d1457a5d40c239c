"""Rows of one file or several: in order, by index, and with a description of the fault for each damaged row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import NamedTuple, Protocol, cast, overload

from tasks.base import TaskError
from tasks.inputs.spool import Spool

Row = Mapping[str, object]


class Entry(NamedTuple):
    """One row of a file, or a description of its fault."""

    number: int
    """Number of the row or line, from 1."""
    row: Row | None
    """None if the row is damaged."""
    fault: str = ""
    unit: str = "row"
    """Unit that the number counts: `line` in a file of JSON lines, `row` in others."""


class Source(Protocol):
    """The rows of one file."""

    path: str

    def entries(self) -> Iterator[Entry]:
        """Yield every entry, from the beginning, with only a few in memory at a time."""
        ...

    def count(self) -> int:
        """Return the number of entries."""
        ...

    def at(self, place: int) -> Entry:
        """Return the entry at an index from 0."""
        ...


class Rows(Sequence[Row]):
    """The rows of one split: a sequence that keeps none of them in memory.

    Iterating, or indexing, raises `TaskError` at a damaged row. `entries` yields damaged rows too, for callers that
    count them.
    """

    def __init__(self, sources: Sequence[Source], *, notes: Sequence[str] = ()) -> None:
        self._sources = sources
        self.notes = tuple(notes)
        """Remarks for the user on how the rows were found, as sentences."""

    @property
    def paths(self) -> list[str]:
        """The files, each once."""
        return list(dict.fromkeys(source.path for source in self._sources))

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Yield (file and number, entry) of every row, including damaged ones."""
        for source in self._sources:
            for entry in source.entries():
                yield f"{source.path} {entry.unit} {entry.number}", entry

    def __iter__(self) -> Iterator[Row]:
        for where, entry in self.entries():
            yield _whole(where, entry)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @cached_property
    def _ends(self) -> list[int]:
        ends, total = list[int](), 0
        for source in self._sources:
            total += source.count()
            ends.append(total)
        return ends

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self)) if not _is_head(place) else (0, cast("int", place.stop), 1)
            if (start, step) == (0, 1):
                return list(islice(self, stop))
            return [self[one] for one in range(start, stop, step)]
        if place == 0:
            first = next(iter(self), None)
            if first is not None:
                return first
        at = place if place >= 0 else place + len(self)
        begin = 0
        for source, end in zip(self._sources, self._ends, strict=True):
            if begin <= at < end:
                entry = source.at(at - begin)
                return _whole(f"{source.path} {entry.unit} {entry.number}", entry)
            begin = end
        raise IndexError(place)


def _is_head(place: slice) -> bool:
    return place.start in (None, 0) and place.step in (None, 1) and place.stop is not None and place.stop >= 0


def _whole(where: str, entry: Entry) -> Row:
    if entry.row is None:
        raise TaskError(f"{where} {entry.fault}")
    return entry.row


class Part:
    """Some consecutive entries of a source: indices from `start` up to but not including `stop`."""

    def __init__(self, source: Source, *, start: int, stop: int) -> None:
        self.path = source.path
        self._source, self._start, self._stop = source, start, stop

    def entries(self) -> Iterator[Entry]:
        return islice(self._source.entries(), self._start, self._stop)

    def count(self) -> int:
        return self._stop - self._start

    def at(self, place: int) -> Entry:
        return self._source.at(self._start + place)


class Text:
    """The entries of a text file, which can be read from its beginning only.

    The first access by index writes all entries to a temporary file, with eight bytes per row in memory.
    """

    def __init__(self, path: str, entries: Callable[[], Iterator[Entry]]) -> None:
        self.path, self.entries = path, entries
        self._counted: int | None = None

    def count(self) -> int:
        if self._counted is None:
            self._counted = len(self._spooled) if "_spooled" in vars(self) else sum(1 for _ in self.entries())
        return self._counted

    def at(self, place: int) -> Entry:
        return self._spooled[place]

    @cached_property
    def _spooled(self) -> Spool[Entry]:
        return Spool(self.entries())


__all__ = ["Entry", "Part", "Row", "Rows", "Source", "Text"]
