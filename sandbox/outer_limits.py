"""Limits on this process, and thus on everything bubblewrap starts in it: ulimits and control groups."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from sandbox.api import MIB, Limits

SUPERVISOR_BYTES = 64 * MIB
SUPERVISOR_PROCESSES = 16
DESCRIPTORS = 256
"""File descriptors that a process uses while it becomes a job (`sandbox/guest/child.py`)."""
LONG = 24 * 3600
"""CPU seconds that a supervisor may use in its lifetime."""
STACK_BYTES = 64 * MIB
UNLIMITED = 1 << 60
"""Value from which a control group's number means no limit (v1 writes the largest number that fits)."""


def shortages(limits: Limits) -> list[str]:
    """Return a sentence for each of this process's limits that is too low for a job with these limits."""
    found = [
        f"`ulimit -{flag}` allows {most} {unit}, and jobs need {needed}"
        for flag, kind, needed, unit in (
            ("f", resource.RLIMIT_FSIZE, limits.file_bytes, "bytes of a file"),
            ("n", resource.RLIMIT_NOFILE, max(DESCRIPTORS, limits.open_files), "open files"),
            ("u", resource.RLIMIT_NPROC, limits.processes + SUPERVISOR_PROCESSES, "processes"),
            ("v", resource.RLIMIT_AS, 2 * limits.memory_bytes + 1024 * MIB, "bytes of addresses"),
            ("d", resource.RLIMIT_DATA, 2 * limits.memory_bytes + 1024 * MIB, "bytes of data"),
            ("s", resource.RLIMIT_STACK, STACK_BYTES, "bytes of stack"),
            ("t", resource.RLIMIT_CPU, LONG, "seconds of processor time"),
        )
        if (most := resource.getrlimit(kind)[1]) != resource.RLIM_INFINITY and most < needed
    ]
    memory = min(
        (_number(folder, ("memory.max", "memory.limit_in_bytes")) for folder in groups("memory")), default=None
    )
    if memory is not None and memory < limits.memory_bytes + SUPERVISOR_BYTES:
        found.append(
            f"the control group of this process allows {memory // MIB} MiB of memory, and a job may use"
            f" {limits.memory_bytes // MIB} in addition to {SUPERVISOR_BYTES // MIB} of the sandbox"
        )
    left = min(
        (_number(folder, ("pids.max",)) - _number(folder, ("pids.current",), 0) for folder in groups("pids")),
        default=None,
    )
    if left is not None and left < limits.processes + SUPERVISOR_PROCESSES:
        found.append(
            f"the control group of this process has room for {left} more processes, and a job may start"
            f" {limits.processes} in addition to {SUPERVISOR_PROCESSES} of the sandbox"
        )
    return found


def groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group for a controller, and of its visible parents."""
    try:
        memberships = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    except OSError:
        return
    for line in memberships:
        _, kinds, path = line.split(":", 2)
        for fields in mounts:
            kind, *_, options = fields[fields.index("-") + 1 :]
            unified = kind == "cgroup2" and not kinds
            if unified or (kind == "cgroup" and controller in kinds.split(",") and controller in options.split(",")):
                root, top = fields[3], Path(fields[4])
                inside = path.removeprefix(root) if root != "/" and path.startswith(root) else path
                folder = top / inside.strip("/")
                while folder.is_relative_to(top):
                    if folder.is_dir():
                        yield folder
                    folder = folder.parent


def _number(folder: Path, names: tuple[str, ...], missing: int = UNLIMITED) -> int:
    """Return the number in the first of these files that exists; `missing` if none does."""
    for name in names:
        try:
            text = (folder / name).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else UNLIMITED
    return missing


class Pressure:
    """Detector, by kernel counters, of memory or processes that were refused to a job from outside the sandbox."""

    def __init__(self) -> None:
        self._limited = [
            folder / "pids.events" for folder in groups("pids") if _number(folder, ("pids.max",)) < UNLIMITED
        ]
        self._refused = self._refusals()
        self._killed = self._kills()

    def told(self, *, killed: bool) -> str:
        """Return a sentence on what was refused since the last call; empty if nothing was.

        Args:
            killed: True if the job ended by a SIGKILL that the sandbox did not send; only then is memory checked.
        """
        before, self._refused = self._refused, self._refusals()
        if self._refused != before:
            return "the control group around this process refused it another process (pids.max)"
        if killed:
            earlier, self._killed = self._killed, self._kills()
            if self._killed != earlier:
                return "the kernel killed a process for lack of memory on the machine or in the control group around it"
        return ""

    def _refusals(self) -> list[int]:
        return [_event(path, "max") for path in self._limited]

    def _kills(self) -> int:
        return _event(Path("/proc/vmstat"), "oom_kill")


def _event(path: Path, name: str) -> int:
    """Return a counter of a file of names and numbers; 0 if the file or the counter is missing."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[0] == name), 0)
