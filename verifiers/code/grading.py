"""Running a program against its tests in the sandbox. The program's process never contains an expected value."""

from __future__ import annotations

import ast
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, NamedTuple, TypedDict, TypeVar, cast

from sandbox.api import Job, JobOutcome, JobResult, Limits
from verifiers.code.bounds import Frame, Joined, Replies, first_frame, may_be
from verifiers.code.checkers import Checker
from verifiers.code.compare import NOTHING, Case, alike, comparable, equal, holds, stand_ins
from verifiers.code.compiled import NO_COMPILER, PRELUDED, Toolchain, source_of
from verifiers.code.guests import (
    OVER_LIMIT,
    PLANNER_MODULES,
    PROGRAM_MODULES,
    TRUSTED_LIMITS,
    Results,
    SandboxFault,
    how_it_ended,
    job_of,
)
from verifiers.code.languages import LANGUAGES, Language
from verifiers.code.live import STRICT, refuse_vacuous, run_live, vacuous
from verifiers.code.output import OutputRule, same_output
from verifiers.code.references import files_of, listed, objects, whole_prelude
from verifiers.code.values import RETURNED_ALONE, ValueRule, same_value
from verifiers.errors import BadReference
from verifiers.verdict import JSON

if TYPE_CHECKING:
    from sandbox.api import Sandbox

STDIO_BUDGET = 10.0
"""CPU time of all of a program's cases together, as a multiple of the limit of one case."""
TOTAL_SECONDS = 240.0
"""Most CPU seconds of all cases or calls together, if the reference sets a limit for each: the sum of these limits, and
at most this."""
START_SECONDS = 0.5
"""CPU seconds for the start of Python and the prelude, in addition to a reference's own limit."""
HELD_INPUT = """{code}
args__, kwargs__ = given__()
args__ = [(lambda *a, held=v: held(*a)) if type(v).__name__ == "StandIn" else v for v in args__]
assert {name}(*args__, **kwargs__) == ({output})
"""
MOST_LEFT_OUT = 8
"""Most inputs of one problem that its oracle may fail to answer."""
KEPT, KEPT_CHARACTERS = 2_000, 30_000_000
"""Most references, plans or results in one process's cache, and most characters of their keys."""
Value = TypeVar("Value")


class Program(NamedTuple):
    """Tested program: the parts that its process runs, in this order."""

    prelude: str
    """Code from the prompt; empty if the program itself continues that code."""
    code: str


class OracleCase(NamedTuple):
    """Input with the oracle's result."""

    given: JSON
    returned: JSON
    after: JSON = None
    """Arguments after the call, if the oracle changed them."""


class Plan(TypedDict, total=False):
    """Tests as cases of input and output; if `live` is set, unchanged tests for a process of their own."""

    cases: list[Case]
    setup: str
    classes: list[str]
    """Names of the classes that the tests define."""
    live: str
    """Reason why the tests cannot become cases."""
    late_setup: bool
    fault: str
    """Exception that the tests raise without the program's fault."""


class Memory(Generic[Value]):
    """Thread-safe cache of the last used values. Keys are texts, whose length bounds the cache's size."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, ...], Value] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def peek(self, *key: str) -> Value | None:
        """Return the value of a key, or None."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, *key: str, value: Value) -> None:
        """Store a value; the least recently used ones are dropped."""
        with self._lock:
            self._characters += 0 if key in self._kept else sum(map(len, key))
            self._kept[key] = value
            while len(self._kept) > KEPT or (self._characters > KEPT_CHARACTERS and len(self._kept) > 1):
                gone, _ = self._kept.popitem(last=False)
                self._characters -= sum(map(len, gone))

    def get(self, *key: str, make: Callable[[], Value]) -> Value:
        """Return the value of a key, created with `make` if it is missing."""
        found = self.peek(*key)
        if found is None:
            found = make()
            self.put(*key, value=found)
        return found


