"""One sandbox for each process that grades, opened at its first program and gone with the process."""

from __future__ import annotations

import atexit
import os
import threading

from sandbox import BACKENDS, Sandbox, SandboxUnavailable, open_sandbox
from verifiers.code.guests import TRUSTED_LIMITS, guest_modules

ISOLATED = tuple(name for name in BACKENDS if name != "unsafe-host")
CHOICES = ("auto", *BACKENDS)

_opened: dict[tuple[object, ...], Sandbox] = {}
_met: set[str] = set()
_lock = threading.Lock()


def require(backend: str) -> None:
    """See that this machine has what a backend needs, before the first row is graded.

    Raises:
        SandboxUnavailable: with what is missing and how to get it.
    """
    if backend in _met or backend == "unsafe-host":
        return
    missing: list[str] = []
    for name in ISOLATED if backend == "auto" else (backend,):
        try:
            _require_one(name)
        except SandboxUnavailable as error:
            missing.append(f"{name}: {error}")
            continue
        _met.update({name, backend})
        return
    raise SandboxUnavailable(
        f"the code verifier runs programs in a sandbox, and there is none here. {' '.join(missing)}"
    )


def _require_one(backend: str) -> None:
    if backend == "docker":
        from sandbox.docker import require_engine

        require_engine()
    else:
        from sandbox.bubblewrap import require_bubblewrap

        require_bubblewrap(TRUSTED_LIMITS)


def shared_sandbox(backend: str, packages: tuple[str, ...], workers: int) -> Sandbox:
    """This process's sandbox of a kind.

    A grading pool's worker has one of its own, with one place, so that a pool of N workers holds N warm containers
    however many rows it grades; they die with the worker, however it dies.

    Raises:
        SandboxUnavailable: with how to get one.
    """
    with _lock:
        key = (os.getpid(), backend, packages, workers)
        if key not in _opened:
            _opened[key] = _first(backend, packages, workers)
            atexit.register(_opened[key].close)
        return _opened[key]


def _first(backend: str, packages: tuple[str, ...], workers: int) -> Sandbox:
    missing: list[str] = []
    for name in ISOLATED if backend == "auto" else (backend,):
        try:
            return open_sandbox(
                name, workers=workers, packages=packages, limits=TRUSTED_LIMITS, modules=guest_modules()
            )
        except SandboxUnavailable as error:
            missing.append(f"{name}: {error}")
    raise SandboxUnavailable(" ".join(missing))
