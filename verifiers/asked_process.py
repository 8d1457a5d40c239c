"""Questions to code that may never end (SymPy, z3): asked in a process that is killed at its limit of CPU seconds."""

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
"""Wall-clock limit of starting the process and importing what answers."""
WALL_TIMES = 30
"""Wall-clock seconds that a CPU second may take on a busy machine."""
KEPT = 4096
"""Answers that are remembered."""


class ProcessLost(RuntimeError):
    """The process could not be started, or was lost for no fault of the question."""


class AskedProcess:
    """Answers of a function, which run in a child process, each within a limit of CPU seconds.

    The child is started at the first question. Safe to use from several threads and after a fork. It ends with its
    owner: it reads a pipe.

    Args:
        answerer: `module:function`; its arguments are pickled, and what it returns is text of one line.
        cpu_seconds: of one question.
        wall_seconds: of one question on a busy machine; None: WALL_TIMES as many.
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
        """Return what the answerer says, "unknown: why" where it raised, or "limit: which". Answers are remembered.

        Raises:
            ProcessLost: nobody could be asked.
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
        """End the process. Another one is started by the next question."""
        with self._lock:
            self._end()

    def _asked(self, question: tuple[Hashable, ...]) -> str:
        if self._owner != os.getpid():  # after a fork the process is another's
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
            said = self._line(self._wall_seconds)
        except BrokenPipeError:
            said = ""
        if said:
            self._line(START_SECONDS)  # "ready" for the next one
            return said
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
                f"the process of {self._answerer} did not start (status {self._end()}). Is what it imports installed?"
            )

    def _line(self, seconds: float) -> str:
        """The next line of the process; "" where it ended, or took longer."""
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
