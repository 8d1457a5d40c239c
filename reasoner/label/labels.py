"""The labelling file with the pairs to compare, and the file with a person's labels next to it.

FILE has one pair per line: {"id", "prompt", "first", "second", "category"?}. Labels are appended to FILE with the
suffix .labels.jsonl, one per line; the last label of a pair counts, and "undo" removes it. A label with "repeat": true
is of a pair shown a second time: it measures agreement with oneself, and is no data. FILE itself is never written. The
names of the models of a blind comparison are in FILE with the suffix .models.json.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from reasoner.errors import USAGE, ReasonerError, faults
from tasks import TaskError
from tasks.inputs import read
from verifiers import JSON
from verifiers.jsonl import JsonLinesError, is_list, is_object, json_line, read_jsonl
from verifiers.one_writer import Held, WriterLock

LABELS = ("first", "second", "tie", "skip")
Choice = Literal["first", "second", "tie", "skip", "undo"]
Slot = tuple[str, bool]
"""One showing of a pair: its id, and True if the pair is shown for the second time."""


class LabelError(ReasonerError, ValueError):
    """Error of a labelling file that cannot be used; the message names the line."""

    exit_code = USAGE


class AlreadyLabelled(LabelError):
    """Error of a pair that has a label already, which must be undone before another one is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A person's decision on a pair."""

    id: str
    label: Choice
    swapped: bool
    """True if the second completion was shown on the left."""
    seconds: float = 0.0
    """Time from showing the pair to the key press."""
    who: str = ""
    reason: str = ""
    """What the person wrote about the decision."""
    repeat: bool = False
    """True if the pair was shown for the second time."""


_LABEL = TypeAdapter(Label)
_MODELS = TypeAdapter(tuple[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two completions of one prompt, in the order of the file."""

    id: str
    prompt: str
    first: str
    second: str
    category: str = ""

    def swapped(self, seed: int) -> bool:
        """Return True if the pair is shown in reverse order: decided by its id and the seed, for half of all pairs."""
        return hashlib.blake2b(f"{seed} {self.id}".encode(), digest_size=1).digest()[0] % 2 == 1


def labels_file(file: Path) -> Path:
    """Return the path of a file's labels."""
    return file.with_name(file.name + ".labels.jsonl")


def models_file(file: Path) -> Path:
    """Return the path of the two models' names, which are kept out of the file that is labelled."""
    return file.with_name(file.name + ".models.json")


def read_models(file: Path) -> tuple[str, str]:
    """Return the names of the models that wrote the first and the second completions; "first" and "second" if unknown.

    Raises:
        LabelError: the file of the names holds something else.
    """
    place = models_file(file)
    if not place.is_file():
        return "first", "second"
    try:
        return _MODELS.validate_json(place.read_bytes())
    except ValidationError as error:
        raise LabelError(
            f'{place} must be a list of two names; it is not ({faults(error)}). Remove it to see "first" and "second".'
        ) from error


@contextmanager
def one_labeller(file: Path) -> Generator[None]:
    """Lock a file against a second labeller during the block; a lock whose process died is taken over.

    Raises:
        LabelError: another process has the lock (the message says which), or the lock cannot be written.
    """
    place = labels_file(file)
    lock_file = place.with_name(place.name + ".lock")
    try:
        lock = WriterLock.hold(lock_file)
    except OSError as error:
        raise LabelError(
            f"{lock_file} cannot be written: {error.strerror}. Use a file in a folder that you can write to."
        ) from error
    except Held as held:
        gone = f" If that process no longer runs, remove {lock_file}." if not held.seen else ""
        raise LabelError(
            f"{file} is being labelled by {held}: a file can have one labeller. End that one (q, or Ctrl-C; its"
            f" labels are kept), or wait for it.{gone}"
        ) from held
    try:
        yield
    finally:
        lock.release()


def read_labels(file: Path) -> dict[str, Label]:
    """Return the labels given so far, by pair, without those of pairs shown for the second time.

    Raises:
        LabelError: a line is not a label.
    """
    return {name: label for (name, repeat), label in read_slots(file).items() if not repeat}


def read_slots(file: Path) -> dict[Slot, Label]:
    """Return all labels given so far; an incomplete last line is ignored.

    Raises:
        LabelError: another line is not a label.
    """
    place = labels_file(file)
    found: dict[Slot, Label] = {}
    for number, row in rows_of(place, growing=True) if place.is_file() else ():
        try:
            put(found, _LABEL.validate_python(row))
        except ValidationError as error:
            raise LabelError(f"{place} line {number} must be a label: {faults(error)}") from error
    return found


def put(found: dict[Slot, Label], label: Label) -> None:
    """Add a label, or remove the one that an "undo" names: undoing a pair's first label removes its second one too."""
    if label.label != "undo":
        found[label.id, label.repeat] = label
        return
    found.pop((label.id, True), None)
    if not label.repeat:
        found.pop((label.id, False), None)


def rows_of(file: Path, *, growing: bool = False) -> Iterator[tuple[int, dict[str, JSON]]]:
    """Yield the JSON lines of a file with their numbers; `growing` ignores an incomplete last line.

    Raises:
        LabelError: the file or a line cannot be read.
    """
    try:
        yield from read_jsonl(file, growing=growing)
    except JsonLinesError as error:
        raise LabelError(str(error)) from error


def append_label(file: Path, label: Label) -> None:
    """Append a label and force it to disk; an incomplete last line left by a crash is removed first."""
    place = labels_file(file)
    with place.open("ab+") as stream:
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(0)
            whole = stream.read().rfind(b"\n") + 1
            if whole != end:
                stream.truncate(whole)
        stream.seek(0, os.SEEK_END)
        stream.write(json_line(asdict(label)).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_comparisons(file: Path) -> list[Comparison]:
    """Return the pairs of a file in any format of docs/data.md, in its order.

    Raises:
        LabelError: the file cannot be read, a row is not a pair, or an id occurs twice.
    """
    found: dict[str, Comparison] = {}
    for where, row in _pairs_of(file):
        if missing := [name for name in ("id", "first", "second") if row.get(name) is None]:
            raise LabelError(f"{where} must be an object with id, prompt, first and second: it has no {missing[0]}")
        pair = Comparison(
            id=str(row["id"]),
            prompt=as_text(row.get("prompt")),
            first=as_text(row["first"]),
            second=as_text(row["second"]),
            category=str(row.get("category") or ""),
        )
        if pair.id in found:
            raise LabelError(f"{where}: id {pair.id!r} occurs twice; ids must differ.")
        found[pair.id] = pair
    return [*found.values()]


def _pairs_of(file: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield (where, row) of every row; a row without an id gets its number."""
    try:
        for number, (where, entry) in enumerate(read(str(file), split="train").entries(), 1):
            if entry.row is None:
                raise LabelError(f"{where} {entry.fault}")
            yield where, {"id": number, **entry.row} if entry.row.get("id") is None else entry.row
    except TaskError as error:
        raise LabelError(str(error)) from error


def as_text(prompt: object) -> str:
    """Return a prompt as text for a person: a text unchanged, a chat with its roles."""
    if is_list(prompt):
        return "\n\n".join(f"{turn.get('role')}: {turn.get('content')}" for turn in prompt if is_object(turn))
    return "" if prompt is None else str(prompt)
