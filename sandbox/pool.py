"""A pool of warm workers: the part that every backend shares."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from sandbox.api import Job, JobOutcome, JobResult, Limits, Sandbox, SandboxError
from sandbox.worker import Worker, checked

TRIES = 2
LONGER = 4
"""Times its wall limit that a job may take after it was starved: by then an endless loop has used up its CPU time,
unless more than fifteen others ask for each core."""
CLOSE_SECONDS = 30.0


class Launcher(ABC):
    """Starts and ends the workers of one backend."""

    limits: Limits
    """The most that any job may ask for."""
    mode: str = "namespaces"
    """How jobs are kept apart; see `sandbox.worker.GuestConfig`."""
    modules: Mapping[str, str] = {}
    """Name to source, of the modules that jobs may ask for."""

    @property
    def recycle_after(self) -> int | None:
        """Jobs for each worker, where the backend leaves no choice."""
        return None

    @abstractmethod
    def start(self) -> Worker:
        """A worker that is ready for jobs.

        Raises:
            SandboxError: with what is missing and how to get it.
        """

    def prepare(self, worker: Worker, job: Job) -> None:  # noqa: B027
        """Called before each job: hold the worker as that job is to be held.

        Raises:
            WorkerLost: it cannot be held so; another worker is to be used.
        """

    def pressed(self, result: JobResult) -> str:
        """What outside the sandbox may have made a job end so, in a sentence, or nothing."""
        return ""

    def discard(self, worker: Worker) -> None:
        """End a worker and everything in it."""
        worker.kill()

    def close(self) -> None:  # noqa: B027
        """Called once, after the last worker; most have nothing to do."""


class Places:
    """What may run at a time: each a worker, or None where it has still to be started.

    Whoever has waited longest is next; where nobody waits, the place that was used last is taken first.
    """

    def __init__(self, free: list[Worker | None]) -> None:
        self._free = free
        self._waiting: deque[Future[Worker | None]] = deque()
        self._lock = threading.Lock()

    def get(self, seconds: float | None = None) -> Worker | None:
        """Take a place.

        Raises:
            TimeoutError: there was none for so long.
        """
        with self._lock:
            if self._free:
                return self._free.pop()
            mine: Future[Worker | None] = Future()
            self._waiting.append(mine)
        try:
            return mine.result(seconds)
        except BaseException:  # an interrupt too: a place that was handed over meanwhile is not lost
            with self._lock:
                if mine in self._waiting:
                    self._waiting.remove(mine)
            if mine.done():
                self.put(mine.result())
            raise

    def put(self, worker: Worker | None) -> None:
        """Give a place back, or to the one that has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set_result(worker)
            else:
                self._free.append(worker)


class Janitor:
    """Does errands one after the other, without keeping anyone waiting, in a thread that is there while one is left.

    No executor of `concurrent.futures`: those take nothing more once the main thread has ended, while other threads may
    still be at work.
    """

    def __init__(self) -> None:
        self._errands: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def do(self, errand: Callable[[], None]) -> None:
        """Have it done; now, where no thread can be had."""
        with self._lock:
            self._errands.append(errand)
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._work, name="sandbox-janitor", daemon=True)
            try:
                self._thread.start()
                return
            except RuntimeError:
                pass
        self._work()

    def finish(self) -> None:
        """Until all is done."""
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._errands:
                    self._thread = None
                    return
                errand = self._errands.popleft()
            errand()


def longer(job: Job) -> Job:
    """The same with more time on the clock, and no more of a processor."""
    limits = replace(job.limits, wall_seconds=LONGER * job.limits.wall_seconds)
    return replace(job, limits=limits, helper=job.helper and longer(job.helper))


