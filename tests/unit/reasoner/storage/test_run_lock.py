"""A run has one writer: which processes are refused, and whose lock is taken over."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reasoner.storage.files import RunError
from reasoner.storage.run_lock import LOCK_FILE, RunLock, locked

HOLD = "import os, sys, time; from pathlib import Path; from reasoner.storage.run_lock import RunLock\n"
HOLD += "held = RunLock.take(Path(sys.argv[1])); child = 0; print('held', child, flush=True); time.sleep(60)"


@contextmanager
def holder(folder: Path, program: str = HOLD) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that holds a lock, and the child that it forked or 0."""
    child = 0
    with subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline().split()
            child = int(said[1])
            yield process, child
        finally:
            process.kill()
            if child:
                os.kill(child, signal.SIGKILL)


def write(folder: Path, host: str, pid: int) -> None:
    (folder / LOCK_FILE).write_text(json.dumps({"host": host, "pid": pid}))


def no_locks(descriptor: int, operation: int) -> None:
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with holder(run) as (process, _):
        told = (
            rf"run is being written by process {process.pid} on host {socket.gethostname()}: .*pass output=\.\.\. for"
        )
        with pytest.raises(RunError, match=told):
            RunLock.take(run)
    assert json.loads((run / LOCK_FILE).read_bytes())["pid"] == process.pid, "one that was killed leaves its name"
    with locked(run), pytest.raises(RunError, match=f"process {os.getpid()} on"):
        RunLock.take(run)
    assert not list(run.iterdir())


def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(tmp_path: Path) -> None:
    forking = HOLD.replace("child = 0;", "child = 0 if os.fork() else os.getpid();").replace(
        "print(", "child and print("
    )
    with holder(tmp_path, forking) as (process, child):
        process.kill()
        process.wait()
        with locked(tmp_path):
            os.kill(child, 0)  # it lives


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 3}', '{"host": "x", "pid": null}'])
def test_a_lock_that_names_nobody_is_free(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK_FILE).write_text(content)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_bytes())["pid"] == os.getpid()


def test_a_lock_of_another_host_is_left_and_how_to_remove_it_is_said(tmp_path: Path) -> None:
    write(tmp_path, "another", 12)
    told = rf"{tmp_path} is locked by process 12 on host another, .* remove {tmp_path / LOCK_FILE}; otherwise wait"
    with pytest.raises(RunError, match=told):
        RunLock.take(tmp_path)
    (tmp_path / LOCK_FILE).unlink()
    with locked(tmp_path):
        pass


def test_where_no_locks_are_known_a_process_that_lives_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", no_locks)
    write(tmp_path, socket.gethostname(), os.getppid())
    with pytest.raises(RunError, match=f"process {os.getppid()} on"):
        RunLock.take(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    write(tmp_path, socket.gethostname(), process.pid)
    with locked(tmp_path):
        pass


def test_a_lock_that_was_removed_while_it_was_taken_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    flock, calls = fcntl.flock, []

    def removed_meanwhile(descriptor: int, operation: int) -> None:
        if not calls:
            (tmp_path / LOCK_FILE).unlink()
        calls.append(operation)
        flock(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", removed_meanwhile)
    with locked(tmp_path):
        assert len(calls) == 2
        with pytest.raises(RunError):
            RunLock.take(tmp_path)


def test_a_folder_that_cannot_be_made_or_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be created: Not a directory\. Set output to a folder"):
        RunLock.take(tmp_path / "file" / "run")
    (tmp_path / LOCK_FILE).mkdir()
    with pytest.raises(RunError, match="cannot be written: Is a directory"):
        RunLock.take(tmp_path)
