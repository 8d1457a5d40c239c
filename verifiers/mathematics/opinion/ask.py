"""Asking SymPy: a process of its own for each asker, started at the first question and killed at its limit."""

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

from verifiers.child_process import running
from verifiers.mathematics.nodes import Node
from verifiers.mathematics.opinion.child import HEADER

START_SECONDS = 120.0
"""Wall-clock limit of starting the process and importing SymPy."""
WALL_TIMES = 30
"""Wall-clock seconds that a CPU second may take on a busy machine."""
KEPT = 4096
"""Answers that are remembered."""


class OpinionFault(RuntimeError):
    """The opinion's process could not be started, or was lost for no fault of the question."""


class SecondOpinion:
    """SymPy's answers to pairs of expressions, each within a limit of CPU seconds.

    Safe to use from several threads and after a fork. Its process ends with its owner: it reads a pipe.

    Args:
        cpu_seconds: of one question.
    """

    def __init__(self, cpu_seconds: float) -> None:
        self.cpu_seconds = cpu_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._kept: OrderedDict[tuple[Node, Node], str] = OrderedDict()

    @property
    def version(self) -> str:
        """What its answers depend on: `sympy 1.14.0 2s`."""
        from importlib import metadata

        return f"sympy {metadata.version('sympy')} {self.cpu_seconds:g}s"

    def ask(self, gold: Node, answer: Node) -> str:
        """Return "equal", "different", "unknown: why" or "limit: which".

        Raises:
            OpinionFault: nobody could be asked.
        """
        with self._lock:
            found = self._kept.get((gold, answer))
            if found is None:
                found = self._asked(gold, answer)
                self._kept[gold, answer] = found
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return found

    def close(self) -> None:
        """End the process. Another one is started by the next question."""
        with self._lock:
            self._end()

    def _asked(self, gold: Node, answer: Node) -> str:
        if self._owner != os.getpid():  # after a fork the process is another's
            self._process = None
        if self._process is None or self._process.poll() is not None:
            self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        question = pickle.dumps((gold, answer))
        try:
            process.stdin.write(HEADER.pack(len(question)) + question)
            process.stdin.flush()
            said = self._line(WALL_TIMES * self.cpu_seconds)
        except BrokenPipeError:
            said = ""
        if said:
            self._line(START_SECONDS)  # "ready" for the next one
            return said
        code = self._end()
        if code == -signal.SIGPROF:
            return f"limit: {self.cpu_seconds:g} s of CPU time"
        raise OpinionFault(f"SymPy's process was lost (status {code}); the machine may be out of memory or too busy.")

    def _start(self) -> None:
        command = running("verifiers.mathematics.opinion.child", f"main({self.cpu_seconds!r})")
        self._process = process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._owner = os.getpid()
        weakref.finalize(self, _kill, process)
        if self._line(START_SECONDS) != "ready":
            raise OpinionFault(f"SymPy's process did not start (status {self._end()}). Is sympy installed?")

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
