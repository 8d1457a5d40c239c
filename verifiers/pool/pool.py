"""Grades in worker processes that can always be killed: one bad row costs itself and nothing else.

A worker is a process of our own (`verifiers.pool.worker_main`), never a fork of the caller: it holds no torch and no
lock of the caller's. One more of them than asked for takes quick rows while all others are at slow ones. A worker is
killed by wall clock, CPU seconds and resident memory, measured from outside, and replaced
(`verifiers.pool.worker_process`). Verifiers with `in_process = True` are called in batches in the caller's process
instead (`verifiers.pool.in_process`).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from heapq import heapify, heappush
from typing import NamedTuple, Self

from verifiers.base import GradingRow
from verifiers.compose import Composite
from verifiers.errors import BadReference
from verifiers.pool.in_process import InProcessQueue
from verifiers.pool.kinds import Kinds
from verifiers.pool.work_queue import (
    CLOSED,
    GradingRequest,
    Item,
    Kind,
    PoolLimits,
    named,
    pop_chunk,
    worth,
)
from verifiers.pool.worker_process import WorkerProcess
from verifiers.verdict import JSON, Outcome, Verdict, fixed

QUICK_SECONDS = 0.25
"""A row that takes longer is slow: its verifier does not get the spare worker."""
SPARE_SECONDS = 0.1
"""How often the spare worker looks whether it is needed, while rows wait."""


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
        isolated: bool = False,
    ) -> None:
        """`context`: for the verifiers of this process, as their `context`.

        `isolated`: for rows and options of strangers. Verifiers are made in workers, within the limits of a row, and
        what they say of their options is the exception of the row's future.
        """
        if workers < 1:
            raise ValueError(f"workers must be >= 1; got {workers}. One worker already overlaps with generation.")
        self._workers = workers
        self._limits = limits or PoolLimits()
        self._max_pending = max_pending
        self._queues: dict[Kind, list[Item]] = {}
        """Rows that wait, by kind, as heaps; the kind that was served last stands last."""
        self._arrivals = itertools.count()
        self._waiting = 0
        self._changed = threading.RLock()
        """Held by whoever reads or changes the queues."""
        self._work = threading.Condition(self._changed)
        """Idle workers wait for rows."""
        self._room = threading.Condition(self._changed)
        """Submitters wait for room."""
        self._spare_work = threading.Condition(self._changed)
        self._threads: list[threading.Thread] = []
        self._processes: list[WorkerProcess] = []
        self._spare = WorkerProcess()
        """One more worker: takes quick rows while all others are at slow ones."""
        self._kinds = Kinds(self._limits, context=context, isolated=isolated)
        self._speeds: dict[str, float] = {}
        """Verifier to the seconds of a row, by the last chunk, whatever its options."""
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
            UnknownVerifier, BadOption: at once, for a verifier that cannot be made. Of an isolated pool the future may
                raise them instead.
            RuntimeError: the pool is closed.
        """
        return self.submit_batch(verifier, options, [row], rank=rank)[0]

    def submit_batch(
        self, verifier: str, options: Mapping[str, JSON], rows: Sequence[GradingRow], *, rank: int = 0
    ) -> list[Future[Verdict]]:
        """As `submit`, for several rows of one verifier."""
        return self._submit(self._kinds.find(verifier, options), rows, rank)

    def check(self, verifier: str, options: Mapping[str, JSON], reference: JSON) -> Future[Verdict]:
        """Have a worker check a gold, within the limits of a row.

        Returns:
            A verdict on the gold: `correct` where it can be used, `bad_reference` with what is wrong, `verifier_error`
            where it cannot be checked. The future may raise UnknownVerifier and BadOption.
        """
        kind = self._kinds.find(verifier, options, check=True)
        return self._submit(kind, [GradingRow(completion="", reference=reference)], 0)[0]

    def _submit(self, kind: Kind, rows: Sequence[GradingRow], rank: int) -> list[Future[Verdict]]:
        items = [Item(kind, row, order=(rank, next(self._arrivals))) for row in rows]
        most = self._limits.completion_characters
        queued: list[Item] = []
        for item in items:
            if len(item.row.completion) > most:
                item.settle(named(_too_long(len(item.row.completion), most), kind.name))
            elif kind.composed is not None:
                self._submit_parts(kind.composed, item)
            else:
                queued.append(item)
        with self._changed:
            for item in queued:
                while self._waiting >= self._max_pending and not self._closed:
                    self._room.wait()
                if self._closed:
                    raise RuntimeError("the grading pool is closed; open another one.")
                self._enqueue(item)
        return [item.future for item in items]

    def cancel(self, futures: Iterable[Future[Verdict]]) -> None:
        """Drop rows that nobody waits for any more, but for those that are being graded."""
        with self._changed:
            for future in futures:
                future.cancel()
            for kind, queue in list(self._queues.items()):
                kept = [item for item in queue if not item.future.cancelled()]
                self._waiting -= len(queue) - len(kept)
                if kept:
                    queue[:] = kept
                    heapify(queue)
                else:
                    del self._queues[kind]
            self._room.notify_all()

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

    def is_plain(self, verifier: str) -> bool:
        """Whether its rows can be submitted without importing or making anything first."""
        return self._kinds.is_plain(verifier)

    def state(self) -> PoolState:
        """Rows that wait, workers alive, workers at work."""
        with self._changed:
            return PoolState(
                self._waiting,
                sum(worker.alive for worker in (*self._processes, self._spare)),
                sum(not worker.idle for worker in (*self._processes, self._spare)),
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
            for condition in (self._work, self._room, self._spare_work):
                condition.notify_all()
        for worker in (*self._processes, self._spare):
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

    def _enqueue(self, item: Item) -> None:
        """Put a row where it is graded, or beside an equal one that is there already. Called with the lock held."""
        kind = item.kind
        if kind.in_process is not None:
            if kind not in self._in_process:
                self._in_process[kind] = InProcessQueue(kind)
            return self._in_process[kind].put(item)
        if kind.given_up:
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
        self._work.notify()
        if not any(worker.idle for worker in self._processes):
            self._spare_work.notify()

    def _settle_twins(self, key: tuple[Kind, bytes]) -> None:
        """Give the verdict of a row to those equal to it; a fault is its own, and the next of them is graded."""
        with self._changed:
            first = self._first.pop(key)
        graded = not first.future.cancelled() and first.future.exception() is None
        if graded and (verdict := first.future.result()).outcome is not Outcome.VERIFIER_ERROR:
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

        def settle(verdict: Verdict) -> None:
            item.settle(replace(named(verdict, item.kind.name), version=composed.version))

        try:
            parts = composed.parts_of(item.row)
            rows = [part.row_of(item.row) for part in parts]
        except BadReference as error:
            settle(fixed(Outcome.BAD_REFERENCE, str(error)))
            return item.future
        rank, _ = item.order
        futures = [self.submit(p.verifier, p.options, row, rank=rank) for p, row in zip(parts, rows, strict=True)]
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
                settle(composed.combine_row(item.row, verdicts))
            except BadReference as error:
                settle(fixed(Outcome.BAD_REFERENCE, str(error)))
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
        if not self._processes:
            self._run_in_thread(self._spare, "grading-spare")
        self._processes.append(worker)
        self._run_in_thread(worker, f"grading-{len(self._processes)}")
        return worker

    def _run_in_thread(self, worker: WorkerProcess, name: str) -> None:
        thread = threading.Thread(target=self._run_worker, args=(worker,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run_worker(self, worker: WorkerProcess) -> None:
        try:
            while chunk := self._next_chunk(worker):
                kind = chunk[0].kind
                unread = worker.grade(chunk)
                kind.row_seconds = self._speeds[kind.name] = worker.row_seconds(len(chunk))
                for item in self._put_back(worker, kind, unread):
                    item.fault(
                        CLOSED if self._closed else f"{item.kind.name} was given up: it cannot be loaded in a worker"
                    )
        finally:
            worker.stop()

    def _put_back(self, worker: WorkerProcess, kind: Kind, unread: list[Item]) -> list[Item]:
        """Queue rows that a lost worker left, at their place; returns those that are given up."""
        with self._changed:
            worker.idle, worker.kind = True, None
            kind.active -= 1
            given_up: list[Item] = []
            if self._closed:
                given_up = unread
            elif kind.given_up:
                queue = self._queues.pop(kind, [])
                self._waiting -= len(queue)
                given_up = [*unread, *queue]
            elif unread:
                for item in unread:
                    heappush(self._queues.setdefault(kind, []), item)
                self._waiting += len(unread)
            if self._queues:  # its verifier may take one more worker now
                self._work.notify_all()
            self._room.notify_all()
            return given_up

    def _next_chunk(self, worker: WorkerProcess) -> list[Item]:
        with self._changed:
            while not self._closed:
                kind = self._next_kind(worker)
                if kind is None:
                    if worker is self._spare:
                        self._spare_work.wait(SPARE_SECONDS if self._queues else None)
                    else:
                        self._work.wait()
                    continue
                queue = self._queues.pop(kind)
                before = len(queue)
                chunk = pop_chunk(queue, min(worth(kind), self._waiting // (2 * self._workers)))
                self._waiting -= before - len(queue)
                if queue:
                    self._queues[kind] = queue  # behind the other kinds
                if chunk:
                    worker.idle, worker.kind, worker.since = False, kind, time.monotonic()
                    kind.active += 1
                    self._room.notify_all()
                    if self._queues:
                        self._spare_work.notify()
                    return chunk
            return []

    def _next_kind(self, worker: WorkerProcess) -> Kind | None:
        ready = (kind for kind in self._queues if kind.active < kind.concurrency)
        if worker is not self._spare:
            return next(ready, None)
        now = time.monotonic()
        return next((kind for kind in ready if not self._slow(kind, now)), None) if self._all_slow(now) else None

    def _all_slow(self, now: float) -> bool:
        """Whether every worker is at rows that take long. Called with the lock held."""
        return len(self._processes) == self._workers and all(
            worker.kind is not None and self._slow(worker.kind, now) for worker in self._processes
        )

    def _slow(self, kind: Kind, now: float) -> bool:
        """Whether its rows take long: by the last chunk, or by the time that a worker is at one already.

        What nothing is known of is tried: it is slow as long as a worker is at its first row.
        """
        if any(
            worker.kind is kind and now - worker.since > QUICK_SECONDS for worker in (*self._processes, self._spare)
        ):
            return True
        seconds = self._speeds.get(kind.name) if kind.row_seconds is None else kind.row_seconds
        return kind.active > 0 if seconds is None else seconds > QUICK_SECONDS


def _too_long(characters: int, limit: int) -> Verdict:
    return fixed(Outcome.LIMIT_EXCEEDED, f"a completion may have {limit} characters; this one has {characters}")


__all__ = ["GradingPool", "PoolLimits", "PoolState"]
