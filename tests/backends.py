"""Sandboxes for tests; what a machine does not offer is skipped with the reason and the remedy."""

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
    """A sandbox, or a skipped test that says how to get one."""
    try:
        return cast(PooledSandbox, open_sandbox(backend, **options))  # type: ignore[arg-type]
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def python(code: str, *, stdin: bytes = b"", result_channel: bool = False, **limits: float) -> Job:
    """A job that is one Python program."""
    return Job(
        argv=("python", "main.py"),
        files={"main.py": code.encode()},
        stdin=stdin,
        limits=Limits(**limits),  # type: ignore[arg-type]
        result_channel=result_channel,
    )


def said(result: JobResult) -> str:
    """Standard output, for comparing; all of the result where it did not end well."""
    assert result.outcome == "ok", result
    return result.stdout.decode()


def containers(pids: Collection[int]) -> dict[str, dict[str, Any]]:
    """The containers that these processes own, by their names, as the engine describes them."""
    found: dict[str, dict[str, Any]] = {}
    with engine() as client:
        for listed in client.containers(all=True, filters={"label": OWNER_LABEL}):
            if int(listed["Labels"][OWNER_LABEL].partition(".")[0]) in pids:
                with contextlib.suppress(NotFound):  # gone meanwhile
                    found[listed["Names"][0].lstrip("/")] = client.inspect_container(listed["Id"])
    return found


def our_processes() -> list[str]:
    """Command lines of sandbox processes on this machine, containers' among them."""
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "sys.modules['supervisor'].main" in line]
