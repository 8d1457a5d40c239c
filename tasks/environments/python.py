"""A Python interpreter as a tool: each call is a cell that runs in the sandbox.

State between calls is kept by running the earlier cells again, with their output discarded (`state: replay`). So a call
is still a pure function of the episode: it can be retried on another worker and repeated after a crash, and nothing of
one rollout is ever seen by another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Literal

from sandbox.api import MIB, Job, JobOutcome, JobResult, JobTooLarge, Limits, SandboxError
from sandbox.pool import LONGER
from tasks.base import TaskError
from tasks.environments.base import EnvironmentFault
from tasks.environments.calls import Parse
from tasks.environments.tools import Answer, Past, Tool, ToolEnvironment
from verifiers import JSON
from verifiers.code.sandboxes import CHOICES, Place, shared_sandbox

ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
"""A memory address in a `repr`: not repeatable."""
CUT = "\n... {} characters left out ...\n"
DISCARDED = "The cell was stopped, and its effects are discarded"
LIMITS: Mapping[JobOutcome, str] = {
    JobOutcome.CPU_LIMIT: "TimeoutError: more than {cpu:g} s of CPU time (earlier cells included)",
    JobOutcome.WALL_TIMEOUT: "TimeoutError: more than {wall:g} s",
    JobOutcome.MEMORY_LIMIT: "MemoryError: more than {memory} MB",
    JobOutcome.OUTPUT_LIMIT: "OSError: more than {output} bytes of output",
}
UNREPEATABLE = (JobOutcome.CPU_LIMIT, JobOutcome.WALL_TIMEOUT, JobOutcome.OUTPUT_LIMIT)
"""Outcomes after which the output depends on the moment at which the process was stopped; it is not shown."""
OUTPUT_BYTES = 1 << 20


class PythonTool(Tool):
    """Runs code in the sandbox and shows what it printed, and the value of a last expression.

    Args:
        state: replay (names and files of earlier cells are there) or none (every cell is a program of its own).
        cpu_seconds: CPU time of one call, the replay of earlier cells included.
        memory_mb: of the process.
        output_characters: of one answer; longer output loses its middle, which is said.
        packages: importable next to the standard library.
        sandbox: auto, docker, bubblewrap or unsafe-host, as in the verifier `code`.
    """

    name = "python"
    argument = "code"
    description = "Runs Python code and returns what it prints."

    def __init__(
        self,
        *,
        state: Literal["replay", "none"] = "replay",
        cpu_seconds: float = 4.0,
        memory_mb: int = 256,
        output_characters: int = 2_000,
        packages: list[str] | None = None,
        sandbox: str = "auto",
    ) -> None:
        if state not in ("replay", "none"):
            raise TaskError(f"state must be replay or none; got {state!r}.")
        if not 0 < cpu_seconds <= 20:
            raise TaskError(f"cpu_seconds must be above 0 and at most 20; got {cpu_seconds}.")
        if not 32 <= memory_mb <= 1024:
            raise TaskError(f"memory_mb must be from 32 to 1024; got {memory_mb}.")
        if output_characters < 100:
            raise TaskError(f"output_characters must be at least 100; got {output_characters}.")
        if sandbox not in CHOICES:
            raise TaskError(f"sandbox must be one of {', '.join(CHOICES)}; got {sandbox!r}.")
        self._replays = state == "replay"
        self.uses_seed = not self._replays
        self._most = output_characters
        self.place = Place(sandbox, tuple(sorted(packages or ())), modules=(("cells", cells_source()),))
        """Configuration of its sandbox."""
        self._limits = Limits(
            cpu_seconds=cpu_seconds,
            wall_seconds=4 * cpu_seconds,
            memory_bytes=memory_mb * MIB,
            output_bytes=OUTPUT_BYTES,
            input_bytes=16 * MIB,
        )
        self.call_seconds = (1 + LONGER) * self._limits.wall_seconds
        if self._replays:
            self.description += " Names and files of earlier calls are kept."

    def call(self, arguments: Mapping[str, JSON], past: Sequence[Past], seed: int) -> Answer:
        cells = [str(one.arguments[self.argument]) for one in past if _kept(one)] if self._replays else []
        try:
            result = self._run([*cells, str(arguments[self.argument])], seed=0 if self._replays else seed)
        except JobTooLarge:
            said = f"Error: the cells of an episode may have at most {self._limits.input_bytes // MIB} MB together"
            return Answer(said, error=True, data={"kept": False})
        ended = b"" if result.outcome in LIMITS else result.result.strip()
        text = ADDRESS.sub("0x...", result.stdout.decode("utf-8", "replace")).rstrip("\n")
        if not ended:
            if result.outcome in UNREPEATABLE:
                text = ""
            text = "\n".join(part for part in (text, self._how_it_ended(result)) if part)
        return Answer(shortened(text, self._most) or "(no output)", error=ended != b"1", data={"kept": bool(ended)})

    def _run(self, cells: Sequence[str], *, seed: int) -> JobResult:
        request = json.dumps({"cells": list(cells), "seed": seed}).encode("ascii")
        files = {"main.py": b"import cells\ncells.main()\n", "cells.json": request}
        job = Job(argv=("python", "main.py"), files=files, limits=self._limits, result_channel=True, modules=("cells",))
        try:
            result = shared_sandbox(self.place).run(job)
        except JobTooLarge:
            raise
        except SandboxError as error:
            raise EnvironmentFault(f"the Python tool has no sandbox: {error}") from error
        if result.outcome is JobOutcome.INFRASTRUCTURE_FAULT:
            raise EnvironmentFault(f"the sandbox failed, not the program: {result.detail}")
        return result

    def _how_it_ended(self, result: JobResult) -> str:
        """Why the cell did not end by itself, in the words of an exception."""
        limits = self._limits
        said = LIMITS.get(result.outcome, "the process ended").format(
            cpu=limits.cpu_seconds,
            wall=limits.wall_seconds,
            memory=limits.memory_bytes // MIB,
            output=limits.output_bytes,
        )
        return f"{said}. {DISCARDED}"


def _kept(past: Past) -> bool:
    """Return True if an earlier cell ended by itself: one that was stopped is not run again."""
    return isinstance(past.data, dict) and past.data.get("kept") is True


def shortened(text: str, most: int) -> str:
    """Cut the middle out of a long text and say how much.

    Example:
        >>> len(shortened("x" * 5_000, 200)) < 250
        True
    """
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}{CUT.format(len(text) - 2 * half)}{text[-half:]}"


@cache
def cells_source() -> str:
    """Return the source of the module that runs the cells inside the sandbox."""
    return (resources.files("tasks.environments.guest") / "cells.py").read_text()


class Python(ToolEnvironment):
    """A Python interpreter that the policy calls with a fenced block, or with `<tool_call>`.

    Args:
        parse: fenced or tool_call.
        max_calls: blocks run in one turn.
        state: replay or none.
        cpu_seconds: CPU time of one call, the replay of earlier cells included.
        memory_mb: of the process.
        output_characters: of one answer.
        packages: importable next to the standard library.
        sandbox: auto, docker, bubblewrap or unsafe-host.
    """

    name = "python"
    sample_turns = ("```python\nx = 6\n```\n", "```python\nprint(x * 7)\n```\n", "42")

    def __init__(
        self,
        *,
        parse: Parse = "fenced",
        max_calls: int = 4,
        state: Literal["replay", "none"] = "replay",
        cpu_seconds: float = 4.0,
        memory_mb: int = 256,
        output_characters: int = 2_000,
        packages: list[str] | None = None,
        sandbox: str = "auto",
    ) -> None:
        if parse == "tagged":
            raise TaskError("the Python tool takes parse: fenced or tool_call.")
        tool = PythonTool(
            state=state,
            cpu_seconds=cpu_seconds,
            memory_mb=memory_mb,
            output_characters=output_characters,
            packages=packages,
            sandbox=sandbox,
        )
        super().__init__([tool], parse=parse, max_calls=max_calls)
