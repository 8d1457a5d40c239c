"""Rows of data files: reading them, separating unusable ones, and their token ids. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from reasoner.config.errors import ConfigError
from reasoner.config.sections import PreferenceSection, SftSection
from tasks import BadRow, Message, UnusableRow
from tasks import inputs as files
from tasks.held_out import held_out
from tasks.inputs.formats import Use, reading
from tasks.inputs.spool import Picked, Spool
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
    """Token ids of the completion, with the end token."""
    loss_mask: tuple[bool, ...]
    """One flag per completion token: False for tokens of other turns than the assistant's."""

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


def chat_of(value: object, column: str) -> tuple[Message, ...]:
    """Read chat messages from the value of a column.

    Raises:
        UnusableRow: the value is not a list of chat messages.
    """
    try:
        return read_messages(value)
    except BadMessages as error:
        raise UnusableRow(f"column {column!r}: {error}") from error


def length_fault(row: Encoded, limit: int) -> str | None:
    """Return why a row exceeds `limit` tokens, as text; None if it fits."""
    if len(row) <= limit:
        return None
    return f"prompt and completion of {len(row)} tokens are over the limit of {limit}"


BAD_ROWS = "bad_rows.tsv"
"""File of a run folder that lists every row left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Location and layout of data rows, as a section of the config gives them."""

    paths: Sequence[str]
    use: Use
    split: str
    """train or test."""
    split_names: Mapping[str, str] = field(default_factory=dict[str, str])
    """Our split name to the name in the data."""
    config: str | None = None
    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    """Our column name to the name in the data."""
    optional: frozenset[str] = frozenset()
    """Columns, by our names, that a row may lack."""


def source_in(
    section: SftSection | PreferenceSection,
    paths: Sequence[str],
    *,
    use: Use,
    split: str,
    optional: frozenset[str] = frozenset(),
) -> Source:
    """Return the data of a config section, read from `paths`."""
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


class Prompted(Protocol):
    """A row with a prompt."""

    @property
    def prompt(self) -> str | Sequence[Message]:
        """Text or chat."""
        ...


PromptedRow = TypeVar("PromptedRow", bound=Prompted)


def divided(rows: Sequence[PromptedRow], share: float) -> tuple[Sequence[PromptedRow], Sequence[PromptedRow]]:
    """Divide rows by a digest of their prompts: those to train on, and the held-out share."""
    held = bytearray(held_out(row.prompt, share) for row in rows)
    kept = Picked(rows, (place for place, tests in enumerate(held) if not tests))
    return kept, Picked(rows, (place for place, tests in enumerate(held) if tests))


def held_out_paths(
    section: SftSection | PreferenceSection, data: Sequence[str], *, use: Use, share: float
) -> tuple[Sequence[str], list[str]]:
    """Return the paths of the held-out rows, and notes on them.

    Args:
        section: its `test` paths are used if it has any.
        data: otherwise these paths are, if they have a test split.
        use: what the rows are used for.
        share: fraction or number of rows to hold out; 0: none.
    Returns:
        (paths, notes); no paths if rows must be split off `data` itself, or if nothing is held out.
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
    """Apply `read(row, where)` to every row of files, folders or hub data sets; return the items and the bad rows.

    Args:
        source: the rows; `read` gets them in our columns.
        read: makes an item of a row, or raises UnusableRow.
        notes: a list to which notes for the user are appended, on how the rows were found.
    Raises:
        TaskError: a file cannot be read or is empty, or the format does not exist.
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
"""Number of first rows checked when checking all would take long (our choice)."""


def check_first(
    sources: Sequence[Source], *, read: Callable[[Mapping[str, object], str], object], policy: RowPolicy, shape: str
) -> None:
    """Check the first LOOKED_AT rows of each source, which is fast for any amount of data.

    Raises:
        TaskError: a file cannot be read or is empty.
        ConfigError: more of these rows are bad than the policy allows. If there may be further rows and the policy is
            not "stop", only if all of these are bad.
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
    """Yield (where, row in our columns or the reason why it is unusable) for every row, path by path.

    Raises:
        TaskError: a file cannot be read or is empty, or the format does not exist.
    """
    found_notes: list[str] = []
    for path in source.paths:
        split = source.split_names.get(source.split, source.split)
        rows = files.read(path, split=split, config=source.config, use=source.use)
        whole = (entry.row for _, entry in rows.entries() if entry.row is not None)
        how, note = reading(
            whole, use=source.use, format=source.format, columns=source.columns, optional=source.optional
        )
        found_notes += [*rows.notes, *([f"{path}: {note}"] if note else [])]
        damaged: list[tuple[str, ValueError]] = []
        yield from how.read_all(_whole(path, rows, damaged))
        yield from damaged
    if notes is not None:
        notes += [note for note in dict.fromkeys(found_notes) if note not in notes]


def _whole(
    path: str, rows: files.Rows, damaged: list[tuple[str, ValueError]]
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield (where, row) of the undamaged rows; add the damaged ones to `damaged`."""
    for number, (_, entry) in enumerate(rows.entries(), 1):
        if entry.row is None:
            damaged.append((f"{path} row {number}", ValueError(entry.fault)))
        else:
            yield f"{path} row {number}", entry.row


OTHERWISE = "fix or remove them"


class RowPolicy(NamedTuple):
    """Treatment of bad rows, and the config key that sets it."""

    value: str
    """drop, drop_most or stop."""
    key: str
    """Config key, such as `sft.bad_rows`."""
    instead: str = OTHERWISE
    """Alternative advice for the user."""

    def refusal(self, bad: int, total: int) -> str | None:
        """Return why this number of bad rows stops a run and which settings would allow it; None if the run goes on."""
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
    """Describe the rows that were left out and why; None if there are none.

    Args:
        bad: the rows.
        total: number of rows read.
        policy: treatment of bad rows.
        shape: description of a usable row.
        folder: a run folder; every row is listed in its `bad_rows.tsv`.
    Raises:
        ConfigError: there is a bad row and the policy is "stop", more than half are bad and it is "drop", or no usable
            row is left.
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
    """Add rows to the run folder's list of rows left out; a row already listed is not repeated."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / BAD_ROWS
    named = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    lines = dict.fromkeys([*named, *(f"{one_line(whole(row.where))}\t{one_line(whole(row.reason))}" for row in bad)])
    write_own(file, "".join(f"{line}\n" for line in lines).encode())
