"""Sequences whose items are stored in a temporary file and read on access, limited only by disk space."""

from __future__ import annotations

import os
import pickle
import tempfile
import weakref
from abc import abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import IO, TypeVar, cast, overload

from tasks.base import TaskError

Item = TypeVar("Item")


class Lazy(Sequence[Item]):
    """A sequence that makes an item on access; a slice of it is lazy too."""

    @abstractmethod
    def item(self, place: int) -> Item:
        """Return the item at an index from 0."""

    def __iter__(self) -> Iterator[Item]:
        return map(self.item, range(len(self)))

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | Sequence[Item]:
        places = range(len(self))[place]  # raises IndexError
        return self.item(places) if isinstance(places, int) else Picked(self, places)


class Spool(Lazy[Item]):
    """A lazy sequence of items appended one by one to a temporary file, with eight bytes per item in memory.

    The file has no name, so nobody else can write to it, and it is gone when this process ends or the spool is dropped.
    Reads do not move the file position, so several threads may read.

    Args:
        items: the first items.

    Raises:
        TaskError: there is no room for them.

    Example:
        >>> rows = Spool([{"a": 1}, {"a": 2}])
        >>> rows[1], len(rows[:1])
        ({'a': 2}, 1)
    """

    def __init__(self, items: Iterable[Item] = ()) -> None:
        try:
            self._file = cast("IO[bytes]", tempfile.TemporaryFile(prefix="reasoner-rows-"))
        except OSError as error:
            raise _no_room(error) from error
        weakref.finalize(self, self._file.close)
        self._ends = array("Q", [0])
        self._written = 0
        for item in items:
            self.append(item)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, item: Item) -> None:
        """Add an item at the end."""
        data = pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            self._file.write(data)
        except OSError as error:
            raise _no_room(error) from error
        self._ends.append(self._ends[-1] + len(data))

    def item(self, place: int) -> Item:
        begin, end = self._ends[place], self._ends[place + 1]
        if end > self._written:
            try:
                self._file.flush()
            except OSError as error:
                raise _no_room(error) from error
            self._written = self._ends[-1]
        return pickle.loads(os.pread(self._file.fileno(), end - begin, begin))


class Picked(Lazy[Item]):
    """Some items of a sequence.

    Args:
        source: the sequence.
        places: indices of the items in it, in the order wanted.
    """

    def __init__(self, source: Sequence[Item], places: Iterable[int]) -> None:
        self._source = source
        self._places = places if isinstance(places, range) else array("Q", places)

    def __len__(self) -> int:
        return len(self._places)

    def item(self, place: int) -> Item:
        return self._source[self._places[place]]


class Joined(Lazy[Item]):
    """The items of several sequences, concatenated."""

    def __init__(self, parts: Iterable[Sequence[Item]]) -> None:
        self._parts = [*parts]
        self._begins = [0, *accumulate(map(len, self._parts))]

    def __len__(self) -> int:
        return self._begins[-1]

    def item(self, place: int) -> Item:
        part = bisect_right(self._begins, place) - 1
        return self._parts[part][place - self._begins[part]]


def _no_room(error: OSError) -> TaskError:
    return TaskError(
        f"the folder for temporary files must have room for the rows; got {error.strerror!r}. Set TMPDIR to another."
    )


__all__ = ["Joined", "Lazy", "Picked", "Spool"]
