"""What the tasks that ask for programs share: where their rows come from, and how they are graded."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from tasks.base import Problem, Task, TaskError
from tasks.inputs import read
from verifiers import JSON


class ProgramTask(Task):
    """Rows of a dataset, graded by the code verifier.

    Args:
        path: a file of rows, or a folder with one file per split; None: the dataset of the Hugging Face hub.
        instruction: the prompt; "{problem}" stands for the problem.
        verifier_options: of the code verifier: sandbox, reward, cpu_seconds, ...
    """

    hub_name: ClassVar[str] = ""
    hub_config: ClassVar[str | None] = None
    columns: ClassVar[tuple[str, ...]] = ()
    """That every row must have."""
    default_instruction: ClassVar[str] = "{problem}"
    default_options: ClassVar[Mapping[str, JSON]] = {}

    def __init__(
        self,
        *,
        path: str | None = None,
        instruction: str | None = None,
        verifier_options: Mapping[str, JSON] | None = None,
    ) -> None:
        self._path = path
        self._instruction = instruction or self.default_instruction
        if "{problem}" not in self._instruction:
            raise TaskError("instruction must contain {problem}.")
        self._options = {**self.default_options, **(verifier_options or {})}

    def problems(self, split: str) -> Sequence[Problem]:
        if split not in self.splits:
            raise TaskError(f"split of {self.name} must be {' or '.join(self.splits)}; got {split!r}.")
        found: list[Problem] = []
        for number, row in enumerate(self.rows(split)):
            missing = [column for column in self.columns if column not in row]
            if missing:
                raise TaskError(
                    f"{self.name} {split} row {number} must have columns {', '.join(self.columns)}; it lacks"
                    f" {' and '.join(missing)} (it has: {', '.join(row) or 'none'})."
                )
            found.append(self.problem(row, number))
        return found

    def rows(self, split: str) -> Iterable[Mapping[str, object]]:
        """The rows of a split."""
        return read(self._path or self.hub_name, split=split, config=self.hub_config)

    @abstractmethod
    def problem(self, row: Mapping[str, object], number: int) -> Problem:
        """The problem of one row that has every column."""

    def made(self, *, id: str, problem: str, reference: JSON, demonstration: str | None = None) -> Problem:
        """A problem with this task's prompt, verifier and options."""
        return Problem(
            id=f"{self.name}/{id}",
            prompt=self._instruction.replace("{problem}", problem),
            reference=reference,
            verifier="code",
            verifier_options=self._options,
            demonstration=demonstration,
            task=self.name,
        )


def fenced(code: str) -> str:
    """A program as a completion."""
    return f"```python\n{code.strip(chr(10))}\n```"
