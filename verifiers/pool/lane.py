"""Interface of what grades chunks of rows for the pool: a worker process here, or a connection to a grading node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from verifiers.pool.work_queue import Item, Kind


class Lane(Protocol):
    """One place that grades a chunk at a time; the pool runs each lane in a thread of its own."""

    idle: bool
    kind: Kind | None
    """Kind of the rows being graded."""
    since: float
    """Time when grading them began (monotonic seconds)."""

    def grade(self, chunk: Sequence[Item]) -> list[Item]:
        """Grade rows of one kind; return those that still have to be graded."""
        ...

    def row_seconds(self, rows: int) -> float | None:
        """Return the seconds per row of the chunk just graded; None: not measured."""
        ...

    def stop(self) -> None:
        """Stop for good, from any thread."""
        ...


class NodeLane(Lane, Protocol):
    """A lane on another machine: it may be out of reach, and takes only what that machine grades as this one does."""

    def start(self) -> None:
        """Begin to look for the node."""
        ...

    def takes(self, kind: Kind) -> bool:
        """Return True if the node can be reached and rows of this kind may be sent to it."""
        ...
