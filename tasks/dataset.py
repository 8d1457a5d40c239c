"""Any dataset as a task: a JSONL, JSON or parquet file, a folder of them, or a name on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import cast

from tasks.base import Message, Problem, Task, TaskError
from tasks.messages import BadMessages, read_messages
from tasks.rows import read_rows
from verifiers import JSON, VerifierError
from verifiers.registry import verifier_class
from verifiers.row_choice import Choice, RowGraders, RowRefused

ALLOWED = "task.options.allow_row_code: true"


class Dataset(Task):
    """Rows with a prompt and a reference, graded by the verifier that you name.

    Args:
        path: a file, a folder with one file per split, or a hub name such as `openai/gsm8k`.
        verifier: the verifier of every row that names none.
        verifier_options: its options.
        test_path: where the test split is, if `path` is a single file; None: every tenth row of it, held out.
        config: the configuration of a hub dataset that has several.
        prompt_column: text, or a list of chat messages.
        reference_column: the gold, in the schema of the verifier.
        id_column: None: the row's number.
        demonstration_column: a worked solution for SFT, if there is one.
        verifier_column: the name of each row's own verifier; rows without one are graded by `verifier`.
        allow_row_code: rows may name Python files, modules and URLs there, and not only installed verifiers.
        info_columns: further columns that the verifier gets in `info` (a reward function of one's own reads them).
        template: text with {column} for any column of the row, instead of prompt_column.
        split_names: our split -> theirs, e.g. {"test": "validation"}.
    """

    name = "dataset"

    def __init__(
        self,
        *,
        path: str,
        verifier: str,
        verifier_options: Mapping[str, JSON] | None = None,
        test_path: str | None = None,
        config: str | None = None,
        prompt_column: str = "prompt",
        reference_column: str = "reference",
        id_column: str | None = None,
        demonstration_column: str | None = None,
        verifier_column: str | None = None,
        allow_row_code: bool = False,
        info_columns: Sequence[str] = (),
        template: str | None = None,
        split_names: Mapping[str, str] | None = None,
    ) -> None:
        self._path, self._test_path, self._config = path, test_path, config
        self._verifier, self._verifier_options = verifier, dict(verifier_options or {})
        self._prompt, self._reference, self._id = prompt_column, reference_column, id_column
        self._demonstration, self._template = demonstration_column, template
        self._verifier_column = verifier_column
        self._graders = RowGraders(verifier, self._verifier_options, any_row=allow_row_code)
        self._info = tuple(info_columns)
        self._split_names = dict(split_names or {})

    def problems(self, split: str) -> Sequence[Problem]:
        if split not in self.splits:
            raise TaskError(f"split must be train or test; got {split!r}.")
        rows = self._rows(split)
        if self._verifier_column is not None and not any(self._verifier_column in row for _, row in rows):
            has = _has(rows[0][1]) if rows else "There is no row."
            raise TaskError(
                f"{self._path} {split}: no row has column {self._verifier_column!r}. {has} Set"
                " task.options.verifier_column."
            )
        found = [self._problem(row, split, number) for number, row in rows]
        first: dict[str, int] = {}
        for (number, _), problem in zip(rows, found, strict=True):
            if first.setdefault(problem.id, number) != number:
                raise TaskError(
                    f"{self._path} {split} rows {first[problem.id]} and {number} have the same id {problem.id!r} in"
                    f" column {self._id!r}. Give each row an id of its own, or leave task.options.id_column out."
                )
        return found

    def _rows(self, split: str) -> list[tuple[int, Mapping[str, object]]]:
        from pathlib import Path

        one_file = Path(self._path).is_file() and self._test_path is None
        path = self._test_path if split == "test" and self._test_path else self._path
        rows = [*enumerate(read_rows(path, split=self._split_names.get(split, split), name=self._config))]
        if not one_file:
            return rows
        if len(rows) < 10 and split == "test":
            raise TaskError(
                f"{path} holds {len(rows)} rows, too few to hold every tenth out as the test split. Set"
                " task.options.test_path, or leave evaluation out with eval.problems: 0."
            )
        return [(number, row) for number, row in rows if (number % 10 == 9) == (split == "test")]

    def _problem(self, row: Mapping[str, object], split: str, number: int) -> Problem:
        where = f"{self._path} {split} row {number}"
        if self._template is not None:
            prompt: object = self._fill(row, where)
        else:
            prompt = self._column(row, self._prompt, "prompt_column", where)
        demonstration = None
        if self._demonstration is not None:
            demonstration = str(self._column(row, self._demonstration, "demonstration_column", where))
        own = self._own_verifier(row, where)
        return Problem(
            id=f"{split}/{number}" if self._id is None else str(self._column(row, self._id, "id_column", where)),
            prompt=_prompt(prompt, where),
            reference=cast("JSON", self._column(row, self._reference, "reference_column", where)),
            verifier=own.verifier,
            verifier_options=own.options,
            info={column: cast("JSON", self._present(row, column, "info_columns", where)) for column in self._info},
            demonstration=demonstration,
            task=self.name,
        )

    def _own_verifier(self, row: Mapping[str, object], where: str) -> Choice:
        own = row.get(self._verifier_column) if self._verifier_column is not None else None
        if not own:
            return Choice(self._verifier, self._verifier_options)
        try:
            chosen = self._graders.choice(str(own), None)
            assert chosen is not None, own
            _check_verifier(chosen.verifier)
        except RowRefused as error:
            raise TaskError(f"{where}, column {self._verifier_column!r}: {error} Or set {ALLOWED}.") from error
        except VerifierError as error:
            raise TaskError(f"{where}, column {self._verifier_column!r}: {error}") from error
        return chosen

    def _fill(self, row: Mapping[str, object], where: str) -> str:
        assert self._template is not None
        try:
            return self._template.format_map({key: str(value) for key, value in row.items()})
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            raise TaskError(f"{where}: template {self._template!r} cannot be filled ({error}). {_has(row)}") from error

    def _column(self, row: Mapping[str, object], column: str, option: str, where: str) -> object:
        if self._present(row, column, option, where) is None:
            raise TaskError(f"{where} has no value in column {column!r}. {_has(row)} Set task.options.{option}.")
        return row[column]

    def _present(self, row: Mapping[str, object], column: str, option: str, where: str) -> object:
        if column not in row:
            raise TaskError(f"{where} has no column {column!r}. {_has(row)} Set task.options.{option}.")
        return row[column]


@cache
def _check_verifier(name: str) -> None:
    verifier_class(name)


def _has(row: Mapping[str, object]) -> str:
    return f"It has: {', '.join(map(str, row)) or 'none'}."


def _prompt(value: object, where: str) -> str | tuple[Message, ...]:
    if isinstance(value, str):
        return value
    try:
        return read_messages(value)
    except BadMessages as error:
        raise TaskError(f"{where}: a prompt must be text or a chat: {error}.") from error


__all__ = ["Dataset"]
