"""Verifier `code`: runs the program in a completion against its tests, in a sandbox."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from sandbox.api import MIB, JobTooLarge, Limits, SandboxError
from verifiers.base import Example, GradingRow, Verifier
from verifiers.code.answers import (
    defines,
    extract_program,
    literal,
    literal_arguments,
    other_languages,
    predicted,
)
from verifiers.code.compare import NOTHING, equal
from verifiers.code.grading import Grader, Memory, Program
from verifiers.code.guests import RESULT_BYTES, Results, SandboxFault
from verifiers.code.imports import IMPORTS
from verifiers.code.languages import Language, language_named
from verifiers.code.output import COMPARISONS, OutputRule, read_output_rule, read_tolerance
from verifiers.code.references import SCHEMA, has_input, read_reference, seconds_of, tested_names, whole_prelude
from verifiers.code.sandboxes import CHOICES, ISOLATED, Place, require, require_pytest, shared_sandbox
from verifiers.code.values import ValueRule, read_value_rule
from verifiers.errors import BadOption, BadReference
from verifiers.text import one_line
from verifiers.verdict import JSON, Outcome, Verdict, fixed, graded

MAX_CODE = 200_000
MAX_CPU_SECONDS = 30.0
MAX_REMEMBERED = 20_000
"""Most characters of a program plus its reference for which the results are cached."""


class Code(Verifier):
    """Tests of a program in a sandbox: all have to pass or, with reward=fraction, the passed fraction is the reward.

    The reference is an object of one of these kinds (`verifiers.code.references.SCHEMA`):

    - `{"cases": [{"input": ..., "output": ...}]}`: a program that reads standard input and prints;
    - `{"entry_point": "f", "calls": [{"args": [...], "kwargs": {...}, "expected": ...}]}`: a function;
    - `{"entry_point": "f", "oracle": "def f...", "inputs": [[...], ...]}`: a function that agrees with another one;
    - `{"tests": ["assert f(1) == 2", ...], "setup": "...", "prelude": "..."}`: assertions;
    - `{"tests": ["def check(candidate): ..."], "check": "check", "entry_point": "f", "prelude": "..."}`: HumanEval's;
    - `{"pytest": "def test_f(): assert f(1) == 2"}`: a test file, run by pytest (`pip install 'reasoner-rl[code]'`);
    - `{"code": "def f...", "entry_point": "f", "input": "...", "output": "...", "predict": "output"}`: no program, but
      the value that a given one returns or, with "predict": "input", arguments for which it returns a given value.

    Args:
        reward: pass (1 if all tests pass, else 0) or fraction (the fraction of tests passed).
        sandbox: docker, bubblewrap, auto (the first of these that works on this machine), or unsafe-host.
        block: fenced block that is the program: last, first (of those that define what is tested, if any does), or
            whole (the completion itself).
        compare: comparison of printed output, a name in `verifiers.code.output.COMPARISONS` (lines, tokens, words,
            ...).
        any_case: True: ignore the case of letters in printed output.
        any_order: True: ignore the order of lines in printed output.
        tolerance: for expected floats of calls or printed output, if the reference sets none; 0: none.
        imports: a name in `verifiers.code.imports.IMPORTS`: imports added to every program; "": none.
        cpu_seconds: CPU limit of each run of the program; its wall-clock limit is four times that.
        memory_mb: memory limit of each run, in MiB.
        packages: packages of this environment that programs may import in addition to the standard library.
        language: of the programs, a name in `verifiers.code.languages.LANGUAGES` or in `languages`. Languages other
            than python need references with cases.
        languages: rows that change or extend that table: name -> changed fields.
        system: Debian packages whose commands jobs may run, besides those of the language (`g++` for checkers in C++).
        image: local Docker image with python3 and what programs need, in place of one that is built here.
        runtime: Docker runtime, such as runsc; "": the engine's default.
        process: process for tests that cannot become inputs and outputs: separate from the program's, or shared with
            it. Mocks affect the program only if it is shared, but then a program can forge its verdict.
        workers: rows of one batch that are graded at the same time in this process.
    """

    name = "code"
    version = "1"
    grade_seconds = 600.0
    merges_equal = True
    reference_schema = SCHEMA
    machine_options = frozenset(
        {"sandbox", "packages", "workers", "cpu_seconds", "memory_mb", "image", "runtime", "system"}
    )
    examples = (
        Example(
            completion="```python\ndef add(a, b):\n    return a + b\n```",
            reference={"tests": ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]},
        ),
        Example(
            completion="```python\nimport os\nprint('1 passed')\nos._exit(0)\n```",
            reference={"tests": ["assert add(1, 2) == 3"]},
            outcome=Outcome.INCORRECT,
        ),
        Example(
            completion="```python\nprint(int(input()) * 2)\n```",
            reference={"cases": [{"input": "21\n", "output": "42\n"}]},
        ),
        Example(
            completion="I cannot.",
            reference={"cases": [{"input": "21\n", "output": "42\n"}]},
            outcome=Outcome.NO_ANSWER,
        ),
    )

    @classmethod
    def no_looser(cls, option: str, value: JSON, bound: JSON) -> bool:
        """Return True as for every verifier; also for any isolated sandbox under `auto`, and for fewer packages."""
        if option == "sandbox":
            return value == bound or (value in ("auto", *ISOLATED) and bound in ("auto", "unsafe-host"))
        if option in ("packages", "system"):
            wanted, given = value or [], bound or []
            return isinstance(wanted, list) and isinstance(given, list) and all(name in given for name in wanted)
        return super().no_looser(option, value, bound)

    def __init__(
        self,
        *,
        reward: str = "pass",
        sandbox: str = "auto",
        block: str = "last",
        compare: str = "lines",
        any_case: bool = False,
        any_order: bool = False,
        tolerance: float = 0.0,
        imports: str = "",
        cpu_seconds: float = 5.0,
        memory_mb: int = 512,
        packages: list[str] | None = None,
        language: str = "python",
        languages: dict[str, JSON] | None = None,
        system: list[str] | None = None,
        image: str = "",
        runtime: str = "",
        workers: int = 1,
        process: str = "separate",
    ) -> None:
        for name, value, allowed in (
            ("reward", reward, ("pass", "fraction")),
            ("sandbox", sandbox, CHOICES),
            ("block", block, ("last", "first", "whole")),
            ("compare", compare, tuple(COMPARISONS)),
            ("imports", imports, ("", *IMPORTS)),
            ("process", process, ("separate", "shared")),
        ):
            if value not in allowed:
                raise BadOption(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")
        if not 0 < cpu_seconds <= MAX_CPU_SECONDS:
            raise BadOption(f"cpu_seconds must be above 0 and at most {MAX_CPU_SECONDS:g}; got {cpu_seconds}.")
        if not 32 <= memory_mb <= 1024:
            raise BadOption(f"memory_mb must be from 32 to 1024; got {memory_mb}.")
        if not 0 <= tolerance < float("inf") or workers < 1:
            raise BadOption(f"tolerance must be at least 0 and workers at least 1; got {tolerance} and {workers}.")
        if any_order and not COMPARISONS[compare].by_line:
            raise BadOption(f"any_order concerns lines, which compare: {compare} ignores.")
        self._fraction = reward == "fraction"
        self._block = block
        self._imports = imports
        self._output = OutputRule(compare, read_tolerance(tolerance), any_case, any_order)
        self._limits = Limits(
            cpu_seconds=cpu_seconds,
            wall_seconds=4 * cpu_seconds,
            memory_bytes=memory_mb * MIB,
            output_bytes=RESULT_BYTES,
            input_bytes=4 * RESULT_BYTES,
            file_bytes=4 * RESULT_BYTES,
        )
        row = language_named(language, languages)
        self._language: Language | None = None if language == "python" and "python" not in (languages or {}) else row
        self._language_name = language
        if (image or runtime) and sandbox not in ("auto", "docker"):
            raise BadOption(f"image and runtime are Docker's, and sandbox is {sandbox}; leave them out, or use docker.")
        programs = {*(system or ()), *row.system}
        self._where = Place(
            sandbox, tuple(sorted(packages or ())), workers, tuple(sorted(programs)), image=image, runtime=runtime
        )
        self._workers = workers
        self._shared = process == "shared"
        self._read: Memory[tuple[str, Mapping[str, JSON]]] = Memory()
        self._graded: Memory[Results] = Memory()
        self._grader: Grader | None = None
        self._lock = threading.Lock()
        require("docker" if image or runtime else sandbox)

    def check_reference(self, reference: JSON) -> None:
        _, found = self._usable(reference)
        if "file" in found and not self._where.image:
            require_pytest()

    def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        over = not threading.main_thread().is_alive()  # then executors accept no more work
        if self._workers == 1 or len(rows) == 1 or over:
            return super().grade_batch(rows)
        with ThreadPoolExecutor(self._workers, thread_name_prefix="code") as threads:
            return list(threads.map(self._timed, rows))

    def grade(self, row: GradingRow) -> Verdict:
        key = json.dumps(row.reference)
        kind, reference = self._read.get(key, make=lambda: self._usable(row.reference))
        predict = str(reference["predict"]) if kind == "predict" else ""
        if predict:
            code = predicted(row.completion, str(reference["entry_point"]), predict)
        else:
            code = extract_program(
                row.completion,
                self._block,
                tested_names(reference),
                reads=kind == "cases" and has_input(reference),
                language=self._language_of(reference),
            )
        if code is None or not code.strip():
            language = "Python" if self._language is None else self._language_name
            what = f"predicted {predict}" if predict else f"fenced {language} program"
            others = "" if predict else other_languages(row.completion)
            return fixed(Outcome.NO_ANSWER, "; ".join(filter(None, (f"the completion contains no {what}", others))))
        if len(code) > MAX_CODE:
            return fixed(Outcome.LIMIT_EXCEEDED, f"a program may have at most {MAX_CODE} characters; got {len(code)}")
        try:
            if predict:
                return self._prediction(code, reference)
            return self._verdict(code, self._remembered(code, kind, key, reference))
        except JobTooLarge as error:
            raise BadReference(f"its inputs are too large to be given to a program: {error}") from None
        except (SandboxFault, SandboxError) as error:
            return fixed(Outcome.VERIFIER_ERROR, f"the sandbox failed: {error}", answer=code)

    def _language_of(self, reference: Mapping[str, JSON]) -> Language | None:
        """Return the language; with further source files the program itself need not be complete."""
        return replace(self._language, whole="") if self._language and reference.get("sources") else self._language

    def _usable(self, reference: JSON) -> tuple[str, Mapping[str, JSON]]:
        """Return the kind and normal form of a reference; raise BadReference if this verifier cannot use it."""
        if self._language is None:
            return read_reference(reference, self._imports)
        # imports of Python are meaningless in another language
        own = {k: v for k, v in reference.items() if k != "imports"} if isinstance(reference, dict) else reference
        kind, found = read_reference(own)
        if kind != "cases":
            raise BadReference(
                f"programs in {self._language_name} are tested by cases of input and output; the reference has {kind}."
            )
        return kind, found

    def _remembered(self, code: str, kind: str, key: str, reference: Mapping[str, JSON]) -> Results:
        """Return a program's results, from the cache if it was run against the same reference before."""
        known = self._graded.peek(code, key)
        if known is not None:
            return known
        results = self._results(code, kind, key, reference)
        if not results.over_limit and len(code) + len(key) < MAX_REMEMBERED:
            self._graded.put(code, key, value=results)
        return results

    def _results(self, code: str, kind: str, key: str, reference: Mapping[str, JSON]) -> Results:
        grader = self._open().within(seconds_of(reference))
        if kind == "cases":
            return grader.stdio(code, reference, rule=read_output_rule(reference, self._output))
        program = program_of(code, reference)
        if kind in ("calls", "oracle"):
            rule = read_value_rule(reference, ValueRule(tolerance=self._output.tolerance))
            if kind == "calls":
                return grader.calls(program, reference, rule=rule)
            return grader.oracle(program, key, reference, rule=rule)
        return grader.asserts(program, key, reference)

    def _prediction(self, answer: str, reference: Mapping[str, JSON]) -> Verdict:
        """Grade a prediction about a given program, which runs in a process that the prediction cannot affect."""
        code, name, output = (str(reference[key]) for key in ("code", "entry_point", "output"))
        wanted = self._evaluated(output)
        if wanted is NOTHING:
            raise BadReference(f"the output {output!r:.80} is not a value.")
        given = literal_arguments(answer) if reference["predict"] == "input" else None
        if reference["predict"] == "output":
            held = equal(self._evaluated(answer), wanted)
        elif given is not None:
            call: JSON = {"name": name, **given}
            held = equal(self._open().value(code, call).get("value", NOTHING), wanted)
        else:
            results = self._open().input(code, name, answer, output)
            if results.passed < results.total:
                return self._verdict(answer, results)
            held = True
        reason = f"it {'matches' if held else 'does not match'} the program"
        return fixed(Outcome.CORRECT if held else Outcome.INCORRECT, reason, answer=answer)

    def _evaluated(self, expression: str) -> JSON:
        """Return the encoded value of an expression; one that is not a literal is evaluated in the sandbox."""
        found = literal(expression)
        if found is not None or expression.strip() == "None":
            return found
        return self._open().value("", {"source": expression}).get("value", NOTHING)

    def _verdict(self, code: str, results: Results) -> Verdict:
        counts: dict[str, JSON] = {"passed": results.passed, "tests": results.total, "mode": results.mode}
        if results.passed == results.total:
            return fixed(Outcome.CORRECT, f"all {results.total} tests pass", answer=code, **counts)
        reason = f"{results.passed} of {results.total} tests pass; {one_line(results.reason)}"
        if self._fraction and results.passed:
            return graded(results.passed / results.total, reason, answer=code, **counts)
        return fixed(Outcome.LIMIT_EXCEEDED if results.over_limit else Outcome.INCORRECT, reason, answer=code, **counts)

    def _with_pytest(self) -> Place:
        """Return the configuration of the sandbox for test files, with pytest among the packages."""
        return self._where._replace(packages=tuple(sorted({*self._where.packages, "pytest"})))

    def _open(self) -> Grader:
        with self._lock:
            if self._grader is None:
                self._grader = Grader(
                    shared_sandbox(self._where),
                    self._limits,
                    stop_early=not self._fraction,
                    shared=self._shared,
                    testing=lambda: shared_sandbox(self._with_pytest()),
                    language=self._language,
                )
            return self._grader


def program_of(code: str, reference: Mapping[str, JSON]) -> Program:
    """Combine a completion's code with the prompt's: before it or, if the code continues a function, as its head."""
    name, prelude = str(reference.get("entry_point", "")), str(reference.get("prelude") or "")
    if prelude and name and not defines(code, [*tested_names(reference)]):
        return Program("", prelude + code)
    return Program(whole_prelude(reference), code)
