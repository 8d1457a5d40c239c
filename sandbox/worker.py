"""Owner's side of a resident supervisor: starting it, and running jobs over its connection."""

from __future__ import annotations

import io
import json
import os
import select
import time
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

from sandbox.api import Job, JobOutcome, JobResult, JobTooLarge, Limits, SandboxError
from sandbox.connection import Connection
from sandbox.guest import frames

GUEST_MODULES = ("frames", "kernel", "measure", "sweep", "job", "child", "supervisor")
START_SECONDS = 60.0
ANSWER_GRACE = 15.0
_STREAMS = ("stdout", "stderr", "result")

# Reads the supervisor's source from standard input, so that any image with any Python version will do.
BOOTSTRAP = (
    "import sys,os,json,types;r=open(0,'rb',0,closefd=False)\n"
    "def take(n):\n"
    " b=b''\n"
    " while len(b)<n:\n"
    "  p=r.read(n-len(b))\n"
    "  if not p: os._exit(1)\n"
    "  b+=p\n"
    " return b\n"
    "m=json.loads(take(int.from_bytes(take(8),'big')))\n"
    "for n,s in m['modules']:\n"
    " sys.modules[n]=types.ModuleType(n);exec(compile(s,n+'.py','exec'),vars(sys.modules[n]))\n"
    "sys.modules['supervisor'].main(m['config'])\n"
)


_alive: weakref.WeakSet[Worker] = weakref.WeakSet()


def _after_fork() -> None:
    """Close the workers' pipes in a forked child: workers end when the owner's ends close, so no copy may stay open."""
    for worker in list(_alive):
        worker.close_pipes()
    _alive.clear()


os.register_at_fork(after_in_child=_after_fork)


class WorkerLost(SandboxError, ConnectionError):
    """The supervisor does not answer, has ended, or broke the protocol; its worker has to be replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestConfig:
    """Settings with which a supervisor is started."""

    mode: str
    """namespaces; uid (without mounts: a fresh uid per job, cleaned up afterwards); none (no isolation)."""
    uid: int | None
    """First uid of jobs; None: the supervisor's own, whose capabilities each job drops."""
    tmpfs_bytes: int
    inodes: int
    """Most inodes of each of a job's /work, /tmp and /dev/shm; `tmpfs_bytes` is the size of each."""
    modules: Mapping[str, str] = field(default_factory=dict[str, str])
    """Name -> source, loaded in this order; see `Job.modules`."""


@cache
def guest_sources() -> list[list[str]]:
    """Return the name and source of each module that runs inside the sandbox."""
    folder = resources.files("sandbox.guest")
    return [[name, (folder / f"{name}.py").read_text()] for name in GUEST_MODULES]


class Worker:
    """Running supervisor. Not thread-safe: it runs one job at a time."""

    def __init__(self, process: Connection, config: GuestConfig, *, name: str) -> None:
        self.name = name
        self.jobs = 0
        self.process = process
        self.own_files = False
        """True if its files are not shared with other workers, so that they reveal nothing of these."""
        _alive.add(self)
        start = json.dumps({"modules": guest_sources(), "config": asdict(config)}).encode()
        deadline = time.monotonic() + START_SECONDS
        try:
            self._write(len(start).to_bytes(8, "big") + start, deadline)
            greeting, _ = self._read_frame(deadline, 0)
        except WorkerLost:
            self.kill()
            raise
        self.own_files = greeting.get("own_files") is True

    def run(self, job: Job) -> tuple[JobResult, dict[str, Any]]:
        """Run a job; return its result and the supervisor's whole answer.

        Raises:
            WorkerLost: this worker has to be killed and replaced.
        """
        self.jobs += 1
        jobs = [job] if job.helper is None else [job, job.helper]
        wall = max(part.limits.wall_seconds for part in jobs)
        header = _describe(job)
        blobs = _blobs(job)
        if job.helper is not None:
            header["helper"] = _describe(job.helper)
            blobs += _blobs(job.helper)
        head = json.dumps({**header, "sizes": [len(blob) for blob in blobs]}).encode()
        deadline = time.monotonic() + wall + ANSWER_GRACE
        self._write(b"".join([len(head).to_bytes(8, "big"), head, *blobs]), deadline)
        most = sum(len(_STREAMS) * part.limits.output_bytes for part in jobs)
        answer, output = self._read_frame(deadline, most)
        try:
            helper = _result(answer["helper"], output[3:6]) if job.helper is not None else None
            return _result(answer, output[:3], helper), answer
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise WorkerLost(f"{self.name}: not an answer: {error}") from None

    def prove(self, limits: Limits) -> None:
        """Run an empty job, which shows if a job's namespaces and mounts are allowed here.

        Raises:
            WorkerLost: they are not; the worker has been ended.
        """
        result, _ = self.run(Job(argv=("python", "probe.py"), files={"probe.py": b""}, limits=limits))
        self.jobs = 0
        if result.outcome is not JobOutcome.OK:
            self.kill()
            raise WorkerLost(f"{self.name} cannot run a job: {result.detail}")

    def close_pipes(self) -> None:
        """Close this side of the pipes: once no process has a copy open, the supervisor kills its job and ends."""
        self.process.close()

    def kill(self) -> None:
        """Kill the supervisor, and everything that ends with it."""
        _alive.discard(self)
        self.close_pipes()
        self.process.kill()
        self.process.wait()

    def _write(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self.process.send(view[: 1 << 20]) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)
            except (OSError, ValueError):
                raise WorkerLost(f"{self.name} ended. {self._why()}") from None

    def _read(self, count: int, deadline: float) -> bytes:
        # Read in place and without a copy, because the C library keeps, for each thread, memory as large as its largest
        # outputs. A BytesIO returns its buffer itself once no view of it exists.
        buffer = io.BytesIO(bytes(count))
        view = buffer.getbuffer()
        while view:
            try:
                got = self.process.receive(view)
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
                continue
            except (OSError, ValueError):
                got = 0
            if not got:
                raise WorkerLost(f"{self.name} ended. {self._why()}")
            view = view[got:]
        view.release()
        return buffer.getvalue()

    def _read_frame(self, deadline: float, most: int) -> tuple[dict[str, Any], list[bytes]]:
        try:
            return frames.read_frame(lambda count: self._read(count, deadline), most)
        except (ValueError, KeyError, TypeError) as error:
            raise WorkerLost(f"{self.name} sent something other than a frame: {error}") from None

    def _wait(self, event: int, deadline: float) -> None:
        if not self.process.ready(event, deadline - time.monotonic()):
            raise WorkerLost(f"{self.name} did not answer in time.")

    def _why(self) -> str:
        return self.process.complaint() or "It printed nothing."


