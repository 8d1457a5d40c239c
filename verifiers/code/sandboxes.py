"""Sandboxes of this process, one per configuration, opened for the first program and closed with the process."""

from __future__ import annotations

import atexit
import os
import threading
from typing import Any, NamedTuple

from sandbox import BACKENDS, Sandbox, SandboxError, SandboxUnavailable, open_sandbox
from sandbox.image import installed
from verifiers.code.guests import TRUSTED_LIMITS, guest_modules

ISOLATED = tuple(name for name in BACKENDS if name != "unsafe-host")
CHOICES = ("auto", *BACKENDS)

_opened: dict[tuple[object, ...], Sandbox] = {}
_checked_backends: set[str] = set()
_lock = threading.Lock()


def require(backend: str) -> None:
    """Check that this machine has what a backend needs, before the first row is graded.

    Raises:
        SandboxUnavailable: something is missing; the message says what, and how to get it.
    """
    if backend in _checked_backends or backend == "unsafe-host":
        return
    missing: list[str] = []
    for name in ISOLATED if backend == "auto" else (backend,):
        try:
            _require_one(name)
        except SandboxUnavailable as error:
            missing.append(f"{name}: {error}")
            continue
        _checked_backends.update({name, backend})
        return
    raise SandboxUnavailable(
        f"the code verifier runs programs in a sandbox, and none is available. {' '.join(missing)}"
    )


def _require_one(backend: str) -> None:
    if backend == "docker":
        from sandbox.docker import require_engine

        require_engine()
    else:
        from sandbox.bubblewrap import require_bubblewrap

        require_bubblewrap(TRUSTED_LIMITS)


def require_pytest() -> None:
    """Check that pytest is installed for the sandbox, before any test file is run.

    Raises:
        SandboxUnavailable: it is not; the message says how to install it.
    """
    try:
        installed("pytest")
    except SandboxError:
        raise SandboxUnavailable(
            "the reference is a test file for pytest, which is not installed here: pip install 'reasoner-rl[code]'"
        ) from None


class Place(NamedTuple):
    """Configuration of the sandbox for programs."""

    backend: str
    packages: tuple[str, ...] = ()
    workers: int = 1
    system: tuple[str, ...] = ()
    """Debian packages whose commands jobs may run."""
    image: str = ""
    """Docker image in place of one that is built here; empty: none."""
    runtime: str = ""
    """Docker runtime; empty: the engine's default."""
    modules: tuple[tuple[str, str], ...] = ()
    """(Name, source) of modules that jobs may ask for; empty: those of the code verifier."""

    @property
    def backends(self) -> tuple[str, ...]:
        """Backends to try, in order."""
        if self.backend != "auto":
            return (self.backend,)
        return ("docker",) if self.image or self.runtime else ISOLATED


def shared_sandbox(place: Place) -> Sandbox:
    """Return this process's sandbox of a configuration, opened on first use.

    Each worker of a grading pool has its own sandbox with a single worker, so a pool of N workers keeps N warm
    containers, however many rows it grades. They end with the worker, however it ends.

    Raises:
        SandboxUnavailable: there is none; the message says how to get one.
    """
    with _lock:
        key = (os.getpid(), place)
        if key not in _opened:
            _opened[key] = _first(place)
            atexit.register(_opened[key].close)
        return _opened[key]


def _first(place: Place) -> Sandbox:
    missing: list[str] = []
    given: dict[str, Any] = {
        name: value for name, value in (("image", place.image), ("runtime", place.runtime)) if value
    }
    for name in place.backends:
        try:
            return open_sandbox(
                name,
                workers=place.workers,
                packages=place.packages,
                system=() if place.image else place.system,
                limits=TRUSTED_LIMITS,
                modules=dict(place.modules) or guest_modules(),
                **given,
            )
        except SandboxUnavailable as error:
            missing.append(f"{name}: {error}")
    raise SandboxUnavailable(" ".join(missing))
