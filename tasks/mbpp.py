"""MBPP (Austin et al., arXiv:2108.07732), and MBPP+ with many more inputs for its functions (arXiv:2305.01210)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tasks.base import Problem, TaskError
from tasks.code_sets.functions import mbpp_reference, read_mbpp_plus
from tasks.code_sets.mbpp_types import items
from tasks.code_sets.rows import fitting
from tasks.programs import ProgramTask, fenced
from verifiers import JSON

SPLITS: Mapping[str, range] = {
    "train": range(601, 975),
    "test": range(11, 511),
    "validation": range(511, 601),
    "prompt": range(1, 11),
}
"""Task ids of each split (arXiv:2108.07732, appendix A)."""


class Mbpp(ProgramTask):
    """974 small functions with three assertions each: 374 train, 500 test, 90 validation, 10 prompt.

    Args:
        path: a file with all of them, a folder with one file per split, or None: google-research-datasets/mbpp.
        instruction: the prompt; "{problem}" is replaced by the text and the shown assertions.
        shown_tests: number of assertions in the prompt, which show the function's name and types. The paper shows all
            three, but a program can be made to pass shown assertions without solving the problem.
        verifier_options: options of the code verifier.
    Raises:
        TaskError: shown_tests is negative.
    """

    name = "mbpp"
    splits = tuple(SPLITS)
    hub_name = "google-research-datasets/mbpp"
    hub_config = "full"
    columns = ("task_id", "text", "code", "test_list", "test_setup_code")
    default_instruction = "{problem}\n\nAnswer with the whole program in one fenced Python block."

    def __init__(
        self,
        *,
        path: str | None = None,
        instruction: str | None = None,
        shown_tests: int = 1,
        verifier_options: Mapping[str, JSON] | None = None,
    ) -> None:
        super().__init__(path=path, instruction=instruction, verifier_options=verifier_options)
        if shown_tests < 0:
            raise TaskError(f"shown_tests must be at least 0; got {shown_tests}.")
        self._shown = shown_tests

    def is_of(self, split: str, row: Mapping[str, object]) -> bool:
        """Return True if the row's id belongs to the split, when all rows are in one file."""
        if self._path is None or not Path(self._path).is_file():
            return True
        return int(str(row.get("task_id", 0))) in SPLITS[split]

    def problem(self, row: Mapping[str, object], number: int) -> Problem:
        tests = [str(test) for test in items(row["test_list"])]
        text = str(row["text"]).strip()
        if self._shown:
            text += "\nIt is tested like this:\n" + "\n".join(tests[: self._shown])
        with fitting(f"mbpp row {number}"):
            reference = mbpp_reference(row)
        return self.made(
            id=str(row["task_id"]),
            problem=text,
            reference=reference,
            demonstration=fenced(str(row["code"]).replace("\r\n", "\n")),
        )


class MbppPlus(ProgramTask):
    """MBPP functions tested on many inputs; the expected values are those that the canonical solution returns.

    A program must return an equal value; floats within `atol`, or 1e-6 if that is 0. Rows are those of EvalPlus's
    release (base_input, plus_input) or of its copy on the hub (evalplus/mbppplus: `test` contains the inputs).

    Args:
        path: a file or folder of rows; None: evalplus/mbppplus from the hub.
        instruction: the prompt; "{problem}" is replaced by the problem.
        plus: False: the base inputs only (for the release's rows).
        verifier_options: options of the code verifier.
    """

    name = "mbpp_plus"
    splits = ("test",)
    hub_name = "evalplus/mbppplus"
    columns = ("task_id", "prompt")
    default_instruction = "{problem}\n\nAnswer with the whole program in one fenced Python block."
    default_options = {"cpu_seconds": 20.0}

    def __init__(
        self,
        *,
        path: str | None = None,
        instruction: str | None = None,
        plus: bool = True,
        verifier_options: Mapping[str, JSON] | None = None,
    ) -> None:
        super().__init__(path=path, instruction=instruction, verifier_options=verifier_options)
        self._plus = plus

    def problem(self, row: Mapping[str, object], number: int) -> Problem:
        if not self._plus:
            row = {key: value for key, value in row.items() if key != "plus_input"}
        with fitting(f"mbpp_plus row {number}"):
            found = read_mbpp_plus(row)
        return self.made(
            id=str(row["task_id"]).rpartition("/")[2],
            problem=str(found.problem),
            reference=found.reference,
            demonstration=found.solution,
        )
