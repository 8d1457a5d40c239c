"""Grading in worker processes that can always be killed, so that a bad row harms no other row.

A worker is a fresh process (`verifiers.pool.worker_main`), never a fork of the caller, so it inherits neither torch nor
locks. One extra worker takes quick rows while all others are busy with slow ones. A worker that exceeds a limit of wall
clock, CPU seconds or resident memory, measured from outside, is killed and replaced (`verifiers.pool.worker_process`).
Lanes of grading nodes (`verifiers.serve.nodes`) take rows beside the workers.
Verifiers with `in_process = True` are called in batches in the caller's process instead (`verifiers.pool.in_process`).
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
from typing import NamedTuple, Self, cast

from verifiers.base import GradingRow, Verifier
from verifiers.compose import Composite
from verifiers.errors import BadReference
from verifiers.pool.in_process import InProcessQueue
from verifiers.pool.kinds import Kinds
from verifiers.pool.lane import Lane, NodeLane
from verifiers.pool.work_queue import (
    CHUNK_SECONDS,
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
"""Seconds above which a row is slow, so that its verifier does not get the spare worker."""
NODE_SECONDS = 0.5
"""Seconds between looks whether a grading node may take queued rows again."""
NODE_CHUNK_SECONDS = 0.25
"""Estimated seconds of work of a chunk for a grading node, which the way there delays."""
SPARE_SECONDS = 0.1
"""Seconds between the spare worker's checks whether it is needed, while rows are queued."""


class PoolState(NamedTuple):
    """Numbers of queued rows, live workers and busy workers of a pool."""

    waiting: int
    workers: int
    """Live worker processes."""
    grading: int
    """Workers that are grading rows."""


