"""Lock of a run folder: only one process may write a run."""

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
    """Return this process's rank as set by torchrun or accelerate, known before the processes are connected."""
    return int(os.environ.get("RANK", "0"))


class RunLock(WriterLock):
    """Lock of a run folder, kept until it is released or the process dies."""

    @classmethod
    def take(cls, folder: Path) -> Self:
        """Lock a folder, creating it if missing. A lock whose process has died is taken over.

        Raises:
            RunError: another process writes there, or one on another host has not released its lock; the message says
                what to do.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"output {folder} cannot be created: {error.strerror}. Set output to a folder.") from error
        file = folder / LOCK_FILE
        try:
            return cls.hold(file)
        except OSError as error:
            raise RunError(f"{file} cannot be written: {error.strerror}. Set output to another folder.") from error
        except Held as held:
            raise RunError(_locked_message(folder, file, held)) from held


def _locked_message(folder: Path, file: Path, held: Held) -> str:
    if not held.seen:
        return (
            f"{folder} is locked by {held}, which cannot be checked from this machine. If that run is no longer active,"
            f" remove {file}; otherwise wait for it, or pass output=... for a new run."
        )
    return (
        f"{folder} is being written by {held}: a run can have only one writer. Wait for it, or stop it (Ctrl-C; it"
        " writes a checkpoint) and pass --resume; or pass output=... for a new run."
    )


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Lock a run folder until the block ends.

    Raises:
        RunError: as in `RunLock.take`.
    """
    lock = RunLock.take(folder)
    try:
        yield
    finally:
        lock.release()
