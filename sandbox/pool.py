"""Pool of warm workers, shared by all backends."""

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
"""Factor by which a starved job's wall limit is raised for another try. An endless loop then uses up its CPU time,
unless more than fifteen other processes compete for each core."""
CLOSE_SECONDS = 30.0


class Launcher(ABC):
    """Starts and ends the workers of one backend (abstract base class)."""

    limits: Limits
    """The most that any job may ask for."""
    mode: str = "namespaces"
    """How jobs are isolated from each other; see `sandbox.worker.GuestConfig`."""
    modules: Mapping[str, str] = {}
    """Name -> source of the modules that jobs may ask for."""

    @property
    def recycle_after(self) -> int | None:
        """Jobs per worker, if the backend prescribes it; None: the pool's setting applies."""
        return None

    @abstractmethod
    def start(self) -> Worker:
        """Start a worker that is ready for jobs.

        Raises:
            SandboxError: something is missing; the message says what, and how to get it.
        """

    def prepare(self, worker: Worker, job: Job) -> None:  # noqa: B027
        """Set the worker's outer limits for a job; called before each one.

        Raises:
            WorkerLost: they cannot be set; another worker is needed.
        """

    def pressed(self, result: JobResult) -> str:
        """Return a sentence on what outside the sandbox may have ended a job; empty if nothing."""
        return ""

    def discard(self, worker: Worker) -> None:
        """End a worker and everything in it."""
        worker.kill()

    def close(self) -> None:  # noqa: B027
        """Release the backend's resources; called once, after the last worker has ended."""


class Places:
    """Queue of the pool's free places; each has a worker, or None if it has still to be started.

    The longest waiting caller is next. Without waiting callers, the place used last is taken first.
    """

    def __init__(self, free: list[Worker | None]) -> None:
        self._free = free
        self._waiting: deque[Future[Worker | None]] = deque()
        self._lock = threading.Lock()

    def get(self, seconds: float | None = None) -> Worker | None:
        """Take a place and return its worker, or None if one has to be started.

        Raises:
            TimeoutError: none became free within `seconds`.
        """
        with self._lock:
            if self._free:
                return self._free.pop()
            mine: Future[Worker | None] = Future()
            self._waiting.append(mine)
        try:
            return mine.result(seconds)
        except BaseException:  # also an interrupt: a place assigned meanwhile must not be lost
            with self._lock:
                if mine in self._waiting:
                    self._waiting.remove(mine)
            if mine.done():
                self.put(mine.result())
            raise

    def put(self, worker: Worker | None) -> None:
        """Free a place, or pass it to the longest waiting caller."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set_result(worker)
            else:
                self._free.append(worker)


class Janitor:
    """Background thread for tasks, run one after the other; it exists only while there are tasks.

    An executor of `concurrent.futures` will not do: it accepts no work once the main thread has ended, when other
    threads may still be working.
    """

    def __init__(self) -> None:
        self._tasks: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def do(self, task: Callable[[], None]) -> None:
        """Run a task in the background, or here if no thread can be started."""
        with self._lock:
            self._tasks.append(task)
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
        """Wait until all tasks are done."""
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._tasks:
                    self._thread = None
                    return
                task = self._tasks.popleft()
            task()


def longer(job: Job) -> Job:
    """Return the job with LONGER times the wall-clock limit and the same CPU limit."""
    limits = replace(job.limits, wall_seconds=LONGER * job.limits.wall_seconds)
    return replace(job, limits=limits, helper=job.helper and longer(job.helper))


class PooledSandbox(Sandbox):
    """Sandbox that runs up to `workers` jobs at a time, each in a warm worker; further callers wait.

    Args:
        launcher: of one backend.
        workers: number of workers. One is started at once, so that errors show here, the others when needed.
        recycle_after: jobs that one worker runs before it is replaced. A worker is also replaced after running out of
            memory and after anything unexplained.
    Raises:
        SandboxError: an argument is below 1, or the first worker cannot be started.
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
        """Number of workers replaced so far."""
        self._places = Places([None] * (workers - 1))
        self.own_files = False
        """True if each worker has its own files, which reveal nothing of other workers' jobs."""
        self._janitor = Janitor()
        self._async = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")
        self._places.put(self._started())

    @property
    def mode(self) -> str:
        """How jobs are isolated from each other on this machine."""
        return self._launcher.mode

    def run(self, job: Job) -> JobResult:
        return self._run(job, time.monotonic())

    async def run_async(self, job: Job) -> JobResult:
        asked = time.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._async, self._run, job, asked)
        except SandboxError:
            raise
        except RuntimeError as error:  # the executor accepts no more: closed, or the main thread has ended
            message = "the sandbox is closed." if self._closed.is_set() else f"no thread for a job: {error}."
            raise SandboxError(message) from None

    def close(self) -> None:
        if os.getpid() != self._owner:
            return  # a forked child's copy: the workers are its parent's
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            for worker in self._busy:
                worker.process.kill()  # its caller gets WorkerLost, and finds the sandbox closed
        deadline = time.monotonic() + CLOSE_SECONDS
        for _ in range(self._workers):
            try:
                worker = self._places.get(max(0.1, deadline - time.monotonic()))
            except TimeoutError:
                break
            if worker is not None:
                self._launcher.discard(worker)
        for _ in range(self._workers):
            self._places.put(None)  # wakes a caller that still waits for a place
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
                except SandboxError as error:  # the worker was lost, or none could be started
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
            # free the place whatever happened, also after an interrupt; its worker may be in the middle of a job
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
        except (OSError, RuntimeError) as error:  # out of descriptors, processes, threads or space
            raise SandboxError(f"no worker can be started: {error}. See `reasoner sandbox doctor`.") from None

    def _replaced(self, worker: Worker | None) -> None:
        """End a worker in the background; its successor can start meanwhile. Returns None, as content of the place."""
        if worker is None:
            return
        self.replaced += 1
        if self._closed.is_set():
            self._launcher.discard(worker)
        else:
            self._janitor.do(lambda: self._launcher.discard(worker))
