"""Lock file that allows one writer process at a time and names it to the others."""

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
"""Error numbers of file systems without locks."""


class Writer(NamedTuple):
    """Process that has a lock."""

    host: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host}"


class Held(Exception):
    """The lock is taken: by another process, or by one on another host that did not release it."""

    def __init__(self, writer: Writer | None, *, seen: bool) -> None:
        super().__init__(str(writer or "another process"))
        self.writer = writer
        """Process that has the lock; None if unknown."""
        self.seen = seen
        """True if that process is known to be alive; False if it is on another host and may be gone."""


class WriterLock:
    """Lock on a file of its own, kept until it is released or the process dies.

    On one host the operating system's lock on the file (flock) decides; it ends with the process. The file's content
    names the process for people and for other hosts, which may not see the flock.
    """

    def __init__(self, file: Path, descriptor: int) -> None:
        self._file, self._descriptor = file, descriptor
        _HELD.add(self)

    @classmethod
    def hold(cls, file: Path) -> Self:
        """Take the lock; create the file if it is missing. The lock of a dead process is taken over.

        Raises:
            Held: another process has the lock.
            OSError: the file cannot be written, or is a link.
        """
        while True:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            try:
                lock = cls._locked(file, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            if lock is not None:
                return lock
            os.close(descriptor)  # the previous writer removed this file meanwhile: try again

    @classmethod
    def _locked(cls, file: Path, descriptor: int) -> Self | None:
        seen = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Held(writer_of(file), seen=True) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            seen = False
        if not _is_at(file, descriptor):
            return None
        writer = writer_of(file)
        if writer is not None and writer.host != socket.gethostname():
            raise Held(writer, seen=False)
        if writer is not None and not seen and writer.pid != os.getpid() and _alive(writer.pid):
            raise Held(writer, seen=True)
        content = json.dumps(Writer(socket.gethostname(), os.getpid())._asdict()).encode() + b"\n"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)
        return cls(file, descriptor)

    def release(self) -> None:
        """Release the lock and remove its file; a second call does nothing."""
        if self._descriptor < 0:
            return
        with suppress(OSError):
            if _is_at(self._file, self._descriptor):
                self._file.unlink()
        self.forget()

    def forget(self) -> None:
        """Close the file but leave the lock to other processes: in a forked child it remains the parent's."""
        with suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = -1


_HELD: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _after_fork() -> None:
    """Close the child's copies of locks: a child that outlives its parent must not keep them."""
    for lock in _HELD:
        lock.forget()


os.register_at_fork(after_in_child=_after_fork)


def writer_of(file: Path) -> Writer | None:
    """Return the process that a lock file names, which may be gone; None if the file is missing, empty or damaged."""
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


def is_alive(writer: Writer) -> bool | None:
    """Return True if a process of this host is there; None for one on another host."""
    return _alive(writer.pid) if writer.host == socket.gethostname() else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


__all__ = ["Held", "Writer", "WriterLock", "is_alive", "writer_of"]
