"""One resident supervisor behind a pair of pipes, as its owner sees it."""

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

# Reads the supervisor's own source from its standard input: any image with a Python will do, of any age.
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
    """A forked child of the owner must not keep the workers' pipes open: they end when the owner's ends close."""
    for worker in list(_alive):
        worker.close_pipes()
    _alive.clear()


os.register_at_fork(after_in_child=_after_fork)


class WorkerLost(SandboxError, ConnectionError):
    """The supervisor is silent, gone, or talks nonsense; its worker has to be replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestConfig:
    """What a supervisor is started with."""

    mode: str
    """namespaces; uid (no mounts: a fresh uid per job, swept afterwards); none (no isolation)."""
    uid: int | None
    """Of the jobs; None keeps the supervisor's own, whose capabilities each job drops."""
    tmpfs_bytes: int
    inodes: int
    """Both of each of a job's /work, /tmp and /dev/shm."""
    modules: Mapping[str, str] = field(default_factory=dict[str, str])
    """Name to source, loaded in this order; see `Job.modules`."""


@cache
def guest_sources() -> list[list[str]]:
    """Name and source of each module that runs inside."""
    folder = resources.files("sandbox.guest")
    return [[name, (folder / f"{name}.py").read_text()] for name in GUEST_MODULES]


class Worker:
    """A started supervisor. Not thread-safe: one job at a time."""

    def __init__(self, process: Connection, config: GuestConfig, *, name: str) -> None:
        self.name = name
        self.jobs = 0
        self.process = process
        self.own_files = False
        """Whether its files are no other worker's too, so that nothing of them tells of others."""
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
        """Return the result of a job, and the supervisor's whole answer.

        Raises:
            WorkerLost: kill this worker and use another.
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
        """Run a job of our own: it shows whether a job's namespaces and mounts are allowed here.

        Raises:
            WorkerLost: they are not; the worker is ended.
        """
        result, _ = self.run(Job(argv=("python", "probe.py"), files={"probe.py": b""}, limits=limits))
        self.jobs = 0
        if result.outcome is not JobOutcome.OK:
            self.kill()
            raise WorkerLost(f"{self.name} cannot run a job: {result.detail}")

    def close_pipes(self) -> None:
        """Close our ends of the pipes: once no process holds another copy, the supervisor kills its job and ends."""
        self.process.close()

    def kill(self) -> None:
        """End the supervisor, and everything that dies with it."""
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
        # in place, and without a copy, for the C library keeps for each thread what its largest outputs took: a
        # BytesIO hands its bytes out as they are once nothing looks into them
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
            raise WorkerLost(f"{self.name} sent something else than a frame: {error}") from None

    def _wait(self, event: int, deadline: float) -> None:
        if not self.process.ready(event, deadline - time.monotonic()):
            raise WorkerLost(f"{self.name} did not answer in time.")

    def _why(self) -> str:
        return self.process.complaint() or "It said nothing."


def checked(job: Job, largest: Limits, modules: Collection[str] = ()) -> None:
    """See that a job can be run at all.

    Args:
        job: and its helper.
        largest: limits of the sandbox.
        modules: that it was opened with.

    Raises:
        JobTooLarge: over its own input limit.
        SandboxError: a path that is absolute or leaves its folder, a memory limit above the sandbox's own, or a module
            that it does not have.
    """
    size = len(job.stdin) + sum(map(len, job.files.values()))
    if size > job.limits.input_bytes:
        raise JobTooLarge(f"a job of at most {job.limits.input_bytes} bytes is accepted; got {size}.")
    for name, content in job.files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            raise SandboxError(f"file names must be relative and stay inside; got {name!r}.")
        if len(content) > job.limits.file_bytes:
            raise JobTooLarge(f"{name}: at most {job.limits.file_bytes} bytes a file; got {len(content)}.")
    if len(json.dumps(_describe(job))) > frames.MAX_HEADER // 2:
        raise JobTooLarge(f"arguments, environment and file names together: at most {frames.MAX_HEADER // 2} bytes.")
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
        raise SandboxError(f"modules must be of those that the sandbox was opened with ({known}); got {unknown}.")
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
