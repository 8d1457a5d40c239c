"""From a program and its tests to results, through the sandbox. The program's process never holds an expected value."""

from __future__ import annotations

import ast
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Generic, NamedTuple, TypedDict, TypeVar, cast

from sandbox.api import MIB, Job, JobOutcome, JobResult, Limits
from verifiers.code.bounds import Frame, Joined, Replies, first_frame, last_line, may_be
from verifiers.code.compare import NOTHING, Case, alike, holds, stand_ins
from verifiers.code.output import OutputRule, same_output
from verifiers.code.references import listed, objects, whole_prelude
from verifiers.code.values import ValueRule, same_value
from verifiers.errors import BadReference
from verifiers.jsonl import is_list, is_object
from verifiers.verdict import JSON

if TYPE_CHECKING:
    from sandbox.api import Sandbox

RESULT_BYTES = 16 * MIB
TRUSTED_LIMITS = Limits(
    cpu_seconds=20.0,
    wall_seconds=80.0,
    memory_bytes=1024 * MIB,
    output_bytes=64 * MIB,
    file_bytes=4 * RESULT_BYTES,
)
STDIO_BUDGET = 10.0
"""CPU time of all of a program's cases together, as a multiple of the limit of one."""
TOTAL_SECONDS = 240.0
"""The same where the reference has a limit for each case or call: the sum of these limits, and at most this."""
START_SECONDS = 0.5
"""CPU time for the start of Python and the prelude, beside what a reference gives a case, a call or its tests."""
PRELUDED = """
__import__("builtins").exec(compile(open("program.py", "rb").read(), "program.py", "exec", dont_inherit=True))
"""
"""Runs a program after its prelude, as a file of its own: `from __future__` may stand at its top."""
HELD_INPUT = """{code}
args__, kwargs__ = given__()
args__ = [(lambda *a, held=v: held(*a)) if type(v).__name__ == "StandIn" else v for v in args__]
assert {name}(*args__, **kwargs__) == ({output})
"""
GUEST_MODULES = {
    "wire": "wire", "program": "program", "planner": "planner", "tester": "tester", "pytest": "pytest_subset",
}  # fmt: skip
"""Modules inside the sandbox, each after those that it imports: name there, and file here."""
MOST_LEFT_OUT = 8
"""Inputs of one problem that its oracle may fail to answer."""
KEPT, KEPT_CHARACTERS = 2_000, 30_000_000
"""References, plans and results that one process remembers, and the characters of what they stand under."""
OVER_LIMIT = (
    JobOutcome.CPU_LIMIT,
    JobOutcome.WALL_TIMEOUT,
    JobOutcome.MEMORY_LIMIT,
    JobOutcome.OUTPUT_LIMIT,
)
Value = TypeVar("Value")


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
    """calls (data in, data out), expressions (the same, but the program's process evaluates the arguments), stdio, or
    tester (the tests ran in a process apart from the program's)."""


class Program(NamedTuple):
    """A tested program: what its process runs, in this order."""

    prelude: str
    """What the prompt gave it, where it does not carry on from there itself."""
    code: str


class OracleCase(NamedTuple):
    """An input, and what the oracle returned for it."""

    given: JSON
    returned: JSON


class Plan(TypedDict, total=False):
    """Tests as cases; as they stand, in a process of their own, if `live` is there."""

    cases: list[Case]
    setup: str
    classes: list[str]
    """Names of the classes of the tests."""
    live: str
    """Why the tests cannot be cases."""
    late_setup: bool
    fault: str
    """What the tests raise by themselves."""


class Memory(Generic[Value]):
    """The last so many values, by a key of texts that is as long as they are large; used from several threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, ...], Value] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def peek(self, *key: str) -> Value | None:
        """The value under a key, if there is one."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, *key: str, value: Value) -> None:
        """Keep a value; those that were not asked for the longest go."""
        with self._lock:
            self._characters += 0 if key in self._kept else sum(map(len, key))
            self._kept[key] = value
            while len(self._kept) > KEPT or (self._characters > KEPT_CHARACTERS and len(self._kept) > 1):
                gone, _ = self._kept.popitem(last=False)
                self._characters -= sum(map(len, gone))

    def get(self, *key: str, make: Callable[[], Value]) -> Value:
        """The value under a key, made where it is not there."""
        found = self.peek(*key)
        if found is None:
            found = make()
            self.put(*key, value=found)
        return found


