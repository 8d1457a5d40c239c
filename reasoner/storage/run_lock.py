"""One run, one writer: who writes a run folder, and how a second one is kept out."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import weakref
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, cast

from reasoner.storage.files import RunError

LOCK_FILE = "run.lock"
NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL})
"""Errno of a file system that knows no locks."""


def launched_rank() -> int:
    """This process's place as torchrun or accelerate named it, before the processes have joined."""
    return int(os.environ.get("RANK", "0"))


class Writer(NamedTuple):
    """The process that writes a run folder."""

    host: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host}"


class RunLock:
    """The lock of a run folder, held until it is released or the process dies.

    The operating system's lock on the file (flock) is the truth on one host: it goes with the process, however that
    ends. The file's text says who holds it, to people and to other hosts, whose locks may not be seen from here.
    """

    def __init__(self, file: Path, descriptor: int) -> None:
        self._file, self._descriptor = file, descriptor
        _HELD.add(self)

    @classmethod
    def take(cls, folder: Path) -> RunLock:
        """Lock a folder, which is made where it is not there yet; a lock whose process died is taken over.

        Raises:
            RunError: another process writes there, or one on another host did not release it; says what to do.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"output {folder} cannot be made: {error.strerror}. Set output to a folder.") from error
        file = folder / LOCK_FILE
        while True:
            try:
                descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise RunError(f"{file} cannot be written: {error.strerror}. Set output to another folder.") from error
            try:
                lock = cls._of(file, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            if lock is not None:
                return lock
            os.close(descriptor)  # of a file that its holder removed meanwhile

    @classmethod
    def _of(cls, file: Path, descriptor: int) -> RunLock | None:
        seen = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _goes_on(file, _writer(file)) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            seen = False
        if not _is_at(file, descriptor):
            return None
        writer = _writer(file)
        if writer is not None and writer.host != socket.gethostname():
            raise RunError(
                f"{file.parent} is locked by {writer}, which cannot be seen from here. If that run no longer goes on,"
                f" remove {file}; otherwise wait for it, or pass output=... for a new run."
            )
        if writer is not None and not seen and writer.pid != os.getpid() and _alive(writer.pid):
            raise _goes_on(file, writer)
        content = json.dumps(Writer(socket.gethostname(), os.getpid())._asdict()).encode() + b"\n"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)
        return cls(file, descriptor)

    def release(self) -> None:
        """Remove the lock; a second call does nothing."""
        if self._descriptor < 0:
            return
        with suppress(OSError):
            if _is_at(self._file, self._descriptor):
                self._file.unlink()
        self.forget()

    def forget(self) -> None:
        """Close the file without a word to other processes: in a child, the lock stays its parent's."""
        with suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = -1


_HELD: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _after_fork() -> None:
    """Leave the lock to the parent: a child that outlives it must not keep the run locked."""
    for lock in _HELD:
        lock.forget()


os.register_at_fork(after_in_child=_after_fork)


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


def _goes_on(file: Path, writer: Writer | None) -> RunError:
    return RunError(
        f"{file.parent} is being written by {writer or 'another process'}: one run has one writer. Wait for it, or stop"
        " it (Ctrl-C; it leaves a checkpoint) and pass --resume; or pass output=... for a new run."
    )


def _writer(file: Path) -> Writer | None:
    """Who the file names; None where it names nobody: it is empty, or damaged."""
    try:
        row = cast("dict[str, object]", json.loads(file.read_bytes()))
        return Writer(str(row["host"]), int(cast("int", row["pid"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_at(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