class GradingPool:
    """Pool of worker processes. Submit rows from any thread or event loop; get futures of verdicts.

    Starts no process before the first row. Workers exit with their owner, however it ends.

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
        nodes: Sequence[NodeLane] = (),
    ) -> None:
        """Create a pool.

        Args:
            workers: number of worker processes, >= 1; with nodes also 0: one that takes only what no node takes.
            limits: limits of one row; None: the defaults.
            max_pending: queued rows at which `submit` blocks.
            context: object for verifiers that grade in this process (their `context`).
            isolated: True for untrusted rows and options: verifiers are created in workers, within the limits of a
                row, and an error about their options becomes the exception of the row's future.
            nodes: further workers on other machines (`Node.lanes` of `verifiers.serve.nodes`), which the pool stops.
        Raises:
            ValueError: workers is below 1, or below 0 with nodes.
        """
        if workers < (0 if nodes else 1):
            raise ValueError(f"workers must be >= 1; got {workers}. One worker already overlaps with generation.")
        self._workers = max(1, workers)
        self._stands_in = workers == 0
        """True: the worker here grades only what no node takes."""
        self._limits = limits or PoolLimits()
        self._max_pending = max_pending
        self._queues: dict[Kind, list[Item]] = {}
        """Queued rows by kind, each queue a heap; the kind served last comes last."""
        self._arrivals = itertools.count()
        self._waiting = 0
        self._changed = threading.RLock()
        """Lock for reading or changing the queues."""
        self._work = threading.Condition(self._changed)
        """Notifies idle workers of rows."""
        self._room = threading.Condition(self._changed)
        """Notifies blocked submitters of free space."""
        self._spare_work = threading.Condition(self._changed)
        self._node_work = threading.Condition(self._changed)
        """Notifies the lanes of grading nodes."""
        self._nodes = list(nodes)
        self._threads: list[threading.Thread] = []
        self._processes: list[WorkerProcess] = []
        self._spare = WorkerProcess()
        """Extra worker that takes quick rows while all others are busy with slow ones."""
        self._kinds = Kinds(self._limits, context=context, isolated=isolated)
        self._speeds: dict[str, float] = {}
        """Verifier name -> seconds per row in its last chunk, whatever its options."""
        self._in_process: dict[Kind, InProcessQueue] = {}
        self._first: dict[tuple[Kind, bytes], Item] = {}
        """Key of equal rows -> the one that is graded for all of them, until its verdict is known."""
        self._closed = False

    @property
    def workers(self) -> int:
        """The most worker processes that it starts, without the spare one."""
        return self._workers

    @property
    def made_here(self) -> list[Verifier]:
        """The verifiers that have graded in this process: judges, reward models, clients of services."""
        with self._changed:
            return [kind.in_process for kind in self._in_process if kind.in_process is not None]

    def start(self) -> None:
        """Start a first worker now, so that it is ready for the first row."""
        with self._changed:
            if not self._processes and not self._closed:
                self._add_worker().spawn(self._limits.memory_bytes)

    def submit(self, verifier: str, options: Mapping[str, JSON], row: GradingRow, *, rank: int = 0) -> Future[Verdict]:
        """Queue one row; block while `max_pending` rows are queued (back-pressure).

        The future resolves to a verdict even if the verifier fails (`verifier_error`).

        Args:
            verifier: name of the verifier.
            options: of the verifier.
            row: row to grade.
            rank: of the rows queued for one verifier, those of the lowest rank are graded first, the oldest first among
                equals.

        Raises:
            UnknownVerifier, BadOption: immediately, if the verifier cannot be created; in an isolated pool the future
                may raise them instead.
            RuntimeError: the pool is closed.
        """
        return self.submit_batch(verifier, options, [row], rank=rank)[0]

    def submit_batch(
        self, verifier: str, options: Mapping[str, JSON], rows: Sequence[GradingRow], *, rank: int = 0
    ) -> list[Future[Verdict]]:
        """Queue several rows of one verifier, as `submit` does; the futures are in the order of the rows."""
        return self._submit(self._kinds.find(verifier, options), rows, rank)

    def check(self, verifier: str, options: Mapping[str, JSON], reference: JSON) -> Future[Verdict]:
        """Let a worker check a reference, within the limits of a row.

        Returns:
            Future of a verdict: `correct` if the reference is usable, `bad_reference` with the reason if not,
            `verifier_error` if the check failed. The future may raise UnknownVerifier and BadOption.
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
        """Cancel futures and drop their rows from the queues; rows that are being graded stay."""
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
        """Yield verdicts in the order of the requests; read at most `max_pending` requests ahead."""
        waiting: deque[Future[Verdict]] = deque()
        for request in requests:
            waiting.append(self.submit(request.verifier, request.options, request.row))
            while waiting and (waiting[0].done() or len(waiting) >= self._max_pending):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    async def grade_async(self, request: GradingRequest) -> Verdict:
        """Grade one row from a coroutine of any event loop; return its verdict."""
        import asyncio

        loop = asyncio.get_running_loop()
        future = await loop.run_in_executor(None, self.submit, request.verifier, request.options, request.row)
        return await asyncio.wrap_future(future)

    def is_plain(self, verifier: str) -> bool:
        """Return True if the verifier's rows can be submitted without importing or creating anything first."""
        return self._kinds.is_plain(verifier)

    def state(self) -> PoolState:
        """Return the numbers of queued rows, live workers and busy workers."""
        with self._changed:
            return PoolState(
                self._waiting,
                sum(worker.alive for worker in (*self._processes, self._spare)),
                sum(not worker.idle for worker in (*self._processes, self._spare)),
            )

    def close(self) -> None:
        """Kill every worker; rows not graded yet become `verifier_error`. A second call does nothing."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            waiting = [item for queue in self._queues.values() for item in queue]
            self._queues.clear()
            self._waiting = 0
            for condition in (self._work, self._room, self._spare_work, self._node_work):
                condition.notify_all()
        for worker in (*self._processes, self._spare, *self._nodes):
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
        """Queue a row, or attach it to an equal row that is queued already. Called with the lock held."""
        kind = item.kind
        if kind.in_process is not None:
            if kind not in self._in_process:
                self._in_process[kind] = InProcessQueue(kind)
            return self._in_process[kind].put(item)
        if kind.given_up:
            lost = f"{kind.lost_loading} workers in a row were lost while loading it"
            return item.fault(f"{kind.name} is not tried any more: {lost}")
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
        self._node_work.notify()
        if not any(worker.idle for worker in self._processes):
            self._spare_work.notify()

    def _settle_twins(self, key: tuple[Kind, bytes]) -> None:
        """Copy a row's verdict to the rows equal to it. If it was cancelled or is a fault, queue the others again."""
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
        """Submit each part as its own row, with its own limits; combine the verdicts when the last one arrives."""

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
            except Exception as error:  # boundary: the exception of a callback would be lost, and the row with it
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
            for number, lane in enumerate(self._nodes, 1):
                lane.start()
                self._run_in_thread(lane, f"grading-node-{number}")
        self._processes.append(worker)
        self._run_in_thread(worker, f"grading-{len(self._processes)}")
        return worker

    def _run_in_thread(self, worker: Lane, name: str) -> None:
        thread = threading.Thread(target=self._run_worker, args=(worker,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run_worker(self, worker: Lane) -> None:
        try:
            while chunk := self._next_chunk(worker):
                kind = chunk[0].kind
                unread = worker.grade(chunk)
                if (seconds := worker.row_seconds(len(chunk))) is not None:
                    kind.row_seconds = self._speeds[kind.name] = seconds
                for item in self._requeue(worker, kind, unread):
                    item.fault(
                        CLOSED
                        if self._closed
                        else f"{item.kind.name} is not tried any more: it cannot be loaded in a worker"
                    )
        finally:
            worker.stop()

    def _requeue(self, worker: Lane, kind: Kind, unread: list[Item]) -> list[Item]:
        """Queue the rows that a lost worker left ungraded; return those that are not tried any more."""
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
                    heappush(self._queues.setdefault(item.kind, []), item)
                self._waiting += len(unread)
            if self._queues:  # this worker's verifier may use one more worker now
                self._work.notify_all()
                self._node_work.notify_all()
            self._room.notify_all()
            return given_up

    def _next_chunk(self, worker: Lane) -> list[Item]:
        with self._changed:
            while not self._closed:
                kind = self._next_kind(worker)
                if kind is None:
                    if worker is self._spare:
                        self._spare_work.wait(SPARE_SECONDS if self._queues else None)
                    elif isinstance(worker, WorkerProcess):
                        self._work.wait(NODE_SECONDS if self._stands_in and self._queues else None)
                    else:
                        self._node_work.wait(NODE_SECONDS if self._queues else None)
                    continue
                queue = self._queues.pop(kind)
                before = len(queue)
                share = self._waiting // (2 * (self._workers + len(self._nodes)))
                seconds = CHUNK_SECONDS if isinstance(worker, WorkerProcess) else NODE_CHUNK_SECONDS
                chunk = pop_chunk(queue, min(worth(kind, seconds=seconds), share))
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

    def _next_kind(self, worker: Lane) -> Kind | None:
        ready = (kind for kind in self._queues if kind.active < kind.concurrency)
        if not isinstance(worker, WorkerProcess):
            lane = cast("NodeLane", worker)
            return next((kind for kind in ready if lane.takes(kind)), None)
        if self._stands_in:
            ready = (kind for kind in ready if not any(lane.takes(kind) for lane in self._nodes))
        if worker is not self._spare:
            return next(ready, None)
        now = time.monotonic()
        return next((kind for kind in ready if not self._slow(kind, now)), None) if self._all_slow(now) else None

    def _all_slow(self, now: float) -> bool:
        """Return True if every worker is busy with slow rows. Called with the lock held."""
        return len(self._processes) == self._workers and all(
            worker.kind is not None and self._slow(worker.kind, now) for worker in self._processes
        )

    def _slow(self, kind: Kind, now: float) -> bool:
        """Return True if rows of this kind are slow, judged by the last chunk or by a worker's current one.

        A kind without measurements is tried: it counts as slow only while a worker is grading its first rows.
        """
        if any(
            worker.kind is kind and now - worker.since > QUICK_SECONDS for worker in (*self._processes, self._spare)
        ):
            return True
        seconds = self._speeds.get(kind.name) if kind.row_seconds is None else kind.row_seconds
        return kind.active > 0 if seconds is None else seconds > QUICK_SECONDS


def _too_long(characters: int, limit: int) -> Verdict:
    return fixed(Outcome.LIMIT_EXCEEDED, f"a completion may have at most {limit} characters; this one has {characters}")


__all__ = ["GradingPool", "PoolLimits", "PoolState"]
