"""MBPP (Austin et al., arXiv:2108.07732), and MBPP+ with many more inputs for its functions (arXiv:2305.01210)."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tasks.base import Problem, TaskError
from tasks.code_sets.functions import first_assertion
from tasks.code_sets.mbpp_types import items, rebuilt
from tasks.programs import ProgramTask, fenced
from verifiers import JSON
from verifiers.code.guest import wire

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
        instruction: the prompt; "{problem}" stands for the text and the assertions that are shown.
        shown_tests: assertions that the prompt shows, for the name and the types. The paper shows all three; what is
            shown is also what a program can be made to pass without solving the problem.
        verifier_options: of the code verifier.
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

    def rows(self, split: str) -> Iterable[Mapping[str, object]]:
        rows = super().rows(split)
        if self._path is None or not Path(self._path).is_file():
            return rows
        return [row for row in rows if int(str(row.get("task_id", 0))) in SPLITS[split]]

    def problem(self, row: Mapping[str, object], number: int) -> Problem:
        tests = [str(test) for test in items(row["test_list"])]
        code = str(row["code"]).replace("\r\n", "\n")
        reference: dict[str, JSON] = {"tests": [*tests], "setup": str(row["test_setup_code"] or "")}
        entry = _tested_builtin(code, tests)
        text = str(row["text"]).strip()
        if self._shown:
            text += "\nIt is tested like this:\n" + "\n".join(tests[: self._shown])
        return self.made(
            id=str(row["task_id"]),
            problem=text,
            reference=reference | ({"entry_point": entry} if entry else {}),
            demonstration=fenced(code),
        )


def _tested_builtin(code: str, tests: Sequence[str]) -> str | None:
    """The function that the tests call, where it bears the name of a built-in one (MBPP 126 asks for `sum`)."""
    defined = {node.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)}
    used = {node.id for test in tests for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Name)}
    return next((name for name in sorted(defined & used) if name in vars(builtins)), None)


class MbppPlus(ProgramTask):
    """MBPP functions against many inputs; what is expected is what the canonical solution returns.

    A program must return an equal value; floats within `atol`, or 1e-6 where that is 0. Rows are those of EvalPlus's
    release (base_input, plus_input) or of its copy on the hub (evalplus/mbppplus: `test` holds the inputs).

    Args:
        path: a file or folder of rows; None: evalplus/mbppplus from the hub.
        instruction: the prompt; "{problem}" stands for the problem.
        plus: False: the base inputs alone (of the release's rows).
        verifier_options: of the code verifier.
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
        task_id = str(row["task_id"]).rpartition("/")[2]
        code = str(row["canonical_solution"] if "canonical_solution" in row else row.get("code", ""))
        if not code.strip():
            raise TaskError(f"mbpp_plus row {number} must have a canonical_solution or code; it has {', '.join(row)}.")
        if "base_input" in row:
            given = [*items(row["base_input"]), *(items(row.get("plus_input") or []) if self._plus else [])]
            inputs = [rebuilt(int(task_id), items(arguments)) for arguments in given]
            entry = str(row["entry_point"])
        else:
            inputs, entry = _inputs_of_script(str(row.get("test", "")), code, number)
        tests = str(row["assertion"]) if "assertion" in row else "\n".join(map(str, items(row["test_list"])))
        text = str(row["prompt"]).strip().strip("'\"").strip()
        return self.made(
            id=task_id,
            problem=f"{text}\nIt is tested like this:\n{first_assertion(tests)}",
            reference={
                "entry_point": entry,
                "oracle": code,
                "inputs": [[wire.encode(argument) for argument in arguments] for arguments in inputs],
                "tolerance": float(str(row.get("atol") or 0)) or 1e-6,
            },
            demonstration=fenced(code),
        )


def _inputs_of_script(script: str, code: str, number: int) -> tuple[list[list[object]], str]:
    """The literal `inputs` of a test script, and the function that it is about."""
    try:
        body = ast.parse(script).body
        found = next(
            node.value
            for node in body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "inputs"
        )
        inputs = [list(arguments) for arguments in ast.literal_eval(found)]
        defined = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
        used = [
            node.func.id
            for node in ast.walk(body[-1])
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        return inputs, next(name for name in used if name in defined)
    except (SyntaxError, ValueError, TypeError, StopIteration, IndexError) as error:
        raise TaskError(f"mbpp_plus row {number}: its test script has no literal inputs and a call: {error}.") from None
