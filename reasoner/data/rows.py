"""Rows of data files: read, told apart from those that cannot be used, and as token ids. No torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from reasoner.config.errors import ConfigError
from reasoner.config.sections import PreferenceSection, SftSection
from tasks import BadRow, Message, UnusableRow
from tasks import inputs as files
from tasks.inputs.formats import Use, reading
from tasks.inputs.spool import Spool
from tasks.messages import BadMessages, read_messages
from tasks.row_task import first_of, has_test_split
from verifiers.own_files import write_own
from verifiers.text import one_line, whole

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


def source_in(
    section: SftSection | PreferenceSection,
    paths: Sequence[str],
    *,
    use: Use,
    split: str,
    optional: frozenset[str] = frozenset(),
) -> Source:
    """The data of a config section, or some of its files."""
    return Source(
        paths=paths,
        use=use,
        split=split,
        split_names={str(ours): theirs for ours, theirs in section.split_names.items()},
        config=section.config,
        format=section.format,
        columns=section.columns,
        optional=optional,
    )


def held_out_paths(
    section: SftSection | PreferenceSection, data: Sequence[str], *, use: Use, share: float
) -> tuple[Sequence[str], list[str]]:
    """Where the held-out rows are, and what is to be known of it.

    Args:
        section: its `test` is taken where it names any.
        data: otherwise its own test split is, where it has one.
        use: what the rows are for.
        share: or count, that is to be held out; 0: nothing.
    Returns:
        no path where rows of `data` itself are to be held out, or none are.
    """
    if section.test or not share:
        return section.test, []
    if "test" in section.split_names:
        return data, []
    if not has_test_split(data, config=section.config, use=use):
        return (), []
    return data, [f"{', '.join(data)} has a test split of its own, which is held out."]


def usable_rows(
    source: Source, *, read: Callable[[Mapping[str, object], str], Item], notes: list[str] | None = None
) -> tuple[Spool[Item], list[BadRow]]:
    """What `read(row, where)` makes of each row of files, folders or hub data sets; and those it cannot use.

    Args:
        source: the rows, which `read` is given in our own columns.
        read: makes an item of one.
        notes: is added what a person should know of how they were found.
    Raises:
        TaskError: a file cannot be read, or is empty; there is no such format.
    """
    found: Spool[Item] = Spool()
    bad: list[BadRow] = []
    for where, row in shaped_rows(source, notes=notes):
        try:
            if isinstance(row, ValueError):
                raise UnusableRow(str(row))
            found.append(read(row, where))
        except UnusableRow as error:
            bad.append(BadRow(where, str(error)))
    return found, bad


LOOKED_AT = 1_000
"""First rows that are looked at where all of them would take long (ours)."""


def check_first(
    sources: Sequence[Source], *, read: Callable[[Mapping[str, object], str], object], policy: RowPolicy, shape: str
) -> None:
    """Raise where data cannot be used, as far as its first rows tell; in a moment, however much there is.

    Raises:
        TaskError: a file cannot be read, or is empty. ConfigError: too many of its rows cannot be used.
    """
    bad: list[BadRow] = []
    total = 0
    for where, row in itertools.chain.from_iterable(itertools.islice(shaped_rows(one), LOOKED_AT) for one in sources):
        total += 1
        try:
            if isinstance(row, ValueError):
                raise UnusableRow(str(row))
            read(row, where)
        except UnusableRow as error:
            bad.append(BadRow(where, str(error)))
    if bad and (policy.value == "stop" or total < LOOKED_AT or len(bad) == total):
        report_bad_rows(bad, total=total, policy=policy, shape=shape)


def shaped_rows(
    source: Source, *, notes: list[str] | None = None
) -> Iterator[tuple[str, Mapping[str, object] | ValueError]]:
    """(where, row in our own columns, or why it is none) of every row, one path after the other.

    Raises:
        TaskError: a file cannot be read, or is empty; there is no such format.
    """
    said: list[str] = []
    for path in source.paths:
        split = source.split_names.get(source.split, source.split)
        rows = files.read(path, split=split, config=source.config, use=source.use)
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


OTHERWISE = "fix or remove them"


class RowPolicy(NamedTuple):
    """What becomes of bad rows, and where the config says so."""

    value: str
    """drop, drop_most or stop."""
    key: str
    """Of the config, such as `sft.bad_rows`."""
    instead: str = OTHERWISE
    """What else a user can do."""

    def refusal(self, bad: int, total: int) -> str | None:
        """Why data with so many bad rows stops a run, and what else may be set; None where it goes on."""
        if not total or bad == total:
            return "None is left."
        most = 2 * bad > total
        if not bad:
            return None
        allows = f"set {self.key}: {'drop_most' if most else 'drop'} to go on without them"
        if self.value == "stop":
            return f"{self.key} is 'stop': {self.instead}, or {allows}."
        if self.value == "drop" and most:
            return f"That is {bad / total:.0%} of the data: {self.instead}, or {allows}."
        return None


def report_bad_rows(
    bad: Sequence[BadRow], *, total: int, policy: RowPolicy, shape: str, folder: Path | None = None
) -> str | None:
    """Say which rows were left out and why; None where none was.

    Args:
        bad: the rows.
        total: rows read.
        policy: what is to become of them.
        shape: of a row that can be used, in words.
        folder: a run folder: every row is named in its `bad_rows.tsv`.
    Raises:
        ConfigError: there is one and the policy is "stop", they are more than half and it is "drop", or none is left.
    """
    if folder is not None and bad:
        name_rows(bad, folder)
    if not bad and total:
        return None
    counted = f"{len(bad)} of {total} rows cannot be used: {first_of(bad)}."
    listed = f", listed in {folder / BAD_ROWS}" if folder else ""
    refusal = policy.refusal(len(bad), total)
    if refusal is None:
        return f"{counted} They were left out{listed}."
    if len(bad) == total:
        instead = "" if policy.instead == OTHERWISE else f" {policy.instead[0].upper()}{policy.instead[1:]}."
        refusal = f"None is left. A row must be {shape}.{instead}"
    raise ConfigError("bad-value", f"{counted} {refusal}{f' They are{listed[1:]}.' if listed else ''}")


def name_rows(bad: Sequence[BadRow], folder: Path) -> None:
    """Add rows to the file of a run folder that names every row left out, each once."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / BAD_ROWS
    named = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    lines = dict.fromkeys([*named, *(f"{one_line(whole(row.where))}\t{one_line(whole(row.reason))}" for row in bad)])
    write_own(file, "".join(f"{line}\n" for line in lines).encode())
