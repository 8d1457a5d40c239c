"""Records of the grading pool: the kind of a row, and a queued row with its result."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from heapq import heappop
from typing import NamedTuple

from verifiers.base import GradingRow, Verifier
from verifiers.compose import Composite
from verifiers.pool.worker_main import Needs
from verifiers.verdict import JSON, Outcome, Verdict, fixed

LOADING_FAILURES = 3
AGAIN_SECONDS = 30.0
"""Consecutive workers lost while loading one verifier before its rows fail at once, and for how many seconds."""


CHUNK_ROWS = 64
CHUNK_CHARACTERS = 4 << 20
CHUNK_SECONDS = 0.05
"""Most rows, characters and estimated seconds of work (by the last chunk's speed) of a chunk for one worker."""
ANY = 1 << 30
"""Concurrency of a verifier that sets none: all workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Limits of one row. Exceeding any but the last kills the worker."""

    wall_seconds: float | None = None
    """Wall-clock seconds; None: the verifier's `grade_seconds`."""
    cpu_seconds: float | None = None
    """CPU seconds; None: the same number as for the wall clock."""
    memory_bytes: int = 1 << 30
    """Resident memory of the worker, in bytes, if the verifier sets no `memory_bytes`."""
    completion_characters: int = 4 << 20
    """Characters; a longer completion becomes `limit_exceeded` without being graded."""


class GradingRequest(NamedTuple):
    """Row to grade, and the verifier that grades it."""

    verifier: str
    row: GradingRow
    options: Mapping[str, JSON] = {}


@dataclass(slots=True, eq=False, kw_only=True)
class Kind:
    """Verifier with its options, as seen by the pool: its name in workers, and the limits of one row."""

    name: str
    options: dict[str, JSON]
    target: str
    """Name under which a worker finds the verifier."""
    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int
    batch_rows: int
    concurrency: int
    in_process: Verifier | None = None
    """Verifier object, if it grades in the caller's process."""
    merges_equal: bool = False
    composed: Composite | None = None
    """Composed verifier whose parts are graded separately because one is graded in the caller's process."""
    check: bool = False
    """True: its rows are references to check."""
    isolated: bool = False
    """True: created in workers only. They report its limits; until then its class's limits apply."""
    size: int = 0
    """Number of characters of its options as JSON."""
    active: int = 0
    """Workers that are grading its rows."""
    lost_loading: int = 0
    """Consecutive workers lost while loading it."""
    lost_at: float = 0.0
    """Time when the last of them was lost (monotonic seconds)."""
    row_seconds: float | None = None
    """Seconds per row of the last chunk, without the start of a worker and imports; None: nothing was graded yet."""
    limits: PoolLimits | None = None
    version: str = "1"
    """The verifier's version here; a grading node must have the same."""
    near: bool = False
    """True: graded on this machine only."""
    here: Kind | None = None
    """The kind with `near` of the same rows, once there is one."""

    @property
    def given_up(self) -> bool:
        """True if loading failed LOADING_FAILURES times, the last time less than AGAIN_SECONDS ago."""
        return self.lost_loading >= LOADING_FAILURES and time.monotonic() - self.lost_at < AGAIN_SECONDS

    def learn(self, needs: Needs) -> None:
        """Replace the limits by those that a worker reports for the created verifier."""
        limits = self.limits or PoolLimits()
        self.wall_seconds = limits.wall_seconds or needs["grade_seconds"]
        self.cpu_seconds = limits.cpu_seconds or self.wall_seconds
        self.memory_bytes = needs["memory_bytes"] or limits.memory_bytes
        self.batch_rows = needs["batch_rows"]
        self.concurrency = needs["concurrency"] or ANY
        self.merges_equal = needs["merges_equal"]


@dataclass(slots=True, eq=False)
class Item:
    """Queued row with the future of its verdict."""

    kind: Kind
    row: GradingRow
    order: tuple[int, int] = (0, 0)
    """(Rank, number of arrival): the lowest is graded first."""
    alone: bool = False
    """True: graded in a batch of its own, because a worker was lost while grading its batch."""
    future: Future[Verdict] = field(default_factory=Future[Verdict])
    twins: list[Item] = field(default_factory=list["Item"])
    """Equal rows that get a copy of its verdict."""
    claimed: bool = False
    """True if it can no longer be cancelled."""

    def __lt__(self, other: Item) -> bool:
        return self.order < other.order

    @property
    def key(self) -> tuple[Kind, bytes]:
        """Key that is the same for equal rows of one kind."""
        row = self.row
        text = json.dumps([row.completion, row.reference, row.prompt, dict(row.info)])
        return self.kind, hashlib.sha256(text.encode()).digest()

    def claim(self) -> bool:
        """Mark the row as being graded; return False if it was cancelled meanwhile."""
        self.claimed = self.claimed or self.future.set_running_or_notify_cancel()
        return self.claimed

    def settle(self, verdict: Verdict) -> None:
        """Set the verdict, unless one is set or the row was cancelled."""
        if not self.future.done():
            with suppress(InvalidStateError):  # cancelled at this moment
                self.future.set_result(verdict)

    def refuse(self, error: Exception) -> None:
        """Set an error about the verifier's options as the exception of the future."""
        if not self.future.done():
            with suppress(InvalidStateError):
                self.future.set_exception(error)

    def fault(self, cause: str) -> None:
        """Set `verifier_error` as the verdict, with its cause."""
        self.settle(named(fixed(Outcome.VERIFIER_ERROR, cause), self.kind.name))


def named(verdict: Verdict, name: str) -> Verdict:
    """Return the verdict with the name of a verifier that did not create it itself."""
    return replace(verdict, verifier=name)


def worth(kind: Kind, *, seconds: float = CHUNK_SECONDS) -> int:
    """Return how many rows a worker gets at once: about so many seconds of work, or 1 while the speed is unknown."""
    if kind.row_seconds is None:
        return 1
    return int(min(CHUNK_ROWS, seconds / max(kind.row_seconds, 1e-9)))


def pop_chunk(queue: list[Item], most: int) -> list[Item]:
    """Remove the next rows of a queue: at least one, whole batches, at most CHUNK_CHARACTERS."""
    batch = max(1, queue[0].kind.batch_rows)
    wanted = max(batch, most // batch * batch)
    rows: list[Item] = []
    characters = 0
    while queue and len(rows) < wanted and (not rows or characters < CHUNK_CHARACTERS):
        item = heappop(queue)
        if item.claim():
            rows.append(item)
            characters += len(item.row.completion)
    return rows


CLOSED = "the grading pool was closed before this row was graded"