def checked(job: Job, largest: Limits, modules: Collection[str] = ()) -> None:
    """Check that a job can be run.

    Args:
        job: the job, with its helper.
        largest: limits of the sandbox.
        modules: names of the sandbox's preloaded modules.

    Raises:
        JobTooLarge: the job exceeds its own input limit.
        SandboxError: a path is absolute or leaves its folder, a memory or process limit is above the sandbox's own,
            argv is empty, or a module is unknown.
    """
    size = len(job.stdin) + sum(map(len, job.files.values()))
    if size > job.limits.input_bytes:
        raise JobTooLarge(f"a job may have at most {job.limits.input_bytes} bytes; got {size}.")
    for name, content in job.files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            raise SandboxError(f"file names must be relative and stay inside; got {name!r}.")
        if len(content) > job.limits.file_bytes:
            raise JobTooLarge(f"{name} may have at most {job.limits.file_bytes} bytes; got {len(content)}.")
    if len(json.dumps(_describe(job))) > frames.MAX_HEADER // 2:
        raise JobTooLarge(
            f"arguments, environment and file names may have at most {frames.MAX_HEADER // 2} bytes together."
        )
    if not job.argv:
        raise SandboxError("argv must name a program; it is empty.")
    if job.limits.memory_bytes > largest.memory_bytes:
        raise SandboxError(
            f"memory_bytes must be at most the sandbox's own {largest.memory_bytes}; got {job.limits.memory_bytes}."
            " Open the sandbox with larger limits."
        )
    if job.limits.processes > largest.processes:
        raise SandboxError(
            f"processes must be at most the sandbox's own {largest.processes}; got {job.limits.processes}."
        )
    unknown = sorted(set(job.modules) - set(modules))
    if unknown:
        known = ", ".join(modules) or "none"
        raise SandboxError(f"modules must be among those that the sandbox was opened with ({known}); got {unknown}.")
    if job.helper is not None:
        checked(job.helper, largest, modules)


def _describe(job: Job) -> dict[str, object]:
    return {
        "argv": list(job.argv),
        "files": list(job.files),
        "executable": [name for name in job.files if name in job.executable],
        "env": dict(job.env),
        "limits": asdict(job.limits),
        "result_channel": job.result_channel,
        "modules": list(job.modules),
    }


def _blobs(job: Job) -> list[bytes]:
    return [job.stdin, *job.files.values()]


def _result(answer: dict[str, Any], output: Sequence[bytes], helper: JobResult | None = None) -> JobResult:
    """Read a supervisor's answer. A job may have taken the supervisor over, so every field is checked."""
    code = answer["exit_code"]
    stdout, stderr, result = output
    return JobResult(
        outcome=JobOutcome(str(answer["outcome"])),
        exit_code=None if code is None else int(str(code)),
        stdout=stdout,
        stderr=stderr,
        result=result,
        cpu_seconds=float(str(answer["cpu_seconds"])),
        wall_seconds=float(str(answer["job_seconds"])),
        peak_memory_bytes=int(str(answer["peak_memory_bytes"])),
        detail=str(answer["detail"]),
        helper=helper,
    )