class Grader:
    """Runs programs against tests in one sandbox."""

    def __init__(self, sandbox: Sandbox, limits: Limits, *, stop_early: bool) -> None:
        self._sandbox = sandbox
        self._limits = limits
        self._stop_early = stop_early
        self._each = False
        """The limit is of each case or call."""
        self._plans: Memory[Plan] = Memory()
        self._oracles: Memory[list[OracleCase]] = Memory()

    def within(self, seconds: float | None) -> Grader:
        """Return a grader that gives each run so much CPU time (None: as this one), with the same memory of plans."""
        if seconds is None:
            return self
        other = copy(self)
        allowed = seconds + START_SECONDS
        other._limits = replace(self._limits, cpu_seconds=allowed, wall_seconds=4 * allowed)
        other._each = True
        return other

    def _total_seconds(self, runs: int) -> float:
        """CPU time of so many cases or calls together."""
        limit = self._limits.cpu_seconds
        return min(runs * limit, TOTAL_SECONDS) if self._each else STDIO_BUDGET * limit

    def stdio(self, code: str, reference: Mapping[str, JSON], *, rule: OutputRule) -> Results:
        """Run the program once for each case."""
        passed, reason, over, spent = 0, "", False, 0.0
        cases = objects(reference, "cases")
        files = _main(code, str(reference.get("prelude") or ""))
        for number, case in enumerate(cases, 1):
            stdin = str(case["input"]).encode("utf-8", "replace")
            result = self._run(Job(argv=("python", "main.py"), files=files, stdin=stdin, limits=self._limits))
            ok = result.outcome is JobOutcome.OK
            right_size = may_be(result.stdout, str(case["output"]))
            printed = result.stdout.decode("utf-8", "replace") if right_size else ""
            if ok and right_size and same_output(printed, str(case["output"]), rule):
                passed += 1
            else:
                over = over or result.outcome in OVER_LIMIT
                reason = reason or f"case {number}: " + ("another output" if ok else _ended(result))
                if self._stop_early:
                    break
            spent += result.cpu_seconds
            if number < len(cases) and spent > self._total_seconds(len(cases)):
                over, reason = True, reason or f"its first {number} cases took {spent:.1f} s of CPU time"
                break
        return Results(passed, len(cases), reason, over, "stdio")

    def calls(self, program: Program, reference: Mapping[str, JSON], *, rule: ValueRule) -> Results:
        """Call a function with each call's arguments and compare with what is expected."""
        calls = objects(reference, "calls")
        name = reference["entry_point"]
        asked: list[JSON] = [{"name": name, "args": c.get("args", []), "kwargs": c.get("kwargs", {})} for c in calls]
        replies, trouble, over = self._each_reply(program, asked, [call["expected"] for call in calls])
        good = [
            same_value((reply or {}).get("value", NOTHING), call["expected"], rule)
            for call, reply in zip(calls, replies, strict=True)
        ]
        return _counted(good, replies, trouble, over)

    def oracle(self, program: Program, key: str, reference: Mapping[str, JSON], *, rule: ValueRule) -> Results:
        """Call a function with each input and compare with what the oracle, in a world of its own, returns."""
        cases = self._oracles.get(key, make=lambda: self._oracle_cases(reference))
        asked: list[JSON] = [_call(reference, case.given) for case in cases]
        replies, trouble, over = self._each_reply(program, asked, [case.returned for case in cases])
        good = [
            same_value(value, case.returned, rule)
            if "compare" in reference
            else alike(value, case.returned, tolerance=rule.tolerance)
            for case, value in zip(cases, ((reply or {}).get("value", NOTHING) for reply in replies), strict=True)
        ]
        return _counted(good, replies, trouble, over)

    def _each_reply(
        self, program: Program, calls: Sequence[JSON], expected: Sequence[JSON]
    ) -> tuple[Sequence[Frame | None], str, bool]:
        """As `_replies`; where each call has a limit of its own, one that ran into it is asked again, first.

        So no call takes more than the limit, however many there are; the program is loaded anew with each start.
        """
        if not self._each:
            return self._replies(program, calls, expected=expected)
        found = Joined(len(calls))
        starts = max(1, int(self._total_seconds(len(calls)) / self._limits.cpu_seconds))
        for _ in range(starts):
            at = found.reached
            replies, trouble, over = self._replies(program, calls[at:], expected=expected[at:])
            found.add(replies)
            if found.reached == len(calls) or not over or found.reached == at:
                return found, trouble, over and found.reached < len(calls)
        return found, f"its first {found.reached} calls took all of the time that {len(calls)} have", True

    def asserts(self, program: Program, key: str, reference: Mapping[str, JSON]) -> Results:
        """Hold the program against assertions, as inputs and outputs where they can be, or from a process apart."""
        plan = self._plans.get(key, make=lambda: self._plan(reference))
        if "live" in plan:
            return self._live(program, reference, plan)
        cases = plan.get("cases", [])
        replies, trouble, over = self._replies(program, [case["call"] for case in cases], plan)
        known = stand_ins(plan.get("classes", []))
        good = [holds(case, reply, known) for case, reply in zip(cases, replies, strict=True)]
        results = _counted(good, replies, trouble, over)
        if any("source" in case["call"] for case in cases):
            results = replace(results, mode="expressions")
        if reference.get("check"):
            return results
        tests = sorted({case["test"] for case in cases})
        held = sum(all(ok for ok, case in zip(good, cases, strict=True) if case["test"] == test) for test in tests)
        return replace(results, passed=held, total=len(tests))

    def value(self, code: str, call: JSON) -> Frame:
        """What one call of a program comes to: a frame with a value, or with what was raised, or empty."""
        replies, trouble, _ = self._replies(Program("", code), [call])
        return replies[0] or {"message": trouble}

    def input(self, code: str, name: str, call: str, output: str) -> Results:
        """Whether a given function returns a given output for a call whose arguments only running them tells.

        The arguments are evaluated in one process, the function runs in another. A function among them stays where it
        is and is called from there.
        """
        tree = ast.parse(call, mode="eval").body
        assert isinstance(tree, ast.Call), call
        tree.func = ast.parse("lambda *args, **kwargs: [list(args), kwargs]", mode="eval").body
        program = Program("", f"{code}\n\ndef given__():\n    return {ast.unparse(tree)}\n")
        test = HELD_INPUT.format(code=code, name=name, output=output)
        reference: Frame = {"tests": [test], "entry_point": "given__"}
        return self._live(program, reference, {"live": "an input that is no literal", "classes": []})

    def _oracle_cases(self, reference: Mapping[str, JSON]) -> list[OracleCase]:
        """Return what the oracle returns for each input; an input that takes it over its own limits is left out."""
        oracle = Program(str(reference.get("prelude") or ""), str(reference["oracle"]))
        inputs = listed(reference, "inputs")
        found: list[OracleCase] = []
        at = left_out = 0
        while at < len(inputs):
            asked: list[JSON] = [_call(reference, given) for given in inputs[at:]]
            replies, trouble, over = self._replies(oracle, asked, limits=TRUSTED_LIMITS)
            answered = next((place for place, reply in enumerate(replies) if reply is None), len(replies))
            for given, reply in zip(inputs[at : at + answered], replies[:answered], strict=True):
                assert reply is not None
                if "value" in reply:
                    found.append(OracleCase(given, reply["value"]))
                elif reply.get("raised") == "CannotCross":
                    left_out += 1
                else:
                    raise BadReference(f"the oracle raises for {given!r:.80}: {reply.get('message')}"[:500])
            if answered < len(replies) and not over:
                raise BadReference(f"the oracle stops at input {at + answered + 1}: {trouble}"[:500])
            left_out += answered < len(replies)
            at += answered + 1
            if left_out > MOST_LEFT_OUT:
                raise BadReference(f"{left_out} inputs take the oracle over its limits: {trouble}"[:500])
        if not found:
            raise BadReference("the oracle answers none of the inputs within its limits.")
        return found

    def _plan(self, reference: Mapping[str, JSON]) -> Plan:
        """Return the tests as cases, worked out in a sandboxed process of their own."""
        given = {**reference, "prelude": whole_prelude(reference)}
        told = self._run(_job("planner", given, ("planner", "program", "wire"), TRUSTED_LIMITS)).result
        plan = cast("Plan", first_frame(told) or {"fault": "they ran into a limit"})
        if "fault" in plan:
            raise BadReference(f"the tests do not run by themselves: {plan['fault']}")
        if not plan.get("live") and not plan.get("cases"):
            raise BadReference("the tests hold no comparison that the program could fail.")
        return plan

    def _replies(
        self,
        program: Program,
        calls: Sequence[JSON],
        plan: Plan | None = None,
        limits: Limits | None = None,
        expected: Sequence[JSON] = (),
    ) -> tuple[Replies, str, bool]:
        """What each call gave (None where it was not reached), what went wrong, and whether it was a limit."""
        request: Frame = {**_request(program, plan), "calls": [*calls]}
        result = self._run(_job("program", request, ("program", "wire"), limits or self._limits))
        replies = Replies(result.result, len(calls), expected)
        trouble = f"the program does not load: {replies.load}"[:500] if replies.load else ""
        if not replies.whole:
            trouble = trouble or _ended(result)
        return replies, trouble, result.outcome in OVER_LIMIT

    def _live(self, program: Program, reference: Mapping[str, JSON], plan: Plan) -> Results:
        """The tests as they stand, in a process and namespaces apart from the program's."""
        late = plan.get("late_setup") is True
        given: Frame = {
            **reference,
            "prelude": whole_prelude(reference),
            "late_setup": late,
            "classes": [] if late else [*plan.get("classes", [])],
        }
        limits = replace(TRUSTED_LIMITS, wall_seconds=self._limits.wall_seconds + TRUSTED_LIMITS.wall_seconds)
        serve = _job("program", {**_request(program, plan), "serve": True}, ("program", "wire"), self._limits)
        job = _job("tester", given, ("tester", "planner", "program", "wire"), limits)
        result = self._run(replace(job, helper=serve))
        total = 1 if reference.get("check") else len(listed(reference, "tests"))
        helper = result.helper
        if helper is not None and helper.outcome is JobOutcome.INFRASTRUCTURE_FAULT:
            raise SandboxFault(helper.detail)
        over = result.outcome in OVER_LIMIT or (helper is not None and helper.outcome in OVER_LIMIT)
        answer = first_frame(result.result)
        if "fault" in answer:
            raise BadReference(f"the tests do not run by themselves: {answer['fault']}")
        results = answer.get("results")
        rows = [row for row in results if is_object(row)] if is_list(results) else []
        if len(rows) != total:
            why = str(answer.get("load") or (_ended(helper) if helper and over else _ended(result)))
            return Results(0, total, why, over, "tester")
        failed = [row for row in rows if row.get("ok") is not True]
        reason = str(failed[0].get("why", "")) if failed else ""
        return Results(total - len(failed), total, reason, over and bool(failed), "tester")

    def _run(self, job: Job) -> JobResult:
        result = self._sandbox.run(job)
        if result.outcome is JobOutcome.INFRASTRUCTURE_FAULT:
            raise SandboxFault(result.detail)
        return result


