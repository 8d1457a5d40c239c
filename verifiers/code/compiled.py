"""Compiling a program of any language in the table once, in a job with its own limits, and running it for each input.

Runs of one program share jobs: a few at first, more as they succeed, so that a run costs little more than its own time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from sandbox.api import MIB, Job, JobOutcome, JobResult, Limits
from verifiers.code.languages import Language
from verifiers.jsonl import is_object
from verifiers.verdict import JSON

LARGEST_PROGRAM = 32 * MIB
LARGEST_BATCH = 16 * MIB
UNTIMED = 1e5
"""Wall-clock limit, in seconds, that no job reaches."""
FIRST_BATCH, BATCH_GROWTH = 2, 4
COMPILE_LIMITS = Limits(
    cpu_seconds=30.0, wall_seconds=120.0, memory_bytes=1024 * MIB, file_bytes=64 * MIB, output_bytes=64 * MIB
)
PRELUDED = """
__import__("builtins").exec(compile(open("program.py", "rb").read(), "program.py", "exec", dont_inherit=True))
"""
"""Code that runs a Python program after its prelude, from its own file, so that it may begin with `from __future__`."""
NO_COMPILER = "Build the image with reasoner sandbox build --language NAME, or name one that has it (image:)."
MOST_LINES = 8
"""Most lines of a compiler's message in a verdict's reason."""
COMPLAINT = re.compile(r"error|exception|panic|terminate called", re.IGNORECASE)
"""Pattern of the line of standard error that is more informative than the last one."""
SIGXFSZ, SIGXCPU = 25, 24
Run = Callable[[Job], JobResult]


class Built(NamedTuple):
    """Program that is ready to run, or the reason why there is none."""

    files: Mapping[str, bytes]
    executable: frozenset[str]
    trouble: str = ""
    over: bool = False
    """True if a limit stopped the compiler."""
    missing: str = ""
    """Command that the sandbox lacks, which says nothing about the program; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Source of a program."""

    code: str
    given: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further files from the reference: name -> text."""
    name: str = ""
    """Name of its file, if it differs from the language's default."""


def source_of(code: str, reference: Mapping[str, JSON], *, python: bool) -> Source:
    """Build the source of a program, with the prelude and the files of a usable reference."""
    prelude = str(reference.get("prelude") or "")
    given = reference.get("sources")
    beside = {str(name): str(text) for name, text in given.items()} if is_object(given) else {}
    if python and prelude:
        beside, code = {**beside, "program.py": code}, prelude + PRELUDED
    elif prelude:
        code = f"{prelude}\n{code}"
    return Source(code=code, given=beside, name=str(reference.get("program") or ""))


