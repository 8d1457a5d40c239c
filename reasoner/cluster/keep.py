"""Runs one command, and ends it with everything that it started when this process is told to or is left alone.

Started by `reasoner.cluster.seat` as a file, so that it imports nothing of the project. The first line of standard
input is the command as JSON; the end of standard input, which comes also with the death of the process that started
this one, ends everything; then the folder with the log, which nobody will read, is removed too. Standard output says
`{"pid": N}` and at last `{"exit": STATUS}`.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
LOOK_SECONDS = 0.1
KILL_SECONDS = 10.0


def descendants(root: int) -> list[int]:
    """Return all processes below one, by /proc; those that it adopted too."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
    found, newest = [], [root]
    while newest:
        newest = [pid for pid, parent in parents.items() if parent in newest]
        found += newest
    return found


def kill(pids: list[int]) -> None:
    """Send SIGKILL to processes; those that are gone are left out."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def kill_all_below(root: int) -> None:
    """Kill every process below this one until there is none."""
    until = time.monotonic() + KILL_SECONDS
    while (left := descendants(root)) and time.monotonic() < until:
        kill(left)
        reap()
        time.sleep(0.02)


def reap() -> dict[int, int]:
    """Collect ended children; return their wait statuses."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def main() -> None:
    """Run the command."""
    if os.fork():  # a child of init is not killed by those who kill their children, as Ray's workers do when they end
        return
    asked = open(0, "rb", buffering=0, closefd=False)  # unbuffered: `select` must see what follows the first line
    line = asked.readline()
    if not line.strip():
        return
    spec = json.loads(line)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with open(spec["log"], "ab", buffering=0) as log:
        try:
            child = subprocess.Popen(
                spec["command"],
                env=spec["environment"],
                cwd=spec["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=default_signals,
            )
        except OSError as error:
            log.write(f"{spec['command'][0]} cannot be started: {error}\n".encode())
            say({"exit": 127})
            return
    say({"pid": child.pid})
    status, stopping, alone = None, 0.0, False
    while status is None:
        ended = reap()
        if child.pid in ended:
            status = os.waitstatus_to_exitcode(ended[child.pid])
            break
        if stopping and time.monotonic() > stopping:
            kill([child.pid, *descendants(child.pid)])
        ready, _, _ = select.select([] if stopping else [asked], [], [], LOOK_SECONDS)
        if not ready:
            continue
        word = asked.readline().strip()
        if word == b"interrupt":
            signal_group(child.pid, signal.SIGINT)
        else:  # "stop", or nobody is left
            alone = not word
            stopping = time.monotonic() + spec["stop_seconds"]
            signal_group(child.pid, signal.SIGTERM)
    kill_all_below(os.getpid())
    if alone:
        import shutil  # slow to import, seldom needed

        shutil.rmtree(spec["folder"], ignore_errors=True)
    say({"exit": status})


def default_signals() -> None:
    """Give a new process the usual handling of signals."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a process group, if it is still there."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def say(row: dict[str, int]) -> None:
    """Write one line, if anybody listens."""
    try:
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
    except (BrokenPipeError, OSError):
        return


if __name__ == "__main__":
    main()
