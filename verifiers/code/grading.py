"""From a program and its tests to results, through the sandbox. The program's process never holds an expected value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, cast

from sandbox.api import MIB, Job, JobOutcome, JobResult, Limits
from verifiers.code.compare import close, holds, same_output, stand_ins
from verifiers.code.guest import wire
from verifiers.errors import BadReference
from verifiers.verdict import JSON

if TYPE_CHECKING:
    from sandbox.api import Sandbox

TRUSTED_LIMITS = Limits(cpu_seconds=20.0, wall_seconds=80.0, memory_bytes=1024 * MIB, output_bytes=64 * MIB)
OVER_LIMIT = (
    JobOutcome.CPU_LIMIT,
    JobOutcome.WALL_TIMEOUT,
    JobOutcome.MEMORY_LIMIT,
    JobOutcome.OUTPUT_LIMIT,
)
LOADED_LINES = 1_000_000


class SandboxFault(RuntimeError):
    """The sandbox, not the program, failed: nothing can be said of the program."""


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
    """calls (data in, data out), stdio, or tester (the tests ran in a process apart from the program's)."""


@lru_cache(maxsize=8)
def guest(*names: str) -> dict[str, bytes]:
    """Sources of the modules that run inside."""
    folder = resources.files("verifiers.code.guest")
    return {f"{name}.py": (folder / f"{name}.py").read_bytes() for name in names}


class Grader:
    """Runs programs against tests in one sandbox."""

    def __init__(self, sandbox: Sandbox, limits: Limits, *, stop_early: bool) -> None:
        self._sandbox = sandbox
        self._limits = limits
        self._stop_early = stop_early
        self._plans: dict[str, Mapping[str, JSON]] = {}

    def stdio(self, code: str, cases: Sequence[Mapping[str, str]], *, compare: str, tolerance: float) -> Results:
        """Run the program once for each case."""
        passed, reason, over = 0, "", False
        for number, case in enumerate(cases, 1):
            files = {"main.py": code.encode("utf-8", "replace")}
            stdin = case["input"].encode("utf-8", "replace")
            result = self._run(Job(argv=("python", "main.py"), files=files, stdin=stdin, limits=self._limits))
            printed = result.stdout.decode("utf-8", "replace")
            if result.outcome is JobOutcome.OK and same_output(
                printed, case["output"], mode=compare, tolerance=tolerance
            ):
                passed += 1
                continue
            over = over or result.outcome in OVER_LIMIT
            reason = reason or f"case {number}: " + (
                "another output" if result.outcome is JobOutcome.OK else _ended(result)
            )
            if self._stop_early or over:
                break
        return Results(passed, len(cases), reason, over, "stdio")

    def calls(self, code: str, entry_point: str, cases: Sequence[Mapping[str, JSON]], *, tolerance: float) -> Results:
        """Call a function with each case's arguments."""
        asked: list[JSON] = [
            {
                "name": entry_point,
                "args": [wire.encode(item) for item in cast("list[JSON]", case.get("args", []))],
                "kwargs": {k: wire.encode(v) for k, v in cast("dict[str, JSON]", case.get("kwargs", {})).items()},
            }
            for case in cases
        ]
        replies, trouble, over = self._replies(code, "", [], asked)
        good: list[bool] = []
        for case, reply in zip(cases, replies, strict=True):
            try:
                got = wire.decode(reply["value"]) if reply and "value" in reply else None
            except wire.CannotCross:
                got = None
            good.append(bool(reply) and "value" in reply and close(got, case["expected"], tolerance))
        return _counted(good, replies, trouble, over)

    def asserts(self, code: str, reference: Mapping[str, JSON]) -> Results:
        """Hold the program against assertions, as inputs and outputs where they can be, or from a process apart."""
        plan = self._plan(reference)
        if "live" in plan:
            return self._live(code, reference, plan)
        cases = cast("list[Mapping[str, JSON]]", plan["cases"])
        classes = cast("list[str]", plan["classes"])
        asked = cast("list[JSON]", [case["call"] for case in cases])
        replies, trouble, over = self._replies(code, str(plan["setup"]), classes, asked)
        known = stand_ins(classes)
        good = [
            reply is not None and "value" in reply and holds(case, reply["value"], known)
            for case, reply in zip(cases, replies, strict=True)
        ]
        if reference.get("check"):
            return _counted(good, replies, trouble, over)
        results = _counted(good, replies, trouble, over)
        tests = sorted({cast(int, case["test"]) for case in cases})
        held = sum(all(ok for ok, case in zip(good, cases, strict=True) if case["test"] == test) for test in tests)
        return replace(results, passed=held, total=len(tests))

    def _plan(self, reference: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """The tests as cases, worked out once in a sandboxed process of their own."""
        key = json.dumps(reference, sort_keys=True)
        if key not in self._plans:
            job = _job("planner", reference, ("planner", "program", "wire"), TRUSTED_LIMITS)
            frames = _frames(self._run(job))
            answer = frames[0] if frames else {"fault": "the tests could not be read: they ran into a limit"}
            if "fault" in answer:
                raise BadReference(f"the tests do not run by themselves: {answer['fault']}")
            plan = answer.get("plan") or answer
            if "plan" in answer and not plan["cases"]:
                raise BadReference("the tests hold no comparison that the program could fail.")
            if len(self._plans) > 10_000:
                self._plans.clear()
            self._plans[key] = plan
        return self._plans[key]

    def _replies(
        self, code: str, setup: str, classes: list[str], calls: list[JSON]
    ) -> tuple[list[dict[str, JSON] | None], str, bool]:
        """What each call gave (None where it was not reached), what went wrong, and whether it was a limit."""
        request: dict[str, JSON] = {"code": code, "setup": setup, "classes": list(classes), "calls": calls}
        result = self._run(_job("program", request, ("program", "wire"), self._limits))
        found: list[dict[str, JSON] | None] = [None] * len(calls)
        trouble = ""
        for frame in _frames(result):
            index = frame.get("i")
            if "load" in frame and not trouble:
                trouble = f"the program does not load: {frame['load']}"
            if isinstance(index, int) and 0 <= index < len(found) and found[index] is None:
                found[index] = frame
        if result.outcome is not JobOutcome.OK or None in found:
            trouble = trouble or _ended(result)
        return found, trouble, result.outcome in OVER_LIMIT

    def _live(self, code: str, reference: Mapping[str, JSON], plan: Mapping[str, JSON]) -> Results:
        """The tests as they stand, in a process and namespaces apart from the program's."""
        classes = cast("list[str]", plan.get("classes", []))
        setup = str(plan.get("setup", ""))
        serve = _job("program", {"code": code, "setup": setup, "classes": list(classes), "serve": True},
                     ("program", "wire"), self._limits)  # fmt: skip
        job = _job("tester", {**reference, "classes": list(classes)}, ("tester", "planner", "program", "wire"),
                   replace(TRUSTED_LIMITS, wall_seconds=self._limits.wall_seconds + 10))  # fmt: skip
        result = self._run(replace(job, helper=serve))
        total = 1 if reference.get("check") else len(cast("list[JSON]", reference["tests"]))
        helper = result.helper
        over = result.outcome in OVER_LIMIT or (helper is not None and helper.outcome in OVER_LIMIT)
        frames = _frames(result)
        answer = frames[0] if frames else {}
        if "fault" in answer:
            raise BadReference(f"the tests do not run by themselves: {answer['fault']}")
        if "results" not in answer:
            why = str(answer.get("load") or (_ended(helper) if over and helper else _ended(result)))
            return Results(0, total, why, over, "tester")
        rows = cast("list[dict[str, JSON]]", answer["results"])
        failed = [row for row in rows if row.get("ok") is not True]
        reason = str(failed[0].get("why", "")) if failed else ""
        return Results(len(rows) - len(failed), total, reason, over and bool(failed), "tester")

    def _run(self, job: Job) -> JobResult:
        result = self._sandbox.run(job)
        if result.outcome is JobOutcome.INFRASTRUCTURE_FAULT:
            raise SandboxFault(result.detail)
        return result


def _job(script: str, request: Mapping[str, JSON], modules: tuple[str, ...], limits: Limits) -> Job:
    data = json.dumps(request).encode("ascii")
    return Job(
        argv=("python", f"{script}.py"),
        files={**guest(*modules), "request.json": data},
        limits=limits,
        result_channel=True,
    )


def _frames(result: JobResult) -> list[dict[str, JSON]]:
    """The lines of a result channel that are JSON objects."""
    found: list[dict[str, JSON]] = []
    for line in result.result.split(b"\n", LOADED_LINES)[:-1]:
        try:
            frame = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(frame, dict):
            found.append(frame)
    return found


def _counted(good: list[bool], replies: Sequence[Mapping[str, JSON] | None], trouble: str, over: bool) -> Results:
    reason = trouble
    if not reason and not all(good):
        first = good.index(False)
        reply = replies[first] or {}
        raised = f" raised {reply.get('message')}" if "raised" in reply else " gave another value"
        reason = f"call {first + 1}{raised}"
    return Results(sum(good), len(good), reason[:500], over and not all(good), "calls")


def _ended(result: JobResult) -> str:
    said = result.stderr.decode("utf-8", "replace").strip().split("\n")[-1][:200]
    return ": ".join(part for part in (f"{result.outcome} ({result.detail})", said) if part)
