"""CodeContests (Li et al., arXiv:2203.07814): competition problems, solved by programs that read stdin and print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.base import BadRow, Problem, TaskError
from tasks.code_sets.contests import CONTEST_RULES, CONTEST_TOLERANCE
from tasks.inputs import has_split
from tasks.programs import ProgramTask
from verifiers import JSON
from verifiers.jsonl import is_list, is_object

CASES = ("public_tests", "private_tests", "generated_tests")


class CodeContests(ProgramTask):
    """Problems with cases of input and output, without Python solutions.

    Rows are those of the hub's deepmind/code_contests (description, public_tests, private_tests, generated_tests) or
    have `problem` and `tests` {inputs, outputs}. Outputs are compared word by word, ignoring case; numbers may differ
    by 1e-5.

    Args:
        path: a file of rows (the test split), a folder with one file per split, or None: the hub.
        instruction: the prompt; "{problem}" is replaced by the problem.
        max_cases: number of cases run per problem: the first ones.
        verifier_options: options of the code verifier.
    """

    name = "code_contests"
    splits = ("train", "test")
    hub_name = "deepmind/code_contests"
    default_options = CONTEST_RULES
    default_instruction = (
        "{problem}\n\nWrite a Python program that reads standard input and prints the answer. Answer with the whole"
        " program in one fenced Python block."
    )

    def __init__(
        self,
        *,
        path: str | None = None,
        instruction: str | None = None,
        max_cases: int = 50,
        verifier_options: Mapping[str, JSON] | None = None,
    ) -> None:
        super().__init__(path=path, instruction=instruction, verifier_options=verifier_options)
        if max_cases < 1:
            raise TaskError(f"max_cases must be at least 1; got {max_cases}.")
        self._max_cases = max_cases

    def read(self, split: str) -> Iterator[Problem | BadRow]:
        """Yield the problems of a split, as the data has it. A single file is the test split.

        Raises:
            TaskError: another split than test is wanted of a single file.
        """
        if split != "test" and self._path is not None and Path(self._path).is_file():
            raise TaskError(f"{self._path} is one file, which is the test split. Give a folder with a file per split.")
        return super().read(split)

    def source(self) -> str | None:
        """Return the path if it has no test split, else None."""
        return self._path if self._path is not None and has_split(self._path, "test") is False else None

    def is_of(self, split: str, row: Mapping[str, object]) -> bool:
        """Return True if a row has cases, or malformed ones. A few rows of the hub's data have none."""
        try:
            return bool(_cases(row))
        except TaskError:  # reported when the row is converted to a problem
            return True

    def problem(self, row: Mapping[str, object], number: int) -> Problem:
        text = row.get("problem") or row.get("description")
        if not text:
            raise TaskError(f"code_contests row {number} must have a problem or description; it has {', '.join(row)}.")
        return self.made(
            id=str(row.get("name") or number),
            problem=str(text).strip(),
            reference={"cases": [*_cases(row)[: self._max_cases]], "tolerance": {**CONTEST_TOLERANCE}},
        )


def _cases(row: Mapping[str, object]) -> list[JSON]:
    if "tests" in row:
        pairs = _pairs(row["tests"], "inputs", "outputs")
    else:
        pairs = [pair for name in CASES if row.get(name) for pair in _pairs(row[name], "input", "output")]
    return [{"input": given, "output": output} for given, output in pairs]


def _pairs(group: object, given: str, expected: str) -> list[tuple[JSON, JSON]]:
    inputs, outputs = (group.get(given), group.get(expected)) if is_object(group) else (None, None)
    if not is_list(inputs) or not is_list(outputs) or len(inputs) != len(outputs):
        raise TaskError(f"code_contests: tests must have as many {given} as {expected}; got {str(group)[:80]}.")
    return list(zip(inputs, outputs, strict=True))