def _main(code: str, prelude: str) -> dict[str, bytes]:
    """Return the files of a program that reads and prints: main.py is run."""
    program = code.encode("utf-8", "replace")
    if not prelude:
        return {"main.py": program}
    return {"main.py": (prelude + PRELUDED).encode("utf-8", "replace"), "program.py": program}


def _call(reference: Mapping[str, JSON], given: JSON) -> JSON:
    return {"name": reference["entry_point"], "args": given}


def _request(program: Program, plan: Plan | None) -> Frame:
    """Return what the process of a tested program is given beside the calls."""
    plan = plan or Plan()
    late = plan.get("late_setup") is True and "live" not in plan
    return {
        "prelude": program.prelude,
        "code": program.code,
        "setup": plan.get("setup", ""),
        "classes": [] if late else [*plan.get("classes", [])],
    }


@cache
def guest_modules() -> dict[str, str]:
    """Name and source of the modules that run inside, each after those that it imports."""
    folder = resources.files("verifiers.code.guest")
    return {name: (folder / f"{file}.py").read_text() for name, file in GUEST_MODULES.items()}


def _job(script: str, request: Mapping[str, JSON], modules: tuple[str, ...], limits: Limits) -> Job:
    data = json.dumps(request).encode("ascii")
    modules += ("pytest",) if script != "program" and b"pytest" in data else ()
    start = f"import {script}\n{script}.main()\n".encode()
    return Job(
        argv=("python", "main.py"),
        files={"main.py": start, "request.json": data},
        limits=limits,
        result_channel=True,
        modules=modules,
    )


def _counted(good: list[bool], replies: Sequence[Mapping[str, JSON] | None], trouble: str, over: bool) -> Results:
    reason = trouble
    if not reason and not all(good):
        first = good.index(False)
        reply = replies[first] or {}
        ended = f"raised {reply.get('message')}" if "raised" in reply else "gave another value"
        reason = f"call {first + 1} {ended}"
    return Results(sum(good), len(good), reason[:500], over and not all(good), "calls")


def _ended(result: JobResult) -> str:
    return ": ".join(part for part in (f"{result.outcome} ({result.detail})", last_line(result.stderr)) if part)
