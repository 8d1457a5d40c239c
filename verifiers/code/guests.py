"""Jobs of the modules that run inside the sandbox, and what comes back from them."""

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
"""Modules inside the sandbox, each after those that it imports: name there, and file here."""
OVER_LIMIT = (
    JobOutcome.CPU_LIMIT,
    JobOutcome.WALL_TIMEOUT,
    JobOutcome.MEMORY_LIMIT,
    JobOutcome.OUTPUT_LIMIT,
)


class SandboxFault(RuntimeError):
    """The sandbox failed, not the program."""


@dataclass(frozen=True, slots=True)
class Results:
    """How a program did."""

    passed: int
    total: int
    reason: str = ""
    """The first thing that went wrong."""
    over_limit: bool = False
    """A limit ended it, so that what was not reached counts as failed."""
    mode: str = "calls"
    """calls (data in, data out), expressions (the same, but the program's process evaluates the arguments), stdio,
    tester (the tests ran in a process apart from the program's), or shared (in the program's own)."""
    unreached: int = 0
    """Tests that ended before anything was compared."""


@cache
def guest_modules() -> dict[str, str]:
    """Name and source of the modules that run inside, each after those that it imports."""
    folder = resources.files("verifiers.code.guest")
    return {name: (folder / f"{file}.py").read_text() for name, file in GUEST_MODULES.items()}


def job_of(script: str, request: Mapping[str, JSON], modules: tuple[str, ...], limits: Limits) -> Job:
    """A job of a guest module, which reads the request from `request.json`."""
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
    """The outcome of a job with its last words."""
    return ": ".join(part for part in (f"{result.outcome} ({result.detail})", last_line(result.stderr)) if part)