class Grader:
    """Runner of programs and tests in one sandbox.

    Args:
        sandbox: where programs run.
        limits: of a program.
        stop_early: True: the first failing case ends a run.
        shared: True: tests run in the program's own process.
        language: of the programs; None: Python.
        testing: returns the sandbox for test files, which has pytest; called for the first of them.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        limits: Limits,
        *,
        stop_early: bool,
        shared: bool = False,
        language: Language | None = None,
        testing: Callable[[], Sandbox] | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._language = language
        self._limits = limits
        self._stop_early = stop_early
        self._shared = shared
        self._testing = testing or (lambda: sandbox)
        self._each = False
        """True if the limit applies to each case or call."""
        self._plans: Memory[Plan] = Memory()
        self._oracles: Memory[list[OracleCase]] = Memory()
        self._vacuous: Memory[str] = Memory()
        self._checkers: Memory[Checker] = Memory()

    def within(self, seconds: float | None) -> Grader:
        """Return a grader with this CPU limit for each run (None: this grader itself); both share the caches."""
        if seconds is None:
            return self
        other = copy(self)
        allowed = seconds + START_SECONDS
        other._limits = replace(self._limits, cpu_seconds=allowed, wall_seconds=4 * allowed)
        other._each = True
        return other

    def _total_seconds(self, runs: int) -> float:
        """Return the limit of CPU seconds for `runs` cases or calls together."""
        limit = self._limits.cpu_seconds
        return min(runs * limit, TOTAL_SECONDS) if self._each else STDIO_BUDGET * limit

    def stdio(self, code: str, reference: Mapping[str, JSON], *, rule: OutputRule) -> Results:
        """Run the program once for each case, and compare what it prints with the expected output."""
        passed, reason, over, spent = 0, "", False, 0.0
        cases = objects(reference, "cases")
        checker = self._checker(reference)
        inputs = [str(case["input"]) for case in cases]
        if self._language is None and not (reference.get("files") or reference.get("sources")):
            runs = self._python_runs(_main(code, str(reference.get("prelude") or "")), inputs)
        else:
            language = self._language or LANGUAGES["python"]
            source = source_of(code, reference, python=self._language is None)
            toolchain = Toolchain(language, self._run, self._limits)
            built = toolchain.build(source)
            if built.missing:
                raise SandboxFault(f"it has no {built.missing}. {NO_COMPILER}")
            if built.trouble:
                return Results(0, len(cases), built.trouble, built.over, "stdio")
            runs = toolchain.runs(source, built, inputs, files=files_of(reference), stop=self._stop_early)
        for number, (case, result) in enumerate(zip(cases, runs, strict=False), 1):
            if result.outcome is JobOutcome.INFRASTRUCTURE_FAULT:
                raise SandboxFault(result.detail)
            ok = result.outcome is JobOutcome.OK
            if ok and _right_output(number, case, result.stdout, rule=rule, checker=checker):
                passed += 1
            else:
                over = over or result.outcome in OVER_LIMIT
                reason = reason or f"case {number}: " + ("another output" if ok else how_it_ended(result))
                if self._stop_early:
                    break
            spent += result.cpu_seconds
            if number < len(cases) and spent > self._total_seconds(len(cases)):
                over, reason = True, reason or f"its first {number} cases took {spent:.1f} s of CPU time"
                break
        return Results(passed, len(cases), reason, over, "stdio")

    def _python_runs(self, files: Mapping[str, bytes], inputs: Sequence[str]) -> Iterator[JobResult]:
        """Run a Python program once for each input, each time in its own job."""
        for text in inputs:
            stdin = text.encode("utf-8", "replace")
            yield self._run(Job(argv=("python", "main.py"), files=files, stdin=stdin, limits=self._limits))

    def _checker(self, reference: Mapping[str, JSON]) -> Checker | None:
        """Return the reference's checker, compiled once; None if there is none."""
        if not reference.get("checker"):
            return None
        key = json.dumps(reference["checker"]) + json.dumps(reference["cases"])
        return self._checkers.get(key, make=lambda: Checker(reference["checker"], self._run))

    def calls(self, program: Program, reference: Mapping[str, JSON], *, rule: ValueRule) -> Results:
        """Call a function with the arguments of each call, and compare the values with the expected ones."""
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
        """Call a function with each input, and compare with what the oracle returns in a process of its own."""
        cases = self._oracles.get(key, make=lambda: self._oracle_cases(reference))
        if reference.get("compare") in RETURNED_ALONE:
            cases = [case._replace(after=None) for case in cases]
        asked: list[JSON] = [_call(reference, case.given) for case in cases]
        wanted: list[JSON] = [[case.returned, case.after] for case in cases]
        replies, trouble, over = self._each_reply(program, asked, wanted, own=True)
        good = [
            (
                same_value(reply.get("value", NOTHING), case.returned, rule)
                if "compare" in reference
                else alike(reply.get("value", NOTHING), case.returned, tolerance=rule.tolerance)
            )
            and (case.after is None or equal(reply.get("after", NOTHING), case.after, tolerance=rule.tolerance))
            for case, reply in zip(cases, (found or {} for found in replies), strict=True)
        ]
        return _counted(good, replies, trouble, over)

    def _each_reply(
        self, program: Program, calls: Sequence[JSON], expected: Sequence[JSON], *, own: bool = False
    ) -> tuple[Sequence[Frame | None], str, bool]:
        """Get the replies to all calls, restarting the program after a timeout if each call has its own limit.

        A call that ran into the limit is made again, as the first call of a new process, so that it gets its full
        limit. The program is loaded again at each start.
        """
        if not self._each:
            return self._replies(program, calls, expected=expected, own=own)
        found = Joined(len(calls))
        starts = max(1, int(self._total_seconds(len(calls)) / self._limits.cpu_seconds))
        for _ in range(starts):
            at = found.reached
            replies, trouble, over = self._replies(program, calls[at:], expected=expected[at:], own=own)
            found.add(replies)
            if found.reached == len(calls) or not over or found.reached == at:
                return found, trouble, over and found.reached < len(calls)
        return found, f"its first {found.reached} calls used up the time limit of all {len(calls)}", True

    def asserts(self, program: Program, key: str, reference: Mapping[str, JSON]) -> Results:
        """Test the program by assertions, as cases of input and output if possible, else from a separate process."""
        plan = self._plans.get(key, make=lambda: self._plan(reference))
        if "live" in plan:
            results = self._live(program, reference, plan)
            if results.passed == results.total or results.unreached:
                passing = self._vacuous.get(key, make=lambda: self._useless(reference, plan))
                refuse_vacuous(passing)
                if passing == STRICT:
                    results = self._live(program, reference, plan, strict=True)
            return results
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
        """Make one call of a program; return a frame with its value, or with what it raised, or with a message."""
        replies, trouble, _ = self._replies(Program("", code), [call])
        return replies[0] or {"message": trouble}

    def input(self, code: str, name: str, call: str, output: str) -> Results:
        """Test whether a given function returns a given output for a call whose arguments are not literals.

        The arguments are evaluated in one process and the function runs in another. A function among the arguments
        stays in its process and is called from the other one.
        """
        tree = ast.parse(call, mode="eval").body
        assert isinstance(tree, ast.Call), call
        tree.func = ast.parse("lambda *args, **kwargs: [list(args), kwargs]", mode="eval").body
        program = Program("", f"{code}\n\ndef given__():\n    return {ast.unparse(tree)}\n")
        test = HELD_INPUT.format(code=code, name=name, output=output)
        reference: Frame = {"tests": [test], "entry_point": "given__"}
        return self._live(program, reference, {"live": "an input that is not a literal", "classes": []})

    def _oracle_cases(self, reference: Mapping[str, JSON]) -> list[OracleCase]:
        """Run the oracle on each input; leave out inputs for which it exceeds its own limits."""
        oracle = Program(str(reference.get("prelude") or ""), str(reference["oracle"]))
        inputs = listed(reference, "inputs")
        found: list[OracleCase] = []
        at = skipped = 0
        while at < len(inputs):
            asked: list[JSON] = [_call(reference, given) for given in inputs[at:]]
            replies, trouble, over = self._replies(oracle, asked, limits=TRUSTED_LIMITS, own=True)
            answered = next((place for place, reply in enumerate(replies) if reply is None), len(replies))
            for given, reply in zip(inputs[at : at + answered], replies[:answered], strict=True):
                assert reply is not None
                if "value" in reply:
                    if why := comparable(reply["value"]):
                        raise BadReference(
                            f"the oracle returns a value that cannot be compared, for {given!r:.80}: {why}."
                        )
                    found.append(OracleCase(given, reply["value"], reply.get("after")))
                elif reply.get("raised") == "CannotCross":
                    skipped += 1
                else:
                    raise BadReference(f"the oracle raises for {given!r:.80}: {reply.get('message')}"[:500])
            if answered < len(replies) and not over:
                raise BadReference(f"the oracle stops at input {at + answered + 1}: {trouble}"[:500])
            skipped += answered < len(replies)
            at += answered + 1
            if skipped > MOST_LEFT_OUT:
                raise BadReference(f"the oracle exceeds its limits for {skipped} inputs: {trouble}"[:500])
        if all(case.returned is None and case.after is None for case in found) and found:
            raise BadReference("the oracle returns None for every input, and changes none of its arguments.")
        if not found:
            raise BadReference("the oracle answers none of the inputs within its limits.")
        return found

    def _plan(self, reference: Mapping[str, JSON]) -> Plan:
        """Convert the tests to cases in a sandboxed process of their own."""
        given = {**reference, "prelude": whole_prelude(reference)}
        output = self._run(job_of("planner", given, PLANNER_MODULES, TRUSTED_LIMITS)).result
        plan = cast("Plan", first_frame(output) or {"fault": "they ran into a limit"})
        if "fault" in plan:
            raise BadReference(f"the tests do not run by themselves: {plan['fault']}")
        if not plan.get("live") and not plan.get("cases"):
            raise BadReference("the tests contain no comparison that the program could fail.")
        return plan

    def _replies(
        self,
        program: Program,
        calls: Sequence[JSON],
        plan: Plan | None = None,
        limits: Limits | None = None,
        *,
        expected: Sequence[JSON] = (),
        own: bool = False,
    ) -> tuple[Replies, str, bool]:
        """Make calls in one process; return the replies, what went wrong, and True if a limit was exceeded."""
        request: Frame = {**_request(program, plan), "calls": [*calls], "own": own}
        result = self._run(job_of("program", request, PROGRAM_MODULES, limits or self._limits))
        replies = Replies(result.result, len(calls), expected)
        trouble = f"the program does not load: {replies.load}"[:500] if replies.load else ""
        if not replies.whole:
            trouble = trouble or how_it_ended(result)
        return replies, trouble, result.outcome in OVER_LIMIT

    def _live(
        self,
        program: Program,
        reference: Mapping[str, JSON],
        plan: Plan,
        *,
        strict: bool = False,
        useless: str = "",
    ) -> Results:
        """Run the tests unchanged, in a process and namespaces apart from the program's."""
        request = _request(program, plan) | ({"useless": useless} if useless else {})
        run = self._runner(reference)
        return run_live(run, self._limits, request, reference, plan, shared=self._shared, strict=strict)

    def _useless(self, reference: Mapping[str, JSON], plan: Plan) -> str:
        """Return the name of a useless program that passes all of the tests, or an empty text; see `vacuous`."""

        def run(name: str, strict: bool) -> Results:
            return self._live(Program(whole_prelude(reference), ""), reference, plan, strict=strict, useless=name)

        return vacuous(run, classes=bool(plan.get("classes")), shared=self._shared)

    def _runner(self, reference: Mapping[str, JSON]) -> Callable[[Job], JobResult]:
        """Return the function that runs the tests' jobs; a test file runs in the sandbox that has pytest."""
        sandbox = self._testing() if "file" in reference else self._sandbox
        return lambda job: self._run(job, sandbox)

    def _run(self, job: Job, sandbox: Sandbox | None = None) -> JobResult:
        result = (sandbox or self._sandbox).run(job)
        if result.outcome is JobOutcome.INFRASTRUCTURE_FAULT:
            raise SandboxFault(result.detail)
        return result


