"""Sandbox backends by name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

from sandbox.api import MIB, Limits, Sandbox, SandboxError
from sandbox.connection import Pipes
from sandbox.pool import Launcher, PooledSandbox
from sandbox.worker import BOOTSTRAP, GuestConfig, Worker

BACKENDS = ("docker", "bubblewrap", "unsafe-host")
LARGEST = Limits(memory_bytes=1024 * MIB)
RECYCLE_AFTER = 2_000


def open_sandbox(
    backend: str,
    *,
    workers: int | None = None,
    limits: Limits = LARGEST,
    packages: tuple[str, ...] = (),
    system: tuple[str, ...] = (),
    modules: Mapping[str, str] | None = None,
    recycle_after: int = RECYCLE_AFTER,
    **options: object,
) -> Sandbox:
    """Open a sandbox of the named backend. There is no automatic fallback to another one.

    Args:
        backend: docker, bubblewrap, or unsafe-host (no isolation at all: for programs that you trust).
        workers: jobs at a time; None: one per core.
        limits: the most that any job may ask for.
        packages: packages that jobs may import besides the standard library.
        system: names of Debian packages whose commands jobs may run, such as g++; unsafe-host uses the machine's own.
        modules: name -> source of modules that each worker loads once, in this order. A job names those that it imports
            (`Job.modules`), instead of receiving and compiling them as files.
        recycle_after: jobs that one worker runs before it is replaced; 1: a fresh container for each job.
        options: of that backend (docker: image, runtime, mode, cpus, tmpfs_bytes; bubblewrap: tmpfs_bytes).
    Raises:
        SandboxUnavailable: this machine lacks what it needs; the message says how to get it.
        SandboxError: an unknown backend or option, or a value that it does not accept.
    Example:
        >>> from sandbox import Job
        >>> with open_sandbox("unsafe-host", workers=1) as sandbox:
        ...     sandbox.run(Job(argv=("python", "main.py"), files={"main.py": b"print(6 * 7)"})).stdout
        b'42\\n'
    """
    kind = _launcher(backend)
    try:
        launcher = kind(limits=limits, packages=packages, system=system, **options)
    except TypeError as error:
        raise SandboxError(f"{backend}: {error}") from None
    launcher.modules = modules or {}
    return PooledSandbox(launcher, workers=workers or _cores(), recycle_after=recycle_after)


def _launcher(backend: str) -> Callable[..., Launcher]:
    if backend == "docker":
        from sandbox.docker import Docker

        return Docker
    if backend == "bubblewrap":
        from sandbox.bubblewrap import Bubblewrap

        return Bubblewrap
    if backend == "unsafe-host":
        return UnsafeHost
    raise SandboxError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}.")


def _cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


class UnsafeHost(Launcher):
    """Launcher without isolation, with the same supervisor and protocol: jobs run as this user, on this machine."""

    mode = "none"

    def __init__(self, *, limits: Limits, packages: tuple[str, ...] = (), system: tuple[str, ...] = ()) -> None:
        self.limits = limits

    def start(self) -> Worker:
        config = GuestConfig(mode="none", uid=None, tmpfs_bytes=0, inodes=0, modules=self.modules)
        return Worker(Pipes([sys.executable, "-I", "-B", "-c", BOOTSTRAP]), config, name="host worker")
