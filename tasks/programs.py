"""Base class of the tasks that ask for programs: it reads their rows and sets how they are graded."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

from tasks.base import BadRow, Problem, TaskError, UnusableRow
from tasks.inputs import read
from tasks.row_task import Row, RowTask, made
from verifiers import JSON


class ProgramTask(RowTask):
    """Rows of a data set, graded by the code verifier.

    Args:
        path: a file of rows, or a folder with one file per split; None: the data set of the Hugging Face hub.
        instruction: the prompt; "{problem}" is replaced by the problem.
        verifier_options: options of the code verifier: sandbox, reward, cpu_seconds, ...
    Raises:
        TaskError: an instruction without {problem}.
    """

    hub_name: ClassVar[str] = ""
    hub_config: ClassVar[str | None] = None
    columns: ClassVar[tuple[str, ...]] = ()
    """Columns that every row must have."""
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
        """Yield the problems and bad rows of a split, as the data has it."""
        rows = read(self._path or self.hub_name, split=split, config=self.hub_config)
        self.say(*rows.notes)
        return made(rows, lambda row, number: self._of_row(row, number) if self.is_of(split, row) else None)

    def source(self) -> str | None:
        """Return None: each row says to which split it belongs, or there is only one split."""
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
        """Return True if a row belongs to the split that its file was read for."""
        return True

    @abstractmethod
    def problem(self, row: Mapping[str, object], number: int) -> Problem:
        """Build the problem of one row, which has every column of `columns`."""

    def made(self, *, id: str, problem: str, reference: JSON, demonstration: str | None = None) -> Problem:
        """Build a problem with this task's prompt, verifier and options."""
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
    """Return a program as a completion: in a fenced Python block."""
    return f"```python\n{code.strip(chr(10))}\n```"
