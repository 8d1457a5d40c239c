"""Rows of data files: read, told apart from those that cannot be used, and as token ids. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from reasoner.config.errors import ConfigError
from reasoner.data.prompt import UnusableRow
from tasks import Message
from tasks import inputs as files
from tasks.inputs.formats import Use, reading
from tasks.messages import BadMessages, read_messages
from verifiers.own_files import write_own

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One row as token ids."""

    id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    """The end token included."""
    loss_mask: tuple[bool, ...]
    """Of the completion: False where a token is somebody else's turn."""

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


class BadRow(NamedTuple):
    """A row of data that cannot be used, and why."""

    where: str
    """File and row number, or the row's own id."""
    reason: str


def chat_of(value: object, column: str) -> tuple[Message, ...]:
    """A column that holds chat messages.

    Raises:
        UnusableRow: it does not.
    """
    try:
        return read_messages(value)
    except BadMessages as error:
        raise UnusableRow(f"column {column!r}: {error}") from error


def length_fault(row: Encoded, limit: int) -> str | None:
    """Why a row does not fit, in words; None where it does."""
    if len(row) <= limit:
        return None
    return f"prompt and completion of {len(row)} tokens are over the limit of {limit}"


BAD_ROWS = "bad_rows.tsv"
"""File of a run folder that names every row left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where rows come from, and how they are laid out: what a section of the config says of its data."""

    paths: Sequence[str]
    use: Use
    split: str
    """Ours: train or test."""
    split_names: Mapping[str, str] = field(default_factory=dict[str, str])
    """Our split to theirs."""
    config: str | None = None
    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    """Our column to theirs."""
    optional: frozenset[str] = frozenset()
    """Columns of ours that a row may lack."""


def usable_rows(
    source: Source, *, read: Callable[[Mapping[str, object], str], Item], notes: list[str] | None = None
) -> tuple[list[Item], list[BadRow]]:
    """What `read(row, where)` makes of each row of files, folders or hub data sets; and those it cannot use.

    Args:
        source: the rows, which `read` is given in our own columns.
        read: makes an item of one.
        notes: is added what a person should know of how they were found.
    Raises:
        TaskError: a file cannot be read, or is empty; there is no such format.
    """
    found: list[Item] = []
    bad: list[BadRow] = []
    for where, row in shaped_rows(source, notes=notes):
        try:
            if isinstance(row, ValueError):
                raise UnusableRow(str(row))
            found.append(read(row, where))
        except UnusableRow as error:
            bad.append(BadRow(where, str(error)))
    return found, bad


def shaped_rows(
    source: Source, *, notes: list[str] | None = None
) -> Iterator[tuple[str, Mapping[str, object] | ValueError]]:
    """(where, row in our own columns, or why it is none) of every row, one path after the other.

    Raises:
        TaskError: a file cannot be read, or is empty; there is no such format.
    """
    said: list[str] = []
    for path in source.paths:
        rows = files.read(path, split=source.split_names.get(source.split, source.split), config=source.config)
        whole = (entry.row for _, entry in rows.entries() if entry.row is not None)
        how, note = reading(
            whole, use=source.use, format=source.format, columns=source.columns, optional=source.optional
        )
        said += [*rows.notes, *([f"{path}: {note}"] if note else [])]
        damaged: list[tuple[str, ValueError]] = []
        yield from how.read_all(_whole(path, rows, damaged))
        yield from damaged
    if notes is not None:
        notes += [note for note in dict.fromkeys(said) if note not in notes]


def _whole(
    path: str, rows: files.Rows, damaged: list[tuple[str, ValueError]]
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """(where, row) of the rows that are whole; the others are added to `damaged`."""
    for number, (_, entry) in enumerate(rows.entries(), 1):
        if entry.row is None:
            damaged.append((f"{path} row {number}", ValueError(entry.fault)))
        else:
            yield f"{path} row {number}", entry.row


def report_bad_rows(
    bad: Sequence[BadRow], *, total: int, policy: str, shape: str, folder: Path | None = None
) -> str | None:
    """Say which rows were left out and why; None where none was.

    Args:
        bad: the rows.
        total: rows read.
        policy: "drop", "drop_most" or "stop".
        shape: of a row that can be used, in words.
        folder: a run folder: every row is named in its `bad_rows.tsv`.
    Raises:
        ConfigError: there is one and the policy is "stop", they are more than half and it is "drop", or none is left.
    """
    if folder is not None and bad:
        folder.mkdir(parents=True, exist_ok=True)
        write_own(folder / BAD_ROWS, "".join(f"{row.where}\t{row.reason}\n" for row in bad).encode())
    if not bad and total:
        return None
    shown = "; ".join(f"{row.where}: {row.reason}" for row in bad[:3])
    counted = f"{len(bad)} of {total} rows cannot be used: {shown}{'; ...' if len(bad) > 3 else ''}."
    if len(bad) == total:
        raise ConfigError("bad-value", f"{counted} None is left. A row must be {shape}.")
    if policy == "stop":
        raise ConfigError("bad-value", f"{counted} bad_rows is 'stop'. Mend or remove them, or set bad_rows: drop.")
    if policy == "drop" and 2 * len(bad) > total:
        raise ConfigError(
            "bad-value",
            f"{counted} That is {len(bad) / total:.0%} of the data. Mend them, or set bad_rows: drop_most to go on"
            " without them.",
        )
    return f"{counted} They were left out{f', listed in {folder / BAD_ROWS}' if folder else ''}."