class PooledSandbox(Sandbox):
    """Up to `workers` jobs at a time, each in a warm worker; callers beyond that wait their turn.

    Args:
        launcher: of one backend.
        workers: how many; one is started at once, so that what is missing shows here, the others when first needed.
        recycle_after: jobs that one worker runs before it is replaced. A worker is also replaced after any
            out-of-memory and after anything that it cannot explain.
    """

    def __init__(self, launcher: Launcher, *, workers: int, recycle_after: int) -> None:
        if workers < 1 or recycle_after < 1:
            raise SandboxError(f"workers and recycle_after must be at least 1; got {workers} and {recycle_after}.")
        self._launcher = launcher
        self._recycle_after = recycle_after
        self._workers = workers
        self._owner = os.getpid()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._busy: set[Worker] = set()
        self.replaced = 0
        """Workers replaced so far."""
        self._places = Places([None] * (workers - 1))
        self.own_files = False
        """Whether the files of each worker are its own: nothing of them tells of other workers' jobs."""
        self._janitor = Janitor()
        self._async = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")
        self._places.put(self._started())

    @property
    def mode(self) -> str:
        """How jobs are kept apart on this machine."""
        return self._launcher.mode

    def run(self, job: Job) -> JobResult:
        return self._run(job, time.monotonic())

    async def run_async(self, job: Job) -> JobResult:
        asked = time.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._async, self._run, job, asked)
        except SandboxError:
            raise
        except RuntimeError as error:  # the threads take no more: closed, or the main thread has ended
            said = "the sandbox is closed." if self._closed.is_set() else f"no thread for a job: {error}."
            raise SandboxError(said) from None

    def close(self) -> None:
        if os.getpid() != self._owner:
            return  # a forked child's copy: the workers are its parent's
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            for worker in self._busy:
                worker.process.kill()  # whoever waits for it gets WorkerLost, and finds the sandbox closed
        deadline = time.monotonic() + CLOSE_SECONDS
        for _ in range(self._workers):
            try:
                worker = self._places.get(max(0.1, deadline - time.monotonic()))
            except TimeoutError:
                break
            if worker is not None:
                self._launcher.discard(worker)
        for _ in range(self._workers):
            self._places.put(None)  # wakes whoever still waits for a place
        self._async.shutdown(wait=False)
        self._janitor.finish()
        self._launcher.close()

    def _run(self, job: Job, asked: float) -> JobResult:
        if os.getpid() != self._owner:
            raise SandboxError("a sandbox belongs to the process that opened it; open one after the fork.")
        checked(job, self._launcher.limits, self._launcher.modules)
        worker = self._places.get()
        try:
            fault = ""
            for _ in range(TRIES):
                try:
                    worker = worker or self._started()
                    queued = time.monotonic() - asked
                    result, report = self._run_in(worker, job)
                except SandboxError as error:  # a lost worker, or none to be had
                    if self._closed.is_set():
                        raise SandboxError("the sandbox is closed.") from None
                    worker, fault = self._replaced(worker), str(error)
                    continue
                if pressed := self._launcher.pressed(result):
                    worker, fault = self._replaced(worker), pressed
                    continue
                if report["anomaly"] or worker.jobs >= (self._launcher.recycle_after or self._recycle_after):
                    worker = self._replaced(worker)
                if result.outcome is JobOutcome.INFRASTRUCTURE_FAULT:
                    fault = result.detail
                elif report["starved"]:
                    job = longer(job)
                    fault = f"the machine is too busy: a job of {result.wall_seconds:.1f} s waited for a processor"
                else:
                    return replace(result, queue_seconds=queued)
            waited = time.monotonic() - asked
            return JobResult(outcome=JobOutcome.INFRASTRUCTURE_FAULT, detail=fault, queue_seconds=waited)
        except BaseException:
            # the place is free again whatever happened, an interrupt included; its worker may be in mid-job
            worker = self._replaced(worker)
            raise
        finally:
            self._places.put(worker)

    def _run_in(self, worker: Worker, job: Job) -> tuple[JobResult, dict[str, object]]:
        with self._lock:
            if self._closed.is_set():
                raise SandboxError("the sandbox is closed.")
            self._busy.add(worker)
        try:
            self._launcher.prepare(worker, job)
            return worker.run(job)
        finally:
            with self._lock:
                self._busy.discard(worker)

    def _started(self) -> Worker:
        if self._closed.is_set():
            raise SandboxError("the sandbox is closed.")
        try:
            worker = self._launcher.start()
            self.own_files = worker.own_files
            return worker
        except SandboxError:
            raise
        except (OSError, RuntimeError) as error:  # no descriptor, process, thread or space left for it
            raise SandboxError(f"no worker can be started: {error}. See `reasoner sandbox doctor`.") from None

    def _replaced(self, worker: Worker | None) -> None:
        """End a worker without keeping anyone waiting: its successor can start meanwhile."""
        if worker is None:
            return
        self.replaced += 1
        if self._closed.is_set():
            self._launcher.discard(worker)
        else:
            self._janitor.do(lambda: self._launcher.discard(worker))
