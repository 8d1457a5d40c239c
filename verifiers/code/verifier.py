"""`code`: does the program in a completion pass its tests, in a sandbox?"""

from __future__ import annotations

import atexit
import re
import threading
from collections.abc import Mapping
from typing import cast

from sandbox.api import MIB, JobTooLarge, Limits, Sandbox, SandboxError, SandboxUnavailable
from verifiers.base import GradingRow, Verifier
from verifiers.code.grading import TRUSTED_LIMITS, Grader, Results, SandboxFault
from verifiers.errors import BadOption, BadReference
from verifiers.verdict import JSON, Outcome, Verdict, fixed, graded

FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+-]*)[^\n]*\n", re.MULTILINE)
LANGUAGES = ("", "python", "py", "python3")
THINKING = re.compile(r"^.*</think>", re.DOTALL)
MAX_CODE = 200_000
ISOLATED = ("docker", "bubblewrap")

_opened: dict[tuple[object, ...], Sandbox] = {}
_opening = threading.Lock()


class Code(Verifier):
    """The program passes all of its tests, or as large a share of them as its reward says.

    The reference is an object of one of these kinds:

    - `{"cases": [{"input": ..., "output": ...}]}`: a program that reads standard input and prints;
    - `{"entry_point": "f", "calls": [{"args": [...], "kwargs": {...}, "expected": ...}]}`: a function;
    - `{"tests": ["assert f(1) == 2", ...], "setup": "...", "prelude": "..."}`: assertions;
    - `{"tests": ["def check(candidate): ..."], "check": "check", "entry_point": "f", "prelude": "..."}`: HumanEval's;
    - `{"pytest": "def test_f(): assert f(1) == 2"}`: the test functions of a pytest file, without fixtures.

    Args:
        reward: pass (all tests, or 0) or fraction (the share of tests passed).
        sandbox: docker, bubblewrap, auto (the first of these that works here), or unsafe-host.
        block: which fenced block is the program: last, first, or whole (the completion as it stands).
        compare: of printed output: lines, tokens or exact; see `verifiers.code.compare.same_output`.
        tolerance: between numbers of printed output and of call results; 0 for none.
        cpu_seconds: of each run of the program.
        memory_mb: likewise.
        packages: importable by programs, beside the standard library; installed in this environment.
        workers: sandboxed programs at a time in this process.
    """

    name = "code"
    version = "1"
    grade_seconds = 300.0
    reference_schema = {"type": "object"}

    def __init__(
        self,
        *,
        reward: str = "pass",
        sandbox: str = "auto",
        block: str = "last",
        compare: str = "lines",
        tolerance: float = 0.0,
        cpu_seconds: float = 5.0,
        memory_mb: int = 512,
        packages: list[str] | None = None,
        workers: int = 1,
    ) -> None:
        for name, value, allowed in (
            ("reward", reward, ("pass", "fraction")),
            ("sandbox", sandbox, ("auto", *ISOLATED, "unsafe-host")),
            ("block", block, ("last", "first", "whole")),
            ("compare", compare, ("lines", "tokens", "exact")),
        ):
            if value not in allowed:
                raise BadOption(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")
        if not cpu_seconds > 0 or not 32 <= memory_mb <= 1024:
            raise BadOption(f"cpu_seconds must be above 0 and memory_mb from 32 to 1024; got {cpu_seconds}, {memory_mb}.")
        self._fraction = reward == "fraction"
        self._block = block
        self._compare = compare
        self._tolerance = tolerance
        self._limits = Limits(cpu_seconds=cpu_seconds, wall_seconds=4 * cpu_seconds, memory_bytes=memory_mb * MIB)
        self._where = (sandbox, tuple(sorted(packages or ())), workers)
        self._grader: Grader | None = None
        self._lock = threading.Lock()

    def check_reference(self, reference: JSON) -> None:
        _kind(reference)

    def grade(self, row: GradingRow) -> Verdict:
        reference = _kind(row.reference)
        code = extract_program(row.completion, self._block)
        if code is None or not code.strip():
            return fixed(Outcome.NO_ANSWER, "the completion holds no fenced program")
        if len(code) > MAX_CODE:
            return fixed(Outcome.LIMIT_EXCEEDED, f"a program of at most {MAX_CODE} characters is run; got {len(code)}")
        if "\0" in code:
            return fixed(Outcome.INCORRECT, "the program holds a NUL character", answer=code)
        try:
            results = self._results(code, reference)
        except JobTooLarge as error:
            return fixed(Outcome.LIMIT_EXCEEDED, str(error), answer=code)
        except (SandboxFault, SandboxError) as error:
            return fixed(Outcome.VERIFIER_ERROR, f"the sandbox failed: {error}", answer=code)
        return self._verdict(code, results)

    def _results(self, code: str, reference: Mapping[str, JSON]) -> Results:
        grader = self._open()
        if "cases" in reference:
            cases = cast("list[Mapping[str, str]]", reference["cases"])
            return grader.stdio(code, cases, compare=self._compare, tolerance=self._tolerance)
        if "calls" in reference:
            tolerance = float(cast(float, reference.get("tolerance", self._tolerance)))
            calls = cast("list[Mapping[str, JSON]]", reference["calls"])
            return grader.calls(code, str(reference["entry_point"]), calls, tolerance=tolerance)
        prelude, entry = str(reference.get("prelude") or ""), reference.get("entry_point")
        if prelude:
            code = _completed(code, prelude, str(entry))
        return grader.asserts(code, reference)

    def _verdict(self, code: str, results: Results) -> Verdict:
        said: dict[str, JSON] = {"passed": results.passed, "tests": results.total, "mode": results.mode}
        if results.passed == results.total:
            return fixed(Outcome.CORRECT, f"all {results.total} tests pass", answer=code, **said)
        reason = f"{results.passed} of {results.total} tests pass; {results.reason}"
        if self._fraction and results.passed:
            return graded(results.passed / results.total, reason, answer=code, **said)
        return fixed(Outcome.LIMIT_EXCEEDED if results.over_limit else Outcome.INCORRECT, reason, answer=code, **said)

    def _open(self) -> Grader:
        with self._lock:
            if self._grader is None:
                self._grader = Grader(shared_sandbox(*self._where), self._limits, stop_early=not self._fraction)
            return self._grader


def shared_sandbox(backend: str, packages: tuple[str, ...], workers: int) -> Sandbox:
    """This process's sandbox of a kind, opened on first use and closed when the process ends.

    Raises:
        SandboxUnavailable: with how to get one.
    """
    from sandbox.opening import open_sandbox

    with _opening:
        key = (backend, packages, workers)
        if key in _opened:
            return _opened[key]
        missing: list[str] = []
        for name in ISOLATED if backend == "auto" else (backend,):
            try:
                found = open_sandbox(name, workers=workers, packages=packages, limits=TRUSTED_LIMITS)
            except SandboxUnavailable as error:
                missing.append(f"{name}: {error}")
                continue
            atexit.register(found.close)
            _opened[key] = found
            return found
        raise SandboxUnavailable(" ".join(missing))


def extract_program(completion: str, block: str) -> str | None:
    """The program of a completion: nothing inside <think> counts; a last block may lack its closing fence."""
    text = THINKING.sub("", completion)
    if block == "whole":
        return text
    found: list[str] = []
    position = 0
    while opening := FENCE.search(text, position):
        fence, language = opening.group(1), opening.group(2).lower()
        closing = re.compile(rf"^[ \t]*{re.escape(fence)}[ \t]*$", re.MULTILINE).search(text, opening.end())
        end = closing.start() if closing else len(text)
        if language in LANGUAGES:
            found.append(text[opening.end() : end])
        position = closing.end() if closing else len(text)
    if not found:
        return None
    return found[-1] if block == "last" else found[0]


def _completed(code: str, prelude: str, entry_point: str) -> str:
    """The program behind what the prompt gave: the rest of its function, or a whole program of its own."""
    whole = re.search(rf"^(?:async\s+)?(?:def|class)\s+{re.escape(entry_point)}\b|^{re.escape(entry_point)}\s*=", code, re.M)
    return f"{prelude}\n    pass\n\n{code}" if whole else prelude + code


def _kind(reference: JSON) -> Mapping[str, JSON]:
    """A usable reference, in the form that the guest programs take.

    Raises:
        BadReference: with what is missing.
    """
    if not isinstance(reference, dict):
        raise BadReference(f"the reference must be an object with cases, calls, tests or pytest; got {reference!r:.80}.")
    if "cases" in reference:
        cases = reference["cases"]
        if not isinstance(cases, list) or not cases:
            raise BadReference("cases must be a non-empty list of {input, output}.")
        for case in cases:
            if not isinstance(case, dict) or not all(isinstance(case.get(key), str) for key in ("input", "output")):
                raise BadReference(f"every case must have a text input and a text output; got {case!r:.80}.")
        return reference
    if "calls" in reference:
        calls = reference["calls"]
        if not isinstance(reference.get("entry_point"), str) or not isinstance(calls, list) or not calls:
            raise BadReference("calls must be a non-empty list, beside an entry_point.")
        if not all(isinstance(call, dict) and "expected" in call for call in calls):
            raise BadReference("every call must have an expected value.")
        return reference
    if "pytest" in reference:
        return {**_pytest(str(reference["pytest"])), **({"setup": reference["setup"]} if "setup" in reference else {})}
    tests = reference.get("tests")
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) and test.strip() for test in tests):
        raise BadReference("the reference must have cases, calls, pytest, or tests (a non-empty list of source texts).")
    if reference.get("check") and not isinstance(reference.get("entry_point"), str):
        raise BadReference("tests with a check function need the entry_point that is handed to it.")
    return reference


def _pytest(source: str) -> dict[str, JSON]:
    """A pytest file as tests: what stands outside its test functions is their setup, each function one test."""
    import ast

    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise BadReference(f"the pytest file does not parse: {error}") from None
    tests: list[JSON] = []
    setup: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            if node.args.args or node.decorator_list:
                raise BadReference(f"{node.name}: fixtures and parametrisation are not supported; write plain functions.")
            tests.append(f"{ast.unparse(node)}\n{node.name}()")
        elif isinstance(node, ast.ImportFrom) and node.module in ("solution", "main", "candidate"):
            continue  # the program's own names
        else:
            setup.append(ast.unparse(node))
    if not tests:
        raise BadReference("the pytest file has no test function.")
    return {"tests": tests, "setup": "\n".join(setup)}
