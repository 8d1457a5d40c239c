"""Grades in worker processes that can always be killed: one bad row costs itself and nothing else.

A worker is a process of our own (`verifiers._worker`), never a fork of the caller: it holds no torch and no lock of
the caller's. It is killed by wall clock, CPU seconds and resident memory, measured from outside, and replaced.
Verifiers with `in_process = True` are called in batches on a thread of the caller's process instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, field
from typing import IO, NamedTuple, Self, cast

from verifiers._worker import HEADER, MAX_FRAME, fault_verdict, write_frame
from verifiers.base import GradingRow, Verifier
from verifiers.registry import get_verifier, importable_target
from verifiers.verdict import JSON, Outcome, Verdict, fixed

START_SECONDS = 120.0
"""For starting a worker and for loading a verifier (imports, models), beside the limit of a row."""
TICK_SECONDS = 0.05
"""How often a busy worker's memory and CPU time are looked at."""
STDERR_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Limits of grading one row; each kills the worker."""

    wall_seconds: float | None = None
    """None: the verifier's own `grade_seconds`."""
    cpu_seconds: float | None = None
    """None: as many as wall-clock seconds."""
    memory_bytes: int = 1 << 30
    """Resident memory of the worker."""


class GradingRequest(NamedTuple):
    """One row and the verifier that grades it."""

    verifier: str
    row: GradingRow
    options: Mapping[str, JSON] = {}


@dataclass(slots=True)
class _Item:
    name: str
    options: dict[str, JSON]
    row: GradingRow
    target: str
    wall: float
    future: Future[Verdict] = field(default_factory=Future[Verdict])

    def frame(self) -> JSON:
        return {
            "name": self.name,
            "verifier": self.target,
            "options": self.options,
            "completion": self.row.completion,
            "reference": self.row.reference,
            "prompt": self.row.prompt,
            "info": dict(self.row.info),
        }

    def settle(self, verdict: Verdict) -> None:
        if not self.future.done():
            self.future.set_result(verdict)

    def fault(self, cause: str) -> None:
        verdict = fixed(Outcome.VERIFIER_ERROR, cause).to_json()
        self.settle(Verdict.from_json({**verdict, "verifier": self.name}))


class _Known(NamedTuple):
    """What the pool needs to know of a verifier."""

    target: str
    grade_seconds: float
    shared: Verifier | None