def _main(code: str, prelude: str) -> dict[str, bytes]:
    """Return the files of a program that reads and prints; main.py is run."""
    program = code.encode("utf-8", "backslashreplace")
    if not prelude:
        return {"main.py": program}
    return {"main.py": (prelude + PRELUDED).encode("utf-8", "replace"), "program.py": program}


def _right_output(
    number: int, case: Mapping[str, JSON], printed: bytes, *, rule: OutputRule, checker: Checker | None
) -> bool:
    """Return True if what a program printed for a case is accepted by the checker or, without one, by the rule."""
    if checker is not None:
        return checker.accepts(number, case, printed.decode("utf-8", "replace"))
    expected = str(case["output"])
    return may_be(printed, expected) and same_output(printed.decode("utf-8", "replace"), expected, rule)


def _call(reference: Mapping[str, JSON], given: JSON) -> JSON:
    return {"name": reference["entry_point"], "args": given, "after": True}


def _request(program: Program, plan: Plan | None) -> Frame:
    """Return the request for the process of a tested program, without the calls."""
    plan = plan or Plan()
    late = plan.get("late_setup") is True and "live" not in plan
    return {
        "prelude": program.prelude,
        "code": program.code,
        "setup": plan.get("setup", ""),
        "classes": [] if late else [*plan.get("classes", [])],
    }


def _counted(good: list[bool], replies: Sequence[Mapping[str, JSON] | None], trouble: str, over: bool) -> Results:
    reason = trouble
    if not reason and not all(good):
        first = good.index(False)
        reply = replies[first] or {}
        ended = f"raised {reply.get('message')}" if "raised" in reply else "gave another value"
        reason = f"call {first + 1} {ended}"
    return Results(sum(good), len(good), reason[:500], over and not all(good), "calls")
