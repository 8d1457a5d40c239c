"""One file, one writer: who holds it, and how a second process is kept out."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import weakref
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self, cast

NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL})
"""Errno of a file system that knows no locks."""


class Writer(NamedTuple):
    """The process that holds a lock."""

    host: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host}"


class Held(Exception):
    """A lock cannot be had: another process has it, or one on another host did not give it back."""

    def __init__(self, writer: Writer | None, *, seen: bool) -> None:
        super().__init__(str(writer or "another process"))
        self.writer = writer
        """Who has it, where that is known."""
        self.seen = seen
        """False: it is on another host, and may be gone."""


class WriterLock:
    """A lock by a file of its own, held until it is released or the process dies.

    The operating system's lock on the file (flock) is the truth on one host: it goes with the process, however that
    ends. The file's text says who holds it, to people and to other hosts, whose locks may not be seen from here.
    """

    def __init__(self, file: Path, descriptor: int) -> None:
        self._file, self._descriptor = file, descriptor
        _HELD.add(self)

    @classmethod
    def hold(cls, file: Path) -> Self:
        """Lock by a file, which is made where it is not there yet; a lock whose process died is taken over.

        Raises:
            Held: by another process.
            OSError: the file cannot be written, or is a link.
        """
        while True:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            try:
                lock = cls._of(file, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            if lock is not None:
                return lock
            os.close(descriptor)  # of a file that its holder removed meanwhile

    @classmethod
    def _of(cls, file: Path, descriptor: int) -> Self | None:
        seen = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Held(_writer(file), seen=True) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            seen = False
        if not _is_at(file, descriptor):
            return None
        writer = _writer(file)
        if writer is not None and writer.host != socket.gethostname():
            raise Held(writer, seen=False)
        if writer is not None and not seen and writer.pid != os.getpid() and _alive(writer.pid):
            raise Held(writer, seen=True)
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


_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _after_fork() -> None:
    """Leave the lock to the parent: a child that outlives it must not keep it."""
    for lock in _HELD:
        lock.forget()


os.register_at_fork(after_in_child=_after_fork)


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


__all__ = ["Held", "Writer", "WriterLock"]