class Toolchain:
    """Compiler and runner for programs of one language.

    Args:
        language: row of the table.
        run: function that runs a job in the sandbox.
        limits: of each run.
    """

    def __init__(self, language: Language, run: Run, limits: Limits) -> None:
        self._language = language
        self._run = run
        self._limits = replace(
            limits,
            stack_bytes=min(limits.memory_bytes, language.stack_mb * MIB),
            address_bytes=language.address_mb * MIB,
        )

    def build(self, source: Source) -> Built:
        """Compile a program. For a language without a compiler, return its files."""
        memory_mb = COMPILE_LIMITS.memory_bytes // MIB
        name = source.name or self._command((self._language.file,), source, memory_mb)[0]
        texts = {**source.given, name: source.code}
        files = {file: text.encode("utf-8", "replace") for file, text in texts.items()}
        if not self._language.compile:
            return Built(files, frozenset())
        suffix = "." + name.rpartition(".")[2]
        sources = tuple(file for file in texts if file.endswith(suffix))
        command = [
            part.replace("{program}", name)
            for part in self._command(self._language.compile, source, memory_mb, sources)
        ]
        seconds = self._language.compile_seconds
        limits = replace(
            COMPILE_LIMITS,
            cpu_seconds=seconds,
            wall_seconds=4 * seconds,
            address_bytes=self._limits.address_bytes,
        )
        result = self._run(_job("builder", {"command": [*command]}, files, limits))
        return _built(result, files)

    def runs(
        self, source: Source, built: Built, inputs: Sequence[str], *, files: Mapping[str, str], stop: bool
    ) -> Iterator[JobResult]:
        """Yield the result of each run, in the order of the inputs.

        Args:
            source: of the program.
            built: its compiled form.
            inputs: one for each run.
            files: names of the files that it reads (`input`) and writes (`output`); missing: standard input and output.
            stop: True: runs after one that fails may be left out.
        """
        memory_mb = self._limits.memory_bytes // MIB
        command = self._command(self._language.run, source, memory_mb)
        at, size = 0, FIRST_BATCH
        while at < len(inputs):
            batch = _batch(inputs, at, size)
            results = self._batch(command, built, batch, files, stop=stop)
            if len(results) < len(batch) and (not results or results[-1].outcome is JobOutcome.OK or not stop):
                # the next run was late, or ended the whole job: run it again alone, so that the sandbox enforces its
                # limits
                results.append(self._alone(command, built, batch[len(results)], files))
            yield from results
            at += len(results)
            size *= BATCH_GROWTH

    def _command(
        self, parts: tuple[str, ...], source: Source, memory_mb: int, sources: tuple[str, ...] = ()
    ) -> tuple[str, ...]:
        return self._language.command(parts, source=source.code, memory_mb=memory_mb, sources=sources)

    def _batch(
        self,
        command: Sequence[str],
        built: Built,
        inputs: Sequence[bytes],
        files: Mapping[str, str],
        *,
        stop: bool,
        alone: bool = False,
    ) -> list[JobResult]:
        """Run a batch in one job; return its results up to the first run that does not finish in time."""
        each, count = self._limits, len(inputs)
        wall = each.wall_seconds
        request: dict[str, JSON] = {
            "command": [*command],
            "files": [*built.files],
            "runs": count,
            "cpu_seconds": each.cpu_seconds,
            "wall_seconds": UNTIMED if alone else wall,
            "output_bytes": each.output_bytes,
            "input_file": files.get("input", ""),
            "output_file": files.get("output", ""),
            "stop": stop,
        }
        brought = {f"program/{name}": content for name, content in built.files.items()}
        brought |= {f"input/{index}": given for index, given in enumerate(inputs)}
        limits = replace(
            each,
            cpu_seconds=count * (each.cpu_seconds + 1.0) + 1.0,
            wall_seconds=wall if alone else count * wall + 5.0,
            output_bytes=count * (each.output_bytes + 8192),
            input_bytes=4 * LARGEST_PROGRAM,
            file_bytes=max(LARGEST_PROGRAM, LARGEST_BATCH, each.file_bytes),
        )
        job = _job("runner", request, brought, limits)
        job = replace(job, executable=[f"program/{name}" for name in built.executable])
        result = self._run(job)
        found = _runs(result.result, count, each)
        ended = (JobOutcome.MEMORY_LIMIT, JobOutcome.CPU_LIMIT, *([JobOutcome.WALL_TIMEOUT] if alone else []))
        if len(found) < count and result.outcome in ended:
            found.append(replace(result, stdout=b"", result=b""))  # the run in progress exceeded the job's limit
        return found

    def _alone(self, command: Sequence[str], built: Built, given: bytes, files: Mapping[str, str]) -> JobResult:
        """Run the program once, in a job of its own."""
        if files:
            one = self._batch(command, built, [given], files, stop=True, alone=True)
            late = JobResult(outcome=JobOutcome.WALL_TIMEOUT, detail=f"more than {self._limits.wall_seconds:g} s")
            return one[0] if one else late
        return self._run(
            Job(
                argv=command,
                files=built.files,
                executable=built.executable,
                stdin=given,
                limits=replace(self._limits, input_bytes=4 * LARGEST_PROGRAM, file_bytes=LARGEST_PROGRAM),
            )
        )


def _job(script: str, request: Mapping[str, JSON], files: Mapping[str, bytes], limits: Limits) -> Job:
    start = f"import {script}\n{script}.main()\n".encode()
    return Job(
        argv=("python", "start__.py"),
        files={"start__.py": start, "request__.json": json.dumps(request).encode("ascii"), **files},
        limits=limits,
        result_channel=True,
        modules=(script,),
    )


def _batch(inputs: Sequence[str], at: int, most: int) -> list[bytes]:
    """Return the next inputs, encoded: at least one, at most `most`, and no more bytes than a job may contain."""
    found: list[bytes] = []
    size = 0
    for text in inputs[at : at + most]:
        data = text.encode("utf-8", "replace")
        size += len(data)
        if found and size > LARGEST_BATCH:
            break
        found.append(data)
    return found