class GradingPool:
    """Submit rows from any thread or event loop; get futures of verdicts.

    Starts nothing until the first row, and leaves nothing behind: workers die with their owner, however it dies.

    Example:
        >>> with GradingPool(workers=2) as pool:                                        # doctest: +SKIP
        ...     future = pool.submit("math", {}, GradingRow(completion="4", reference="4"))
        ...     future.result().reward
        1.0
    """

    def __init__(self, *, workers: int = 1, limits: PoolLimits | None = None, max_pending: int = 20_000) -> None:
        if workers < 1:
            raise ValueError(f"workers must be >= 1; got {workers}. One worker already overlaps with generation.")
        self._workers = workers
        self._limits = limits or PoolLimits()
        self._max_pending = max_pending
        self._pending: deque[_Item] = deque()
        self._batches: dict[str, deque[_Item]] = {}
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._lanes: list[_Lane] = []
        self._known: dict[str, _Known] = {}
        self._closed = False

    def submit(self, verifier: str, options: Mapping[str, JSON], row: GradingRow) -> Future[Verdict]:
        """Queue one row; blocks while `max_pending` rows wait (back-pressure).

        The future never raises for grading: it resolves to a verdict, `verifier_error` where the verifier failed.

        Raises:
            UnknownVerifier, BadOption: at once, for a verifier that cannot be made.
            RuntimeError: the pool is closed.
        """
        known = self._know(verifier, options)
        wall = self._limits.wall_seconds or known.grade_seconds
        item = _Item(verifier, dict(options), row, known.target, wall)
        with self._changed:
            while len(self._pending) >= self._max_pending and not self._closed:
                self._changed.wait()
            if self._closed:
                raise RuntimeError("the grading pool is closed; open another one.")
            if known.shared is None:
                self._pending.append(item)
                self._start_lanes()
            else:
                self._queue_shared(known.shared, item)
            self._changed.notify_all()
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

    def grade_as_completed(self, requests: Sequence[GradingRequest]) -> Iterator[tuple[int, Verdict]]:
        """(index of the request, verdict) in the order in which grading ends."""
        futures = {self.submit(r.verifier, r.options, r.row): index for index, r in enumerate(requests)}
        for future in as_completed(futures):
            yield futures[future], future.result()

    async def grade_async(self, request: GradingRequest) -> Verdict:
        """One verdict, from a coroutine of any event loop."""
        loop = asyncio.get_running_loop()
        future = await loop.run_in_executor(None, self.submit, request.verifier, request.options, request.row)
        return await asyncio.wrap_future(future)

    async def as_completed_async(self, requests: Sequence[GradingRequest]) -> AsyncIterator[Verdict]:
        """Verdicts as grading ends, from a coroutine."""
        for done in asyncio.as_completed([self.grade_async(request) for request in requests]):
            yield await done

    def close(self) -> None:
        """Kill every worker; rows still waiting become `verifier_error`. Idempotent."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            waiting = [*self._pending, *(item for batch in self._batches.values() for item in batch)]
            self._pending.clear()
            self._batches.clear()
            self._changed.notify_all()
        for lane in self._lanes:
            lane.kill()
        for item in waiting:
            item.fault("the grading pool was closed before this row was graded")
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _know(self, name: str, options: Mapping[str, JSON]) -> _Known:
        key = json.dumps([name, dict(options)], sort_keys=True)
        if key not in self._known:
            made = get_verifier(name, **options)
            shared = made if made.in_process else None
            self._known[key] = _Known(importable_target(name), made.grade_seconds, shared)
        return self._known[key]

    def _start_lanes(self) -> None:
        """One more lane where rows outnumber the lanes. Called with the lock held."""
        wanted = min(self._workers, len(self._pending))
        while len(self._lanes) < self._workers and sum(lane.idle for lane in self._lanes) < wanted:
            lane = _Lane(self._limits)
            self._lanes.append(lane)
            self._spawn(lambda lane=lane: self._run_lane(lane), f"grading-{len(self._lanes)}")

    def _spawn(self, target: object, name: str) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)  # pyright: ignore[reportArgumentType]
        self._threads.append(thread)
        thread.start()

    def _run_lane(self, lane: _Lane) -> None:
        try:
            while True:
                chunk = self._next_chunk(lane)
                if not chunk:
                    return
                unread = lane.grade(chunk)
                with self._changed:
                    lane.idle = True
                    if self._closed:
                        rest: list[_Item] = unread
                    else:
                        self._pending.extendleft(reversed(unread))
                        rest = []
                    self._changed.notify_all()
                for item in rest:
                    item.fault("the grading pool was closed before this row was graded")
        finally:
            lane.kill()

    def _next_chunk(self, lane: _Lane) -> list[_Item]:
        with self._changed:
            while not self._pending and not self._closed:
                self._changed.wait()
            if self._closed:
                return []
            count = max(1, min(64, len(self._pending) // (2 * self._workers)))
            lane.idle = False
            chunk = [self._pending.popleft() for _ in range(count)]
            self._changed.notify_all()
            return chunk

    def _queue_shared(self, verifier: Verifier, item: _Item) -> None:
        """Queue for an in-process verifier; a thread of its own grades whatever has gathered. Lock held."""
        key = json.dumps([item.name, item.options], sort_keys=True)
        if key not in self._batches:
            self._batches[key] = deque()
            self._spawn(lambda: self._run_shared(key, verifier), f"grading-{item.name}")
        self._batches[key].append(item)

    def _run_shared(self, key: str, verifier: Verifier) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._batches.get(key):
                    self._changed.wait()
                if self._closed:
                    return
                batch = list(self._batches[key])
                self._batches[key].clear()
            self._grade_shared(verifier, batch)

    def _grade_shared(self, verifier: Verifier, batch: list[_Item]) -> None:
        try:
            verdicts = verifier.verify_batch([item.row for item in batch])
        except Exception as error:  # the boundary: a batch that fails is graded row by row, to blame the right one
            if len(batch) == 1:
                batch[0].settle(Verdict.from_json(cast("dict[str, JSON]", fault_verdict(error, batch[0].name))))
                return
            for item in batch:
                self._grade_shared(verifier, [item])
            return
        for item, verdict in zip(batch, verdicts, strict=True):
            item.settle(verdict)


class _WorkerGone(Exception):
    """The worker died, was killed, or broke the protocol."""


class _Lane:
    """One worker process at a time, and the thread that feeds it."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._buffer = b""
        self._stopped = False
        self.idle = True

    def grade(self, chunk: list[_Item]) -> list[_Item]:
        """Grade rows in order. The row at which the worker is lost becomes a fault; returns those behind it."""
        done = 0
        try:
            self._ensure_worker()
            assert self._process is not None
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # a worker that is gone shows in what it answers
                write_frame(cast("IO[bytes]", self._process.stdin), [item.frame() for item in chunk])  # pyright: ignore[reportArgumentType]
            for item in chunk:
                item.settle(self._await_verdict(item))
                done += 1
        except _WorkerGone as gone:
            self.kill()
            if done < len(chunk):
                chunk[done].fault(str(gone))
                done += 1
        except Exception as error:  # the boundary: a fault of the lane itself is the row's fault, never silent
            self.kill()
            if done < len(chunk):
                chunk[done].fault(f"grading pool: {type(error).__name__}: {error}")
                done += 1
        return chunk[done:]

    def kill(self) -> None:
        """Kill the worker and everything that it started in its session. A lane can start another one."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, self._stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._buffer = b""

    def _ensure_worker(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._trim_stderr()
            return
        self.kill()
        path = json.dumps(sys.path)
        room = self._limits.memory_bytes + (2 << 30)
        code = f"import sys, json; sys.path[:] = json.loads({path!r}); from verifiers._worker import main; main({room})"
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
            env=os.environ | {"REASONER_POOL_WORKER": "1", "OMP_NUM_THREADS": "1"},
        )
        self._await("ready", time.monotonic() + START_SECONDS, cpu_limit=START_SECONDS)

    def _await_verdict(self, item: _Item) -> Verdict:
        cpu = self._limits.cpu_seconds or item.wall
        deadline = time.monotonic() + item.wall
        used = self._cpu_seconds()
        while True:
            frame = self._await(None, deadline, cpu_limit=used + cpu, wall=item.wall, cpu=cpu)
            if frame["kind"] == "loading":
                deadline = time.monotonic() + START_SECONDS
                used = self._cpu_seconds() + START_SECONDS
            elif frame["kind"] == "loaded":
                deadline = time.monotonic() + item.wall
                used = self._cpu_seconds()
            else:
                return Verdict.from_json(cast("dict[str, JSON]", frame["verdict"]))

    def _await(
        self, kind: str | None, deadline: float, *, cpu_limit: float, wall: float = START_SECONDS, cpu: float = 0.0
    ) -> dict[str, JSON]:
        """The next frame, or _WorkerGone with the cause."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poller = select.poll()
        poller.register(descriptor, select.POLLIN | select.POLLHUP)
        while True:
            frame = self._take_frame()
            if frame is not None:
                if kind is not None and frame.get("kind") != kind:
                    raise _WorkerGone(f"the grading worker answered {frame.get('kind')!r} instead of {kind!r}")
                return frame
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise _WorkerGone(f"grading took longer than {wall:g} s of wall-clock time; the worker was killed")
            if poller.poll(min(TICK_SECONDS, remaining) * 1000):
                data = os.read(descriptor, 1 << 20)
                if not data:
                    raise _WorkerGone(self._epitaph())
                self._buffer += data
                continue
            self._check_usage(cpu_limit, cpu)

    def _check_usage(self, cpu_limit: float, cpu: float) -> None:
        memory = self._memory_bytes()
        if memory > self._limits.memory_bytes:
            raise _WorkerGone(
                f"grading took {memory >> 20} MiB of memory, more than {self._limits.memory_bytes >> 20};"
                " the worker was killed"
            )
        if self._cpu_seconds() > cpu_limit:
            raise _WorkerGone(f"grading took longer than {cpu:g} s of CPU time; the worker was killed")

    def _take_frame(self) -> dict[str, JSON] | None:
        if len(self._buffer) < HEADER.size:
            return None
        (length,) = HEADER.unpack_from(self._buffer)
        if length > MAX_FRAME:
            raise _WorkerGone("the grading worker broke the protocol (frame too long)")
        if len(self._buffer) < HEADER.size + length:
            return None
        body = self._buffer[HEADER.size : HEADER.size + length]
        self._buffer = self._buffer[HEADER.size + length :]
        try:
            frame = json.loads(body)
        except ValueError as error:
            raise _WorkerGone("the grading worker broke the protocol (not JSON)") from error
        if not isinstance(frame, dict) or "kind" not in frame:
            raise _WorkerGone("the grading worker broke the protocol (no kind)")
        return cast("dict[str, JSON]", frame)

    def _epitaph(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "the grading worker closed its pipe and went on running; it was killed"
        said = self._last_words()
        if code < 0:
            try:
                how = f"was ended by {signal.Signals(-code).name}"
            except ValueError:
                how = f"was ended by signal {-code}"
        else:
            how = f"exited with status {code}"
        return f"the grading worker {how} while grading this row" + (f": {said}" if said else "")

    def _last_words(self) -> str:
        if self._stderr is None:
            return ""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 2000))
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:500] if lines else ""

    def _trim_stderr(self) -> None:
        if self._stderr is not None and os.fstat(self._stderr.fileno()).st_size > STDERR_BYTES:
            os.ftruncate(self._stderr.fileno(), 0)

    def _memory_bytes(self) -> int:
        return _proc_memory(self._process.pid) if self._process else 0

    def _cpu_seconds(self) -> float:
        return _proc_cpu(self._process.pid) if self._process else 0.0


_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def _proc_memory(pid: int) -> int:
    """Resident bytes of a process; 0 where the system has no /proc (the worker's own limit still holds)."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _proc_cpu(pid: int) -> float:
    """CPU seconds of a process; 0 where the system has no /proc (the wall clock still holds)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    except (OSError, IndexError):
        return 0.0
