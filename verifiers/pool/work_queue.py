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
"""Workers lost in a row while they loaded one verifier, after which its rows are given up at once, and for how long."""


CHUNK_ROWS = 64
CHUNK_CHARACTERS = 4 << 20
CHUNK_SECONDS = 0.05
"""Rows, characters and seconds of work (by the last chunk's speed) that a worker is given at once."""
ANY = 1 << 30
"""Concurrency of a verifier that sets none: all workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Limits of grading one row; all but the last kill the worker."""

    wall_seconds: float | None = None
    """None: the verifier's own `grade_seconds`."""
    cpu_seconds: float | None = None
    """None: as many as wall-clock seconds."""
    memory_bytes: int = 1 << 30
    """Resident memory of the worker, where the verifier has no `memory_bytes` of its own."""
    completion_characters: int = 4 << 20
    """A longer completion is `limit_exceeded` without being graded."""


class GradingRequest(NamedTuple):
    """One row and the verifier that grades it."""

    verifier: str
    row: GradingRow
    options: Mapping[str, JSON] = {}


@dataclass(slots=True, eq=False, kw_only=True)
class Kind:
    """A verifier with its options, as the pool sees it: how it is reached, and the limits of one of its rows."""

    name: str
    options: dict[str, JSON]
    target: str
    """The name by which a worker finds it."""
    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int
    batch_rows: int
    concurrency: int
    in_process: Verifier | None = None
    """The verifier itself, if it grades in the caller's process."""
    merges_equal: bool = False
    composed: Composite | None = None
    """Its parts are graded apart, because one of them is graded in the caller's process."""
    check: bool = False
    """Its rows are golds that are to be checked."""
    isolated: bool = False
    """Made in workers alone, which say what it needs; until then it has its class's needs."""
    size: int = 0
    """Characters of its options as JSON."""
    active: int = 0
    """Workers that are grading with it."""
    lost_loading: int = 0
    """Workers lost in a row while they loaded it."""
    lost_at: float = 0.0
    """When the last of them was (monotonic seconds)."""
    row_seconds: float | None = None
    """Seconds for each row of the last chunk, without starting a worker and importing; None: nothing is graded yet."""
    limits: PoolLimits | None = None

    @property
    def given_up(self) -> bool:
        """Whether it could not be loaded, again and again, a short while ago."""
        return self.lost_loading >= LOADING_FAILURES and time.monotonic() - self.lost_at < AGAIN_SECONDS

    def learn(self, needs: Needs) -> None:
        """Take over what a worker says that the verifier needs."""
        limits = self.limits or PoolLimits()
        self.wall_seconds = limits.wall_seconds or needs["grade_seconds"]
        self.cpu_seconds = limits.cpu_seconds or self.wall_seconds
        self.memory_bytes = needs["memory_bytes"] or limits.memory_bytes
        self.batch_rows = needs["batch_rows"]
        self.concurrency = needs["concurrency"] or ANY
        self.merges_equal = needs["merges_equal"]


@dataclass(slots=True, eq=False)
class Item:
    """A row on its way through the pool."""

    kind: Kind
    row: GradingRow
    order: tuple[int, int] = (0, 0)
    """Rank and arrival: the lowest is graded first."""
    alone: bool = False
    """True: graded in a batch of its own, because a worker was lost in the batch that held it."""
    future: Future[Verdict] = field(default_factory=Future[Verdict])
    twins: list[Item] = field(default_factory=list["Item"])
    """Rows equal to this one that wait for its verdict."""
    claimed: bool = False
    """True once it cannot be cancelled any more."""

    def __lt__(self, other: Item) -> bool:
        return self.order < other.order

    @property
    def key(self) -> tuple[Kind, bytes]:
        """Key that equal rows of one kind share."""
        row = self.row
        text = json.dumps([row.completion, row.reference, row.prompt, dict(row.info)])
        return self.kind, hashlib.sha256(text.encode()).digest()

    def claim(self) -> bool:
        """Take the row for grading; False where it was cancelled meanwhile."""
        self.claimed = self.claimed or self.future.set_running_or_notify_cancel()
        return self.claimed

    def settle(self, verdict: Verdict) -> None:
        """Set the verdict, unless it is set or not wanted any more."""
        if not self.future.done():
            with suppress(InvalidStateError):  # cancelled in this moment
                self.future.set_result(verdict)

    def refuse(self, error: Exception) -> None:
        """Set what the verifier says of its options."""
        if not self.future.done():
            with suppress(InvalidStateError):
                self.future.set_exception(error)

    def fault(self, cause: str) -> None:
        """Set `verifier_error` as the verdict, with its cause."""
        self.settle(named(fixed(Outcome.VERIFIER_ERROR, cause), self.kind.name))


def named(verdict: Verdict, name: str) -> Verdict:
    """Return the verdict under the name of a verifier that did not give it itself."""
    return replace(verdict, verifier=name)


def worth(kind: Kind) -> int:
    """Rows that a worker is given at once: of a kind that nothing is known of, one batch."""
    if kind.row_seconds is None:
        return 1
    return int(CHUNK_SECONDS / max(kind.row_seconds, CHUNK_SECONDS / CHUNK_ROWS))


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
