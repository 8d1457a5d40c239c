"""Non-blocking byte connections to a supervisor; here over the pipes of a child process."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

STDERR_KEPT = 4_000
"""Most bytes kept of a supervisor's standard error: its end, which tells why it did not start."""


class Connection(Protocol):
    """Connection to one supervisor, which ends when it is closed. Used by one thread, except for `kill`."""

    def send(self, data: memoryview) -> int:
        """Write part of the data, at least one byte; return the number of bytes written.

        Raises:
            BlockingIOError: nothing can be written now.
            OSError: the supervisor is gone.
        """
        ...

    def receive(self, into: memoryview) -> int:
        """Read at least one byte; return the number of bytes, 0 if the supervisor has ended.

        Raises:
            BlockingIOError: there is nothing to read now.
        """
        ...

    def ready(self, event: int, seconds: float) -> bool:
        """Wait for `select.POLLIN` or `POLLOUT`; return False if the event did not come in time."""
        ...

    def complaint(self) -> str:
        """Return the end of the supervisor's standard error."""
        ...

    def close(self) -> None:
        """Close both ends: once no process has a copy of them open, the supervisor kills its job and ends."""
        ...

    def kill(self) -> None:
        """Kill the supervisor, from any thread; a waiting thread then finds that it has ended."""
        ...

    def wait(self) -> object:
        """Wait until what `kill` kills has ended."""
        ...


def polled(fd: int, event: int, seconds: float) -> bool:
    """Wait for an event on a descriptor; return True if it comes within `seconds`."""
    poll = select.poll()
    poll.register(fd, event)
    return seconds > 0 and bool(poll.poll(seconds * 1000))


class Pipes:
    """Connection to a child process by its three standard streams.

    Args:
        command: command to run.
        user: uid and gid to run as; None: this user's.
        cwd: its working directory.
    Raises:
        OSError: it cannot be started.
        RuntimeError: this process can start no thread.
    """

    def __init__(self, command: Sequence[str], *, user: int | None = None, cwd: str | None = None) -> None:
        self.process = in_one_thread(lambda: _popen(command, user, cwd))
        assert self.process.stdin
        assert self.process.stdout
        self._in, self._out = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._stderr = bytearray()
        threading.Thread(target=self._collect_stderr, daemon=True).start()

    def send(self, data: memoryview) -> int:
        return os.write(self._in, data)

    def receive(self, into: memoryview) -> int:
        return os.readv(self._out, [into])

    def ready(self, event: int, seconds: float) -> bool:
        return polled(self._out if event == select.POLLIN else self._in, event, seconds)

    def complaint(self) -> str:
        time.sleep(0.05)  # the end of its standard error arrives through another pipe
        return bytes(self._stderr).decode("utf-8", "replace").strip()

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # unread data is of no use now
                pipe.close()

    def kill(self) -> None:
        self.process.kill()

    def wait(self, seconds: float | None = None) -> int:
        """Wait for the process; return its exit status."""
        return self.process.wait(seconds)

    def poll(self) -> int | None:
        """Return the exit status of the process; None while it runs."""
        return self.process.poll()

    def _collect_stderr(self) -> None:
        assert self.process.stderr
        fd = self.process.stderr.fileno()
        try:
            while data := os.read(fd, 4096):
                self._stderr = (self._stderr + data)[-STDERR_KEPT:]
        except OSError:
            return
        finally:
            self.process.stderr.close()


def _popen(command: Sequence[str], user: int | None, cwd: str | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        start_new_session=True,  # a terminal's Ctrl-C is for the owner, which ends the worker in order
    )


_Start = tuple[Callable[[], "subprocess.Popen[bytes]"], "Future[subprocess.Popen[bytes]]"]
_starts: queue.SimpleQueue[_Start] = queue.SimpleQueue()
_starting = threading.Lock()
_starter: list[threading.Thread] = []


def in_one_thread(start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Start a process from a thread that lives as long as this process.

    Bubblewrap's first process dies with the thread that started it (prctl(2), PR_SET_PDEATHSIG), and callers' threads
    may end earlier. An executor of `concurrent.futures` will not do: it accepts no work once the main thread has ended.
    """
    with _starting:
        if not _starter:
            thread = threading.Thread(target=_start_all, name="sandbox-starter", daemon=True)
            thread.start()
            _starter.append(thread)
    done: Future[subprocess.Popen[bytes]] = Future()
    _starts.put((start, done))
    return done.result()


def _start_all() -> None:
    while True:
        start, done = _starts.get()
        try:
            done.set_result(start())
        except BaseException as error:  # handled by the caller
            done.set_exception(error)


def _after_fork() -> None:
    """Reset the starter thread: a forked child has only the thread that forked."""
    global _starts, _starting
    _starter.clear()
    _starts = queue.SimpleQueue[_Start]()
    _starting = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
