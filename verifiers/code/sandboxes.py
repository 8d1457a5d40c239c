"""One sandbox for each process that grades, opened at its first program and gone with the process."""

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


def require_pytest() -> None:
    """See that a sandbox here can have pytest, before any test file is run.

    Raises:
        SandboxUnavailable: with what brings it.
    """
    try:
        installed("pytest")
    except SandboxError:
        raise SandboxUnavailable(
            "the reference is a test file for pytest, which is not installed here: pip install 'reasoner-rl[code]'"
        ) from None


class Place(NamedTuple):
    """Which sandbox programs run in."""

    backend: str
    packages: tuple[str, ...] = ()
    workers: int = 1
    system: tuple[str, ...] = ()
    """Debian packages whose programs jobs may run."""
    image: str = ""
    """Of Docker, in place of one that is built here."""
    runtime: str = ""
    """Of Docker, where it is not the engine's own default."""

    @property
    def backends(self) -> tuple[str, ...]:
        """Those to try, in order."""
        if self.backend != "auto":
            return (self.backend,)
        return ("docker",) if self.image or self.runtime else ISOLATED


def shared_sandbox(place: Place) -> Sandbox:
    """This process's sandbox of a kind.

    A grading pool's worker has one of its own, with one place, so that a pool of N workers holds N warm containers
    however many rows it grades; they die with the worker, however it dies.

    Raises:
        SandboxUnavailable: with how to get one.
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
                modules=guest_modules(),
                **given,
            )
        except SandboxUnavailable as error:
            missing.append(f"{name}: {error}")
    raise SandboxUnavailable(" ".join(missing))
