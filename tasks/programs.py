"""What the tasks that ask for programs share: where their rows come from, and how they are graded."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

from tasks.base import BadRow, Problem, TaskError, UnusableRow
from tasks.inputs import read
from tasks.row_task import Row, RowTask, made
from verifiers import JSON


class ProgramTask(RowTask):
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

    def read(self, split: str) -> Iterator[Problem | BadRow]:
        """The rows of a split that the data has."""
        rows = read(self._path or self.hub_name, split=split, config=self.hub_config)
        self.say(*rows.notes)
        return made(rows, lambda row, number: self._of_row(row, number) if self.is_of(split, row) else None)

    def source(self) -> str | None:
        """None: the rows say themselves which split they are of, or there is one split alone."""
        return None

    def _of_row(self, row: Row, number: int) -> Problem:
        missing = [column for column in self.columns if column not in row]
        if missing:
            raise UnusableRow(
                f"must have columns {', '.join(self.columns)}; it lacks {' and '.join(missing)}"
                f" (it has: {', '.join(row) or 'none'})"
            )
        return self.problem(row, number)

    def is_of(self, split: str, row: Row) -> bool:
        """Whether a row belongs to the split that its file was read for."""
        return True

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
