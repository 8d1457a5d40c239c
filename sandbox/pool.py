"""A pool of warm workers: the part that every backend shares."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from sandbox.api import Job, JobOutcome, JobResult, Limits, Sandbox, SandboxError
from sandbox.worker import Worker, WorkerLost, checked

TRIES = 2


class Launcher(ABC):
    """Starts and ends the workers of one backend."""

    limits: Limits
    """The most that any job may ask for."""

    @abstractmethod
    def start(self) -> Worker:
        """A worker that is ready for jobs.

        Raises:
            SandboxError: with what is missing and how to get it.
        """

    def discard(self, worker: Worker) -> None:
        """End a worker and everything in it."""
        worker.kill()

    def close(self) -> None:  # noqa: B027
        """Called once, after the last worker; most have nothing to do."""


class PooledSandbox(Sandbox):
    """Up to `workers` jobs at a time, each in a warm worker; callers beyond that wait their turn.

    Args:
        launcher: of one backend.
        workers: how many; each is started when it is first needed.
        recycle_after: jobs that one worker runs before it is replaced. A worker is also replaced after any
            out-of-memory and after anything that it cannot explain.
    """

    def __init__(self, launcher: Launcher, *, workers: int, recycle_after: int) -> None:
        if workers < 1 or recycle_after < 1:
            raise SandboxError(f"workers and recycle_after must be at least 1; got {workers} and {recycle_after}.")
        self._launcher = launcher
        self._recycle_after = recycle_after
        self._places: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._places.put(None)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")
        self._lock = threading.Lock()
        self._busy: set[Worker] = set()
        self._closed = False
        self.replaced = 0

    def run(self, job: Job) -> JobResult:
        checked(job, self._launcher.limits)
        asked = time.monotonic()
        worker = self._places.get()
        queued = time.monotonic() - asked
        if self._closed:
            self._places.put(worker)
            raise SandboxError("the sandbox is closed.")
        try:
            fault = ""
            for _ in range(TRIES):
                if worker is None:
                    worker = self._started()
                with self._lock:
                    self._busy.add(worker)
                try:
                    result, said = worker.run(job)
                except WorkerLost as error:
                    worker, fault = self._replaced(worker), str(error)
                    continue
                finally:
                    with self._lock:
                        self._busy.discard(worker)  # type: ignore[arg-type]
                if said["anomaly"] or worker.jobs >= self._recycle_after:
                    worker = self._replaced(worker)
                if result.outcome is JobOutcome.INFRASTRUCTURE_FAULT:
                    fault = result.detail
                elif said["starved"]:
                    fault = f"the machine is too busy: a job of {result.wall_seconds:.1f} s waited for a processor"
                else:
                    return replace(result, queue_seconds=queued)
            return JobResult(outcome=JobOutcome.INFRASTRUCTURE_FAULT, detail=fault, queue_seconds=queued)
        except BaseException:
            # the place is free again whatever happened, an interrupt included; its worker may be in mid-job
            if worker is not None:
                self._launcher.discard(worker)
                worker = None
            raise
        finally:
            self._places.put(worker)

    async def run_async(self, job: Job) -> JobResult:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.run, job)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with self._lock:
            busy = list(self._busy)
        for worker in busy:
            worker.process.kill()  # whoever waits for it gets WorkerLost, and finds the sandbox closed
        places = self._places.qsize() + len(busy)
        for _ in range(places):
            try:
                worker = self._places.get(timeout=10)
            except queue.Empty:
                break
            if worker is not None:
                self._launcher.discard(worker)
        self._places.put(None)
        self._threads.shutdown(wait=False)
        self._launcher.close()

    def _started(self) -> Worker:
        if self._closed:
            raise SandboxError("the sandbox is closed.")
        return self._launcher.start()

    def _replaced(self, worker: Worker) -> None:
        self.replaced += 1
        self._launcher.discard(worker)
