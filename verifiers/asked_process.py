"""Calls to code that may never end (SymPy, z3), run in a process that is killed at a limit of CPU seconds."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import subprocess
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Hashable

from verifiers.asked_child import HEADER
from verifiers.child_process import running

START_SECONDS = 120.0
"""Wall-clock limit for starting the process and importing the answerer."""
WALL_TIMES = 30
"""Default wall-clock limit, as a multiple of the limit of CPU seconds: the machine may be busy."""
KEPT = 4096
"""Most answers in the cache."""


class ProcessLost(RuntimeError):
    """The process did not start, or ended for a reason other than the question's limits."""


class AskedProcess:
    """Function that runs in a child process, with a limit of CPU seconds for each call.

    The child starts at the first question and exits when its owner does (its pipe closes). Safe to use from several
    threads and after a fork.

    Args:
        answerer: `module:function`. Its arguments are pickled; it returns one line of text.
        cpu_seconds: limit for one question.
        wall_seconds: wall-clock limit for one question; None: WALL_TIMES * cpu_seconds.
    """

    def __init__(self, answerer: str, *, cpu_seconds: float, wall_seconds: float | None = None) -> None:
        self.cpu_seconds = cpu_seconds
        self._answerer = answerer
        self._wall_seconds = WALL_TIMES * cpu_seconds if wall_seconds is None else wall_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._kept: OrderedDict[tuple[object, ...], str] = OrderedDict()

    def ask(self, *question: Hashable) -> str:
        """Return the answer to a question, from the cache if it was asked before.

        Returns:
            The answerer's text; "unknown: ..." if it raised an exception; "limit: ..." if it ran into a limit.

        Raises:
            ProcessLost: the process did not start, or ended without an answer.
        """
        with self._lock:
            found = self._kept.get(question)
            if found is None:
                found = self._asked(question)
                self._kept[question] = found
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return found

    def close(self) -> None:
        """End the process. The next question starts a new one."""
        with self._lock:
            self._end()

    def _asked(self, question: tuple[Hashable, ...]) -> str:
        if self._owner != os.getpid():  # after a fork the process belongs to the parent
            self._process = None
        if self._process is None or self._process.poll() is not None:
            self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        body = pickle.dumps(question)
        try:
            process.stdin.write(HEADER.pack(len(body)) + body)
            process.stdin.flush()
            answer = self._line(self._wall_seconds)
        except BrokenPipeError:
            answer = ""
        if answer:
            self._line(START_SECONDS)  # "ready" for the next question
            return answer
        code = self._end()
        if code == -signal.SIGPROF:
            return f"limit: {self.cpu_seconds:g} s of CPU time"
        raise ProcessLost(
            f"the process of {self._answerer} was lost (status {code}); the machine may be out of memory or too busy."
        )

    def _start(self) -> None:
        command = running("verifiers.asked_child", f"main({self._answerer!r}, {self.cpu_seconds!r})")
        self._process = process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._owner = os.getpid()
        weakref.finalize(self, _kill, process)
        if self._line(START_SECONDS) != "ready":
            raise ProcessLost(
                f"the process of {self._answerer} did not start (status {self._end()})."
                " Check that its imports are installed."
            )

    def _line(self, seconds: float) -> str:
        """Read the next line; return "" if the process ended or did not write one in time."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor, deadline, line = self._process.stdout.fileno(), time.monotonic() + seconds, bytearray()
        poller = select.poll()
        poller.register(descriptor, select.POLLIN | select.POLLHUP)
        while poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            byte = os.read(descriptor, 1)
            if not byte:
                return ""
            if byte == b"\n":
                return line.decode()
            line += byte
        return ""

    def _end(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=1)
        _kill(process)
        return process.returncode


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
