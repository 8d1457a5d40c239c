"""Sandboxes for tests; a backend that a machine lacks is skipped with the reason and the remedy."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Collection
from typing import Any, cast

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


def our_processes() -> list[str]:
    """Return the command lines of the sandbox processes on this machine, including those of containers."""
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "sys.modules['supervisor'].main" in line]
