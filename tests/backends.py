"""Sandboxes for tests; a backend that a machine lacks is skipped with the reason and the remedy."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from docker.errors import NotFound

from sandbox import Job, JobResult, Limits, SandboxUnavailable, open_sandbox
from sandbox.docker import OWNER_LABEL
from sandbox.engine import engine
from sandbox.pool import PooledSandbox

ISOLATED = ("docker", "bubblewrap")


def opened(backend: str, **options: object) -> PooledSandbox:
    """Return a sandbox, or skip the test with instructions for getting one."""
    try:
        return cast(PooledSandbox, open_sandbox(backend, **options))  # type: ignore[arg-type]
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def python(code: str, *, stdin: bytes = b"", result_channel: bool = False, **limits: float) -> Job:
    """Build a job that is one Python program."""
    return Job(
        argv=("python", "main.py"),
        files={"main.py": code.encode()},
        stdin=stdin,
        limits=Limits(**limits),  # type: ignore[arg-type]
        result_channel=result_channel,
    )


def said(result: JobResult) -> str:
    """Return standard output for a comparison, or the whole result if the job did not end well."""
    assert result.outcome == "ok", result
    return result.stdout.decode()


def containers(pids: Collection[int]) -> dict[str, dict[str, Any]]:
    """Return the engine's descriptions of the containers that these processes own, by name."""
    found: dict[str, dict[str, Any]] = {}
    with engine() as client:
        for listed in client.containers(all=True, filters={"label": OWNER_LABEL}):
            if int(listed["Labels"][OWNER_LABEL].partition(".")[0]) in pids:
                with contextlib.suppress(NotFound):  # gone meanwhile
                    found[listed["Names"][0].lstrip("/")] = client.inspect_container(listed["Id"])
    return found


def family(pid: int) -> list[psutil.Process]:
    """Return a process with all its descendants."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def state_of_things(backend: str) -> dict[str, int]:
    """Return counts of what this process and its sandboxes hold, which must not drift; resident memory in MiB."""
    me = psutil.Process()
    everything, ids = family(me.pid), list[str]()
    for one in containers({me.pid}).values() if backend == "docker" else ():
        everything += family(one["State"]["Pid"])
        ids.append(one["Id"])
    alive = [one for one in everything if one.is_running()]
    groups = [path for path, _, _ in os.walk("/sys/fs/cgroup") if any(name in path for name in ids)]
    return {
        "containers": len(ids),
        "cgroups": len(groups),
        "descriptors": me.num_fds(),
        "zombies": sum(one.status() == psutil.STATUS_ZOMBIE for one in alive),
        "processes": len(alive),
        "resident": sum(one.memory_info().rss for one in alive) >> 20,
        "mounts": len(Path("/proc/mounts").read_text().splitlines()),
    }


def our_processes() -> list[str]:
    """Return the command lines of the sandbox processes on this machine, including those of containers."""
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "sys.modules['supervisor'].main" in line]
