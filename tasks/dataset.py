"""Any data set as a task: files of any supported kind, a folder of them, or a name on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from string import Formatter
from typing import cast

from tasks.base import BadRow, Message, Problem, TaskError, UnusableRow
from tasks.held_out import DEFAULT_SHARE, check_share
from tasks.inputs import read
from tasks.inputs.formats import Format, NothingToGrade, UnfitRow, as_it_is, format_named, recognise
from tasks.messages import BadMessages, read_messages
from tasks.row_task import RowTask, lacks_test, made
from verifiers import JSON, VerifierError
from verifiers.columns import NoColumn, column_of, has_column
from verifiers.registry import verifier_class
from verifiers.row_choice import Choice, RowGraders, RowRefused

ALLOWED = "task.options.allow_row_code: true"
Row = Mapping[str, object]


class Dataset(RowTask):
    """Rows with a prompt and a reference answer, graded by the verifier that you name.

    Args:
        path: a file, a folder, a pattern (`data/train-*.parquet`), a hub name (`openai/gsm8k`), or a list of these.
        verifier: the verifier of every row that names none.
        verifier_options: options of that verifier.
        test_path: location of the test split if `path` has none; None: a part of the rows is held out, by prompt.
        held_out_share: share of prompts to hold out if there is no test split; 0: none, 1: all, for evaluation only.
        config: the configuration, if the data set has several.
        format: layout of the rows, by a name of docs/data.md; None: recognised, unless a column is named.
        prompt_column: text, or a list of chat messages; None: `prompt`. In this and every other column option, dots
            reach into objects and lists, as in `extra_info.question`.
        reference_column: the reference answer, in the schema of the verifier; None: `reference`.
        id_column: the problem's id; None: the row's number.
        demonstration_column: a worked solution for SFT; None: no column of this kind.
        verifier_column: name of each row's own verifier; rows without one are graded by `verifier`.
        allow_row_code: allow rows to name Python files, modules and URLs there, and not only installed verifiers.
        info_columns: further columns that the verifier gets in `info` (for example for your own reward function).
        template: text with {column} for any column of the row, instead of prompt_column.
        split_names: split name here -> name in the data, for example {"test": "validation"} or
            {"train": "train[5%:]", "test": "train[:5%]"}.
    Raises:
        TaskError: test_path equals path, or held_out_share is out of range.
    """

    name = "dataset"

    def __init__(
        self,
        *,
        path: str | Sequence[str],
        verifier: str,
        verifier_options: Mapping[str, JSON] | None = None,
        test_path: str | Sequence[str] | None = None,
        held_out_share: float = DEFAULT_SHARE,
        config: str | None = None,
        format: str | None = None,
        prompt_column: str | None = None,
        reference_column: str | None = None,
        id_column: str | None = None,
        demonstration_column: str | None = None,
        verifier_column: str | None = None,
        allow_row_code: bool = False,
        info_columns: Sequence[str] = (),
        template: str | None = None,
        split_names: Mapping[str, str] | None = None,
    ) -> None:
        check_share(held_out_share)
        if test_path == path:
            raise TaskError(
                f"test_path must be another file than path, or the training rows are the test rows; got {path!r} twice."
                " Leave test_path out: a part of the rows is held out (held_out_share; 1 for evaluation only)."
            )
        self._path, self._test_path, self._config = path, test_path, config
        self._held_out_share = held_out_share
        self._verifier, self._verifier_options = verifier, dict(verifier_options or {})
        given = {"prompt": prompt_column, "reference": reference_column, "demonstration": demonstration_column}
        self._format = format
        self._named = {ours: theirs for ours, theirs in given.items() if theirs is not None}
        self._id, self._template = id_column, template
        self._verifier_column = verifier_column
        self._graders = RowGraders(verifier, self._verifier_options, any_row=allow_row_code)
        self._info = tuple(info_columns)
        self._split_names = dict(split_names or {})

    def read(self, split: str) -> Iterator[Problem | BadRow]:
        """Yield the problems and bad rows of a split, as the data has it.

        Rows that cannot be graded are left out; `notes` says how many.

        Raises:
            TaskError: the data cannot be read, every row is left out, or no row has the verifier_column.
        """
        path = self._test_path if split == "test" and self._test_path else self._path
        rows = read(path, split=self._split_names.get(split, split), config=self._config, use="problems")
        self.say(*rows.notes)
        format = self._format_of(entry.row for _, entry in rows.entries() if entry.row is not None)
        column, named, has = self._verifier_column, False, ""
        left_out: list[str] = []
        found = 0

        def problem(row: Row, number: int) -> Problem | None:
            nonlocal named, has, found
            has = has or _has(row)
            named = named or (column is not None and has_column(row, column))
            try:
                made_of = self._problem(row, format, split, number)
            except NothingToGrade as why:
                left_out.append(f"row {number} {why}" if not left_out else "")
                return None
            found += 1
            return made_of

        yield from made(rows, problem)
        if left_out:
            said = f"{self._path} {split}: {len(left_out)} of {found + len(left_out)} rows are left out: {left_out[0]}."
            if not found:
                raise TaskError(f"{said} None is left.")
            self.say(said)
        if column is not None and not named:
            raise TaskError(
                f"{self._path} {split}: no row has column {column!r}. {has} Set task.options.verifier_column."
            )

    def source(self) -> str | None:
        """Return the path if it has no test split and none is named by test_path or split_names; else None."""
        if self._test_path is not None or "test" in self._split_names:
            return None
        return lacks_test(self._path, config=self._config)

    def held(self, problem: Problem) -> Problem:
        """Rename a held-out training problem to the test split; ids from id_column stay unchanged."""
        return problem if self._id is not None else super().held(problem)

    def _format_of(self, rows: Iterable[Row]) -> Format | None:
        """Return the named format, or the recognised one. None if rows have our own columns, or columns are named."""
        if self._format is not None:
            return format_named(self._format, "problems")
        found = None if self._named or self._template is not None else recognise(rows, use="problems")
        if found is None or found.format.read is as_it_is:
            return None
        self.say(f"{self._path}: {found.said}")
        return found.format

    def _problem(self, row: Row, format: Format | None, split: str, number: int) -> Problem:
        ours = self._ours(row, format)
        own = self._own_verifier(row)
        return Problem(
            id=f"{split}/{number}" if self._id is None else str(self._column(row, self._id, "id_column")),
            prompt=_prompt(ours["prompt"]),
            reference=cast("JSON", ours["reference"]),
            verifier=own.verifier,
            verifier_options=own.options,
            info={column: cast("JSON", self._present(row, column, "info_columns")) for column in self._info},
            demonstration=None if ours["demonstration"] is None else str(ours["demonstration"]),
            task=self.name,
        )

    def _ours(self, row: Row, format: Format | None) -> Row:
        """Return prompt, reference and demonstration of a row, by named columns, its format, or our own columns."""
        found: dict[str, object] = {}
        if self._template is not None:
            found["prompt"] = self._fill(row)
        for ours in ("prompt", "reference", "demonstration"):
            needed = ours in self._named or (format is None and ours != "demonstration")
            if ours not in found and needed:
                found[ours] = self._column(row, self._named.get(ours, ours), f"{ours}_column")
        try:
            shaped = format.read({**row, **found}) if format else found
        except NothingToGrade:
            raise
        except UnfitRow as error:
            raise UnusableRow(f"is no row of format {format.name if format else '-'}: it {error}") from error
        filled = {"demonstration": None, **shaped, **found}
        for ours in ("prompt", "reference"):
            if filled[ours] is None:
                raise UnusableRow(f"has no value in column {self._named.get(ours, ours)!r}")
        return filled

    def _own_verifier(self, row: Row) -> Choice:
        column = self._verifier_column
        own = column_of(row, column) if column is not None and has_column(row, column) else None
        if not own:
            return Choice(self._verifier, self._verifier_options)
        try:
            chosen = self._graders.choice(str(own), None)
            assert chosen is not None, own
            _check_verifier(chosen.verifier)
        except RowRefused as error:
            raise UnusableRow(f"column {self._verifier_column!r}: {error} Or set {ALLOWED}.") from error
        except VerifierError as error:
            raise UnusableRow(f"column {self._verifier_column!r}: {error}") from error
        return chosen

    def _fill(self, row: Row) -> str:
        assert self._template is not None
        try:
            return _Filler().vformat(self._template, (), row)
        except (NoColumn, KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            raise UnusableRow(f"template {self._template!r} cannot be filled: it {error}. {_has(row)}") from error

    def _column(self, row: Row, column: str, option: str) -> object:
        found = self._present(row, column, option)
        if found is None:
            raise UnusableRow(f"has no value in column {column!r}")
        return found

    def _present(self, row: Row, column: str, option: str) -> object:
        try:
            return column_of(row, column)
        except NoColumn as error:
            formats = (
                " Or set task.options.format (docs/data.md)." if option in ("prompt_column", "reference_column") else ""
            )
            raise UnusableRow(f"{error} Set task.options.{option}.{formats}") from error


class _Filler(Formatter):
    """A formatter that fills {column} and {column.inner.0} from a row; only columns can be named."""

    def get_field(self, field_name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> tuple[object, str]:
        found = column_of(kwargs, field_name)
        return found if isinstance(found, int | float) else str(found), field_name


@cache
def _check_verifier(name: str) -> None:
    verifier_class(name)


def _has(row: Row) -> str:
    return f"It has: {', '.join(map(str, row)) or 'none'}."


def _prompt(value: object) -> str | tuple[Message, ...]:
    if isinstance(value, str):
        return value
    try:
        messages = read_messages(value)
    except BadMessages as error:
        raise UnusableRow(f"a prompt must be text or a chat: {error}.") from error
    if messages[-1]["role"] == "assistant":
        raise UnusableRow(
            "its prompt ends in the assistant's reply, which would reveal the answer. Set task.options.format:"
            " messages (or sharegpt), which makes the messages before the reply the prompt, or prompt_column."
        )
    return messages


__all__ = ["Dataset"]
