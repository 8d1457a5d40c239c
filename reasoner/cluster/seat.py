"""A place on this machine for one part of a run: starts its command, reads its output, ends it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from reasoner.cluster import keep
from verifiers.serve.addresses import free_port

PYTHON, FILES = "{python}", "{files}"
"""Words of a command that stand for this machine's Python and for the folder with the command's files."""
OUTPUT_BYTES = 1 << 20
"""Most bytes of output that are handed over at a time."""


@dataclass(frozen=True)
class Command:
    """What a part runs."""

    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """Variables in addition to the machine's own."""
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Files that the command needs, written to a folder of their own."""
    cwd: str | None = None
    stop_seconds: float = 10.0
    """Time to end after SIGTERM."""


@dataclass(frozen=True)
class Report:
    """What became of a command since the last look."""

    pid: int | None
    code: int | None
    """Exit status, negative for a signal; None: it runs."""
    output: bytes


class SeatLost(Exception):
    """The machine of a seat is gone."""


class Seat:
    """A place for one command at a time."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Take the place; nothing is started yet. `environment` holds further variables of its commands."""
        self.host, self.machine = "127.0.0.1", socket.gethostname()
        self._environment = dict(environment or {})
        self._folder = Path(tempfile.mkdtemp(prefix="reasoner-part-"))
        self._keep: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._code: int | None = None
        self._read = 0
        self._said = threading.Event()

    def free_port(self) -> int:
        """Return a port of the machine that nobody uses."""
        return free_port("")

    def sees(self, file: str, content: str) -> bool:
        """Return True if a file has this content here."""
        with suppress(OSError):
            return Path(file).read_text(encoding="utf-8") == content
        return False

    def start(self, command: Command) -> None:
        """Start a command; one that runs is ended first."""
        self.stop()
        files = self._folder / "files"
        shutil.rmtree(files, ignore_errors=True)
        for name, content in command.files.items():
            files.mkdir(exist_ok=True)
            (files / name).write_bytes(content)
        log = self._folder / "log"
        log.write_bytes(b"")
        standing = {PYTHON: sys.executable, FILES: str(files)}
        spec = {
            "command": [standing.get(word, word) for word in command.words],
            "environment": {**os.environ, **self._environment, **command.environment},
            "cwd": command.cwd if command.cwd and Path(command.cwd).is_dir() else None,
            "log": str(log),
            "folder": str(self._folder),
            "stop_seconds": command.stop_seconds,
        }
        self._pid, self._code, self._read = None, None, 0
        self._said = threading.Event()
        self._keep = subprocess.Popen(
            [sys.executable, "-I", "-S", str(keep.__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal reaches the starting command alone, which decides
        )
        threading.Thread(target=self._listen, args=(self._keep, self._said), daemon=True).start()
        self._tell(json.dumps(spec).encode())

    def _listen(self, process: subprocess.Popen[bytes], said: threading.Event) -> None:
        """Read what the keeping process says. If it is killed, kill what it kept."""
        assert process.stdin is not None
        assert process.stdout is not None
        pid = code = None
        process.wait()  # it leaves another one behind, which nobody's child is
        for line in process.stdout:
            row = json.loads(line)
            pid, code = row.get("pid", pid), row.get("exit", code)
            if process is self._keep:
                self._pid = pid
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                pipe.close()
        if code is None:
            if pid is not None:
                keep.kill([pid, *keep.descendants(pid)])
            code = -signal.SIGKILL
        if process is self._keep:
            self._code = code
        said.set()

    def _tell(self, line: bytes) -> None:
        assert self._keep is not None
        assert self._keep.stdin is not None
        with suppress(OSError, ValueError):  # it has ended
            self._keep.stdin.write(line + b"\n")
            self._keep.stdin.flush()

    def poll(self) -> Report:
        """Return what became of the command, with its output since the last call."""
        code = self._code
        try:
            with (self._folder / "log").open("rb") as file:
                file.seek(self._read)
                output = file.read(OUTPUT_BYTES)
        except OSError:
            output = b""
        self._read += len(output)
        return Report(self._pid, code if len(output) < OUTPUT_BYTES else None, output)

    def interrupt(self) -> None:
        """Send SIGINT to the command's process group."""
        if self._keep is not None:
            self._tell(b"interrupt")

    def stop(self) -> None:
        """End the command and everything that it started; wait for it."""
        if self._keep is None:
            return
        self._tell(b"stop")
        self._said.wait()
        self._keep = None

    def close(self) -> None:
        """End the command and remove the seat's files."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