def _built(result: JobResult, sources: Mapping[str, bytes]) -> Built:
    """Read the compiled files from the result of the compiler's job."""
    line, _, rest = result.result.partition(b"\n")
    answer = _object(line)
    if "missing" in answer:
        return Built({}, frozenset(), missing=str(answer["missing"]))
    message = (result.stderr + result.stdout).decode("utf-8", "replace")
    if result.outcome is not JobOutcome.OK or "status" not in answer:
        over = result.outcome in (
            JobOutcome.CPU_LIMIT,
            JobOutcome.WALL_TIMEOUT,
            JobOutcome.MEMORY_LIMIT,
            JobOutcome.OUTPUT_LIMIT,
        )
        return Built({}, frozenset(), f"the compiler was stopped: {result.outcome} ({result.detail})", over)
    if answer["status"] != 0:
        return Built({}, frozenset(), f"it does not compile: {_first_lines(message)}")
    files: dict[str, bytes] = dict(sources)
    executable: set[str] = set()
    while rest:
        line, _, rest = rest.partition(b"\n")
        try:
            name, size, runs = json.loads(line)
            files[str(name)], rest = rest[: int(size)], rest[int(size) :]
        except (ValueError, TypeError):
            return Built({}, frozenset(), "the compiler's results cannot be read")
        if runs is True:
            executable.add(str(name))
    if sum(map(len, files.values())) > LARGEST_PROGRAM:
        return Built({}, frozenset(), f"compiled, it is larger than {LARGEST_PROGRAM // MIB} MiB", over=True)
    made = {name: content for name, content in files.items() if name not in sources}
    return Built(made or files, frozenset(executable))


def _first_lines(message: str) -> str:
    """Return the start of a compiler's message, from its first error on."""
    lines = [line.rstrip() for line in message.strip().split("\n") if line.strip()]
    first = next((at for at, line in enumerate(lines) if "error" in line.lower()), 0)
    return "\n".join(lines[first : first + MOST_LINES])[:1000] or "the compiler printed nothing"


def _runs(data: bytes, count: int, limits: Limits) -> list[JobResult]:
    """Read the finished runs of a batch, in order, up to the first unfinished one."""
    found: list[JobResult] = []
    while data and len(found) < count:
        line, _, data = data.partition(b"\n")
        answer = _object(line)
        size, status, cpu = answer.get("size"), answer.get("status"), answer.get("cpu")
        if answer.get("i") != len(found) or type(size) is not int or not 0 <= size <= len(data):
            break
        output, data = data[:size], data[size:]
        if "missing" in answer:
            missing = JobResult(outcome=JobOutcome.INFRASTRUCTURE_FAULT, detail=str(answer["missing"])[:300])
            return [*found, missing]
        if type(status) is not int or not isinstance(cpu, int | float):
            break
        found.append(_run(status, float(cpu), output, str(answer.get("stderr", "")), limits))
    return found


def _run(status: int, cpu: float, output: bytes, stderr: str, limits: Limits) -> JobResult:
    outcome, detail = JobOutcome.OK, ""
    if cpu > limits.cpu_seconds or status == -SIGXCPU:
        outcome, detail = JobOutcome.CPU_LIMIT, f"more than {limits.cpu_seconds:g} s of CPU time"
    elif status == -SIGXFSZ or len(output) > limits.output_bytes:
        outcome, detail = JobOutcome.OUTPUT_LIMIT, f"more than {limits.output_bytes} bytes of output"
    elif status < 0:
        outcome, detail = JobOutcome.KILLED, f"by signal {-status}"
    elif status:
        outcome, detail = JobOutcome.NONZERO_EXIT, f"exit status {status}"
    lines = [line for line in stderr.strip().split("\n") if COMPLAINT.search(line)]
    complaint = (lines[0] if lines else stderr).encode("utf-8", "replace")
    return JobResult(outcome=outcome, exit_code=status, stdout=output, stderr=complaint, cpu_seconds=cpu, detail=detail)


def _object(line: bytes) -> dict[str, JSON]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if is_object(found) else {}


__all__ = ["Built", "Source", "Toolchain"]
