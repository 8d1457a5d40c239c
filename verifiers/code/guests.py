"""Jobs for the modules that run inside the sandbox, and their results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from sandbox.api import MIB, Job, JobOutcome, JobResult, Limits
from verifiers.code.bounds import last_line
from verifiers.verdict import JSON

RESULT_BYTES = 16 * MIB
TRUSTED_LIMITS = Limits(
    cpu_seconds=20.0,
    wall_seconds=80.0,
    memory_bytes=1024 * MIB,
    output_bytes=64 * MIB,
    file_bytes=4 * RESULT_BYTES,
)
PROGRAM_MODULES = ("standard", "arrays", "decoding", "wire", "handed", "useless", "program")
PLANNER_MODULES = (*PROGRAM_MODULES, "setups", "planner")
TESTER_MODULES = (
    *PLANNER_MODULES, "checks", "classes", "mocks", "standin", "derived", "channel", "shared", "judge", "pytest_run",
    "tester",
)  # fmt: skip
GUEST_MODULES = {name: name for name in (*TESTER_MODULES, "builder", "runner")} | {"pytest": "pytest_subset"}
"""Modules inside the sandbox, each after those that it imports: name in the sandbox -> name of the file here."""
OVER_LIMIT = (
    JobOutcome.CPU_LIMIT,
    JobOutcome.WALL_TIMEOUT,
    JobOutcome.MEMORY_LIMIT,
    JobOutcome.OUTPUT_LIMIT,
)


class SandboxFault(RuntimeError):
    """The sandbox failed; the program is not at fault."""


@dataclass(frozen=True, slots=True)
class Results:
    """Results of a program's tests."""

    passed: int
    total: int
    reason: str = ""
    """First thing that went wrong."""
    over_limit: bool = False
    """True if a limit stopped it, so that tests not reached count as failed."""
    mode: str = "calls"
    """calls (data in, data out), expressions (the same, but the program's process evaluates the arguments), stdio,
    tester (tests in a separate process), or shared (tests in the program's process)."""
    unreached: int = 0
    """Number of tests that ended before they compared anything."""


@cache
def guest_modules() -> dict[str, str]:
    """Return name -> source of the modules that run inside the sandbox, each after those that it imports."""
    folder = resources.files("verifiers.code.guest")
    return {name: (folder / f"{file}.py").read_text() for name, file in GUEST_MODULES.items()}


def job_of(script: str, request: Mapping[str, JSON], modules: tuple[str, ...], limits: Limits) -> Job:
    """Build the job of a guest module, which reads its request from `request.json`."""
    data = json.dumps(request).encode("ascii")
    modules += ("pytest",) if script != "program" and "file" not in request and b"pytest" in data else ()
    start = f"import {script}\n{script}.main()\n".encode()
    return Job(
        argv=("python", "main.py"),
        files={"main.py": start, "request.json": data},
        limits=limits,
        result_channel=True,
        modules=modules,
    )


def how_it_ended(result: JobResult) -> str:
    """Return a job's outcome with the last line of its standard error."""
    return ": ".join(part for part in (f"{result.outcome} ({result.detail})", last_line(result.stderr)) if part)
