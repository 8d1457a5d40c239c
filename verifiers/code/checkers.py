"""Checkers: programs that decide whether an output is right, for problems with several right answers.

A checker runs in its own sandboxed job, on files: the input, the expected output, and the tested program's output.
The tested program never runs in that job, so it can influence the checker by its output only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sandbox.api import MIB, Job, JobOutcome, JobResult, Limits
from verifiers.code.compiled import NO_COMPILER, Source, Toolchain
from verifiers.code.languages import LANGUAGES
from verifiers.errors import BadReference
from verifiers.jsonl import is_object
from verifiers.verdict import JSON

LIMITS = Limits(cpu_seconds=5.0, wall_seconds=40.0, memory_bytes=512 * MIB, file_bytes=64 * MIB, input_bytes=128 * MIB)
INPUT, OUTPUT, ANSWER = "input.txt", "output.txt", "answer.txt"
ORDERS: Mapping[str, tuple[str, str, str]] = {
    "exit": (INPUT, OUTPUT, ANSWER),
    "prints": (INPUT, ANSWER, OUTPUT),
}
"""Protocol -> order of the files: testlib's (https://codeforces.com/testlib), and that of open-r1/codeforces'
`generated_checker`."""
NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?")
WRONG = (1, 2, 4, 5, 7, 8)
"""Exit statuses of testlib's checkers for a rejected output: wrong, badly formatted, with extra content after its
end, with points (7), truncated. 3 is a fault of the checker itself."""
ACCEPTED = (1.0, 100.0)
"""Numbers that a checker prints for a right output; any other number means a wrong one."""


@dataclass(frozen=True, slots=True)
class CheckerSource:
    """Checker as written in a reference."""

    source: str
    language: str = "python"
    protocol: str = "prints"


def read_checker(value: JSON) -> CheckerSource:
    """Read the checker of a reference: Python source, or an object of source, language and protocol.

    Raises:
        BadReference: it is malformed; the message says what is wrong.
    """
    if isinstance(value, str):
        value = {"source": value}
    if not is_object(value):
        raise BadReference(f"checker must be source or an object with one; got {value!r:.80}.")
    unknown = sorted(set(value) - {"source", "language", "protocol"})
    if unknown:
        raise BadReference(f"checker may not have {unknown[0]!r}; it takes source, language, protocol.")
    source, language = value.get("source"), value.get("language", "python")
    protocol = value.get("protocol", "prints" if language == "python" else "exit")
    if not isinstance(source, str) or not source.strip():
        raise BadReference(f"checker: source must be a program; got {source!r:.80}.")
    if not isinstance(language, str) or language not in LANGUAGES:
        raise BadReference(f"checker: language must be one of {', '.join(LANGUAGES)}; got {language!r:.80}.")
    if not isinstance(protocol, str) or protocol not in ORDERS:
        raise BadReference(f"checker: protocol must be one of {', '.join(ORDERS)}; got {protocol!r:.80}.")
    return CheckerSource(source, language, protocol)


class Checker:
    """Compiled checker.

    Args:
        value: checker of a usable reference.
        run: function that runs a job in the sandbox.

    Raises:
        BadReference: it does not compile, or the sandbox lacks its language.
        SandboxError: the sandbox failed.
    """

    def __init__(self, value: JSON, run: Callable[[Job], JobResult]) -> None:
        self._given = read_checker(value)
        self._run = run
        self._sound: dict[int, str] = {}
        language = LANGUAGES[self._given.language]
        name = "checker.py" if self._given.language == "python" else ""
        source = Source(code=self._given.source, name=name)
        self._built = Toolchain(language, run, LIMITS).build(source)
        if self._built.missing:
            raise BadReference(f"the checker needs {self._built.missing}, which the sandbox lacks. {NO_COMPILER}")
        if self._built.trouble:
            raise BadReference(f"the checker: {self._built.trouble}")
        command = language.command(language.run, source=source.code, memory_mb=LIMITS.memory_bytes // MIB)
        self._command = ("python", "checker.py") if name else command

    def accepts(self, number: int, case: Mapping[str, JSON], printed: str) -> bool:
        """Return True if an output is right for a case.

        A rejected output is wrong only if the checker accepts the expected output; otherwise the checker is at fault,
        not the program. If no output is expected (it is empty), the checker alone decides.

        Args:
            number: of the case.
            case: its input and expected output.
            printed: the tested program's output.

        Raises:
            BadReference: the checker fails, or does not accept the expected output.
        """
        judged = self._result_on(case, printed)
        if judged is True:
            return True
        expected = str(case["output"])
        if expected.strip():
            if number not in self._sound:
                sound = self._result_on(case, expected)
                self._sound[number] = "" if sound is True else str(sound or "it does not accept it")
            if self._sound[number]:
                raise BadReference(
                    f"the checker is wrong about the expected output of case {number}: {self._sound[number]}"
                )
        elif isinstance(judged, str):
            raise BadReference(f"the checker fails at case {number}: {judged}")
        return False

    def _result_on(self, case: Mapping[str, JSON], printed: str) -> bool | str:
        """Run the checker on an output; return True (accepted), False (rejected) or how the checker failed."""
        texts = {INPUT: str(case["input"]), ANSWER: str(case["output"]), OUTPUT: printed}
        files = {name: text.encode("utf-8", "replace") for name, text in texts.items()}
        argv = (*self._command, *ORDERS[self._given.protocol])
        result = self._run(
            Job(argv=argv, files={**self._built.files, **files}, executable=self._built.executable, limits=LIMITS)
        )
        if result.outcome not in (JobOutcome.OK, JobOutcome.NONZERO_EXIT):
            return f"{result.outcome} ({result.detail})"
        status = result.exit_code or 0
        complaint = result.stderr.decode("utf-8", "replace").strip().split("\n")[-1][:200]
        if self._given.protocol == "exit":
            crashed = self._given.language == "python" and "Traceback (most recent call last)" in str(result.stderr)
            if status == 0 or (status in WRONG and not crashed):
                return status == 0
            return f"exit status {status}: {complaint}"
        words = result.stdout.decode("utf-8", "replace").split()
        word = words[-1] if words else ""
        if status == 0 and NUMBER.fullmatch(word):
            return float(word) in ACCEPTED
        return f"exit status {status}: {complaint}" if status else f"it must print 1 or 0; it printed {word[:40]!r}"
