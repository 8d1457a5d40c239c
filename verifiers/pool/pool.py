"""Grades in worker processes that can always be killed: one bad row costs itself and nothing else.

A worker is a process of our own (`verifiers.pool.worker_main`), never a fork of the caller: it holds no torch and no
lock of the caller's. It is killed by wall clock, CPU seconds and resident memory, measured from outside, and replaced
(`verifiers.pool.worker_process`). Verifiers with `in_process = True` are called in batches in the caller's process
instead (`verifiers.pool.in_process`).
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import NamedTuple, Self

from verifiers.base import GradingRow, Verifier
from verifiers.compose import Composite
from verifiers.errors import BadReference
from verifiers.pool.in_process import InProcessQueue
from verifiers.pool.work_queue import CLOSED, LOADING_FAILURES, GradingRequest, Item, Kind, named
from verifiers.pool.worker_process import WorkerProcess
from verifiers.registry import get_verifier, importable_target
from verifiers.verdict import JSON, Outcome, Verdict, fixed

CHUNK_ROWS = 64
CHUNK_CHARACTERS = 4 << 20
CHUNK_SECONDS = 0.05
"""Rows, characters and seconds of work (by the last chunk's speed) that a worker is given at once."""


KINDS = 1000
"""Verifiers with their options that the pool keeps; rows may each bring options of their own."""


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


class PoolState(NamedTuple):
    """Counts of the rows and workers of a pool."""

    waiting: int
    workers: int
    """Worker processes that are alive."""
    grading: int
    """Workers that have rows."""


class GradingPool:
    """Submit rows from any thread or event loop; get futures of verdicts.

    Starts nothing until the first row, and leaves nothing behind: workers die with their owner, however it dies.

    Example:
        >>> with GradingPool(workers=2) as pool:                                        # doctest: +SKIP
        ...     future = pool.submit("math", {}, GradingRow(completion="4", reference="4"))
        ...     future.result().reward
        1.0
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        limits: PoolLimits | None = None,
        max_pending: int = 20_000,
        context: object = None,
    ) -> None:
        """`context`: for the verifiers of this process, as their `context`."""
        if workers < 1:
            raise ValueError(f"workers must be >= 1; got {workers}. One worker already overlaps with generation.")
        self._workers = workers
        self._limits = limits or PoolLimits()
        self._max_pending, self._context = max_pending, context
        self._queues: dict[Kind, list[Item]] = {}
        """Rows that wait, by kind, as heaps; the kind that was served last stands last."""
        self._arrivals = itertools.count()
        self._waiting = 0
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._processes: list[WorkerProcess] = []
        self._kinds: dict[str, Kind] = {}
        self._making = threading.Lock()
        self._in_process: dict[Kind, InProcessQueue] = {}
        self._first: dict[tuple[Kind, bytes], Item] = {}
        """The row that will be graded, of rows that are equal and not graded yet."""
        self._closed = False

    def start(self) -> None:
        """Start a first worker at once, to be ready by the time of the first row."""
        with self._changed:
            if not self._processes and not self._closed:
                self._add_worker().spawn(self._limits.memory_bytes)

    def submit(self, verifier: str, options: Mapping[str, JSON], row: GradingRow, *, rank: int = 0) -> Future[Verdict]:
        """Queue one row; blocks while `max_pending` rows wait (back-pressure).

        The future never raises for grading: it resolves to a verdict, `verifier_error` where the verifier failed.

        Args:
            verifier: its name.
            options: of the verifier.
            row: what it is given.
            rank: of rows that wait for one verifier those of the lowest rank come first, then those that wait longest.

        Raises:
            UnknownVerifier, BadOption: at once, for a verifier that cannot be made.
            RuntimeError: the pool is closed.
        """
        kind = self._kind(verifier, options)
        item = Item(kind, row, order=(rank, next(self._arrivals)))
        if len(row.completion) > self._limits.completion_characters:
            item.settle(named(_too_long(len(row.completion), self._limits.completion_characters), verifier))
            return item.future
        if kind.composed is not None:
            return self._submit_parts(kind.composed, item)
        with self._changed:
            while self._waiting >= self._max_pending and not self._closed:
                self._changed.wait()
            if self._closed:
                raise RuntimeError("the grading pool is closed; open another one.")
            self._enqueue(item)
        return item.future

    def grade(self, requests: Iterable[GradingRequest]) -> Iterator[Verdict]:
        """Verdicts in the order of the requests; reads ahead by at most `max_pending`."""
        waiting: deque[Future[Verdict]] = deque()
        for request in requests:
            waiting.append(self.submit(request.verifier, request.options, request.row))
            while waiting and (waiting[0].done() or len(waiting) >= self._max_pending):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    async def grade_async(self, request: GradingRequest) -> Verdict:
        """One verdict, from a coroutine of any event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        future = await loop.run_in_executor(None, self.submit, request.verifier, request.options, request.row)
        return await asyncio.wrap_future(future)

    def state(self) -> PoolState:
        """Rows that wait, workers alive, workers at work."""
        with self._changed:
            return PoolState(
                self._waiting,
                sum(worker.alive for worker in self._processes),
                sum(not worker.idle for worker in self._processes),
            )

    def close(self) -> None:
        """Kill every worker; rows still waiting become `verifier_error`. Idempotent."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            waiting = [item for queue in self._queues.values() for item in queue]
            self._queues.clear()
            self._waiting = 0
            self._changed.notify_all()
        for worker in self._processes:
            worker.stop()
        for queue in self._in_process.values():
            queue.close()
        for item in waiting:
            item.fault(CLOSED)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _kind(self, name: str, options: Mapping[str, JSON]) -> Kind:
        key = json.dumps([name, dict(options)], sort_keys=True) if options else name
        found = self._kinds.get(key)
        if found is not None:
            return found
        with self._making:
            if key not in self._kinds:
                if len(self._kinds) >= KINDS:
                    oldest = next((old for old, kind in self._kinds.items() if kind.in_process is None), None)
                    self._kinds.pop(oldest or "", None)
                self._kinds[key] = self._make(name, dict(options))
            return self._kinds[key]

    def _make(self, name: str, options: dict[str, JSON]) -> Kind:
        made = get_verifier(name, **options)
        if made.in_process:
            made.context = self._context
        limits = self._limits
        wall = limits.wall_seconds or made.grade_seconds
        return Kind(
            name=name,
            options=options,
            target=importable_target(name),
            wall_seconds=wall,
            cpu_seconds=limits.cpu_seconds or wall,
            memory_bytes=made.memory_bytes or limits.memory_bytes,
            batch_rows=made.batch_rows,
            concurrency=made.concurrency or (1 if made.in_process else self._workers),
            merges_equal=made.merges_equal,
            in_process=made if made.in_process else None,
            composed=_composed(made),
        )

    def _enqueue(self, item: Item) -> None:
        """Put a row where it is graded, or beside an equal one that is there already. Called with the lock held."""
        kind = item.kind
        if kind.in_process is not None:
            if kind not in self._in_process:
                self._in_process[kind] = InProcessQueue(kind)
            return self._in_process[kind].put(item)
        if kind.lost_loading >= LOADING_FAILURES:
            lost = f"{kind.lost_loading} workers in a row were lost while loading it"
            return item.fault(f"{kind.name} was given up: {lost}")
        if kind.merges_equal:
            key = item.key
            if key in self._first:
                return self._first[key].twins.append(item)
            self._first[key] = item
            item.future.add_done_callback(lambda _: self._settle_twins(key))
        heappush(self._queues.setdefault(kind, []), item)
        self._waiting += 1
        self._start_workers()
        self._changed.notify_all()

    def _settle_twins(self, key: tuple[Kind, bytes]) -> None:
        """Give the verdict of a row to those equal to it; a fault is its own, and the next of them is graded."""
        with self._changed:
            first = self._first.pop(key)
        verdict = first.future.result()
        if verdict.outcome is not Outcome.VERIFIER_ERROR:
            for twin in first.twins:
                twin.settle(replace(verdict, seconds=0.0))
            return
        for twin in first.twins:
            with self._changed:
                if not self._closed:
                    self._enqueue(twin)
                    continue
            twin.fault(CLOSED)

    def _submit_parts(self, composed: Composite, item: Item) -> Future[Verdict]:
        """Each part as a row of its own, so that each has its own limits; the last verdict to come combines them."""
        try:
            parts = composed.parts_of(item.row)
        except BadReference as error:
            item.settle(named(fixed(Outcome.BAD_REFERENCE, str(error)), item.kind.name))
            return item.future
        rank, _ = item.order
        futures = [self.submit(p.verifier, p.options, p.row_of(item.row), rank=rank) for p in parts]
        left = len(futures)
        lock = threading.Lock()

        def one_done(_: Future[Verdict]) -> None:
            nonlocal left
            with lock:
                left -= 1
                if left:
                    return
            try:
                verdicts = {part.name: future.result() for part, future in zip(parts, futures, strict=True)}
                item.settle(named(composed.combine_row(item.row, verdicts), item.kind.name))
            except Exception as error:  # the boundary: a callback's exception would be lost, and the row with it
                item.fault(f"{type(error).__name__}: {error}")

        for future in futures:
            future.add_done_callback(one_done)
        return item.future

    def _start_workers(self) -> None:
        """Start one more worker if rows outnumber the idle ones. Called with the lock held."""
        wanted = min(self._workers, self._waiting)
        while len(self._processes) < self._workers and sum(worker.idle for worker in self._processes) < wanted:
            self._add_worker()

    def _add_worker(self) -> WorkerProcess:
        worker = WorkerProcess()
        self._processes.append(worker)
        name = f"grading-{len(self._processes)}"
        thread = threading.Thread(target=self._run_worker, args=(worker,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return worker

    def _run_worker(self, worker: WorkerProcess) -> None:
        try:
            while chunk := self._next_chunk(worker):
                kind, started = chunk[0].kind, time.monotonic()
                unread = worker.grade(chunk)
                kind.row_seconds = (time.monotonic() - started) / len(chunk)
                for item in self._put_back(worker, kind, unread):
                    item.fault(
                        CLOSED if self._closed else f"{item.kind.name} was given up: it cannot be loaded in a worker"
                    )
        finally:
            worker.stop()

    def _put_back(self, worker: WorkerProcess, kind: Kind, unread: list[Item]) -> list[Item]:
        """Queue rows that a lost worker left, at their place; returns those that are given up."""
        with self._changed:
            worker.idle = True
            kind.active -= 1
            given_up: list[Item] = []
            if self._closed:
                given_up = unread
            elif kind.lost_loading >= LOADING_FAILURES:
                queue = self._queues.pop(kind, [])
                self._waiting -= len(queue)
                given_up = [*unread, *queue]
            elif unread:
                for item in unread:
                    heappush(self._queues.setdefault(kind, []), item)
                self._waiting += len(unread)
            self._changed.notify_all()
            return given_up

    def _next_chunk(self, worker: WorkerProcess) -> list[Item]:
        with self._changed:
            kind = self._next_kind()
            while kind is None and not self._closed:
                self._changed.wait()
                kind = self._next_kind()
            if kind is None or self._closed:
                return []
            worker.idle = False
            kind.active += 1
            queue = self._queues.pop(kind)
            worth = int(CHUNK_SECONDS / max(kind.row_seconds, CHUNK_SECONDS / CHUNK_ROWS))
            chunk = _pop_chunk(queue, min(worth, self._waiting // (2 * self._workers)))
            self._waiting -= len(chunk)
            if queue:
                self._queues[kind] = queue  # behind the other kinds
            self._changed.notify_all()
            return chunk

    def _next_kind(self) -> Kind | None:
        return next((kind for kind in self._queues if kind.active < kind.concurrency), None)


def _pop_chunk(queue: list[Item], most: int) -> list[Item]:
    """Remove the next rows of a queue: at least one, whole batches, at most CHUNK_CHARACTERS."""
    batch = max(1, queue[0].kind.batch_rows)
    wanted = max(batch, most // batch * batch)
    rows: list[Item] = []
    characters = 0
    while queue and len(rows) < wanted and (not rows or characters < CHUNK_CHARACTERS):
        rows.append(heappop(queue))
        characters += len(rows[-1].row.completion)
    return rows


def _composed(made: Verifier) -> Composite | None:
    """Return the verifier if its parts have to be graded apart: one of them is graded in this process."""
    return made if isinstance(made, Composite) and made.any_in_process() else None


def _too_long(characters: int, limit: int) -> Verdict:
    return fixed(Outcome.LIMIT_EXCEEDED, f"a completion may have {limit} characters; this one has {characters}")


__all__ = ["GradingPool", "PoolLimits", "PoolState"]
