"""One run, one writer: who writes a run folder, and how a second one is kept out."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from reasoner.storage.files import RunError
from verifiers.one_writer import Held, WriterLock

LOCK_FILE = "run.lock"


def launched_rank() -> int:
    """This process's place as torchrun or accelerate named it, before the processes have joined."""
    return int(os.environ.get("RANK", "0"))


class RunLock(WriterLock):
    """The lock of a run folder, held until it is released or the process dies."""

    @classmethod
    def take(cls, folder: Path) -> Self:
        """Lock a folder, which is made where it is not there yet; a lock whose process died is taken over.

        Raises:
            RunError: another process writes there, or one on another host did not release it; says what to do.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"output {folder} cannot be made: {error.strerror}. Set output to a folder.") from error
        file = folder / LOCK_FILE
        try:
            return cls.hold(file)
        except OSError as error:
            raise RunError(f"{file} cannot be written: {error.strerror}. Set output to another folder.") from error
        except Held as held:
            raise RunError(_told(folder, file, held)) from held


def _told(folder: Path, file: Path, held: Held) -> str:
    if not held.seen:
        return (
            f"{folder} is locked by {held}, which cannot be seen from here. If that run no longer goes on, remove"
            f" {file}; otherwise wait for it, or pass output=... for a new run."
        )
    return (
        f"{folder} is being written by {held}: one run has one writer. Wait for it, or stop it (Ctrl-C; it leaves a"
        " checkpoint) and pass --resume; or pass output=... for a new run."
    )


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold the lock of a run folder inside.

    Raises:
        RunError: as of `RunLock.take`.
    """
    lock = RunLock.take(folder)
    try:
        yield
    finally:
        lock.release()
