"""The labelling file: what is compared, and the labels that a person gave beside it.

FILE holds one pair a line: {"id", "prompt", "first", "second", "category"?}. Labels are appended to FILE with the
suffix .labels.jsonl, one a line; the last one of a pair counts, and "undo" takes it back. FILE itself is never written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

from reasoner.errors import USAGE, ReasonerError

LABELS = ("first", "second", "tie", "skip")
Choice = Literal["first", "second", "tie", "skip", "undo"]


class LabelError(ReasonerError, ValueError):
    """A labelling file cannot be used; the message names the line."""

    exit_code = USAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One decision."""

    id: str
    label: Choice
    swapped: bool
    """Whether the second completion was shown on the left."""
    seconds: float = 0.0
    """From showing the pair to the key."""
    who: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two completions of one prompt, as they stand in the file."""

    id: str
    prompt: str
    first: str
    second: str
    category: str = ""

    def swapped(self, seed: int) -> bool:
        """Whether this pair is shown the other way round: by its id and the seed, half of all pairs."""
        return hashlib.blake2b(f"{seed} {self.id}".encode(), digest_size=1).digest()[0] % 2 == 1


def labels_file(file: Path) -> Path:
    """Where the labels of a file lie."""
    return file.with_name(file.name + ".labels.jsonl")


def read_labels(file: Path) -> dict[str, Label]:
    """The labels given so far, by pair.

    Raises:
        LabelError: a line is no label.
    """
    place = labels_file(file)
    found: dict[str, Label] = {}
    if not place.is_file():
        return found
    with place.open(encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                break  # cut off while it was written: not given
            try:
                label = Label(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise LabelError(f"{place} line {number} must be a label: {error}") from error
            if label.label == "undo":
                found.pop(label.id, None)
            else:
                found[label.id] = label
    return found


def append_label(file: Path, label: Label) -> None:
    """Write one label and force it to disk; a line that a crash left unfinished is cut first."""
    place = labels_file(file)
    with place.open("ab+") as stream:
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(0)
            whole = stream.read().rfind(b"\n") + 1
            if whole != end:
                stream.truncate(whole)
        stream.seek(0, os.SEEK_END)
        stream.write(json.dumps(asdict(label), ensure_ascii=False).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_comparisons(file: Path) -> list[Comparison]:
    """The pairs of a file, in its order.

    Raises:
        LabelError: a line is no pair, or an id stands twice.
    """
    found: list[Comparison] = []
    seen: set[str] = set()
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = cast("dict[str, object]", json.loads(line.decode()))
                pair = Comparison(
                    id=str(row["id"]),
                    prompt=as_text(row.get("prompt")),
                    first=str(row["first"]),
                    second=str(row["second"]),
                    category=str(row.get("category") or ""),
                )
            except (ValueError, TypeError, KeyError) as error:
                raise LabelError(
                    f"{file} line {number} must be an object with id, prompt, first and second: {error!r}"
                ) from error
            if pair.id in seen:
                raise LabelError(f"{file} line {number}: id {pair.id!r} stands twice; ids must differ.")
            seen.add(pair.id)
            found.append(pair)
    return found


def as_text(prompt: object) -> str:
    """A prompt for a person: text as it is, a chat with its roles."""
    if isinstance(prompt, list):
        turns = cast("Sequence[dict[str, object]]", prompt)
        return "\n\n".join(f"{turn.get('role')}: {turn.get('content')}" for turn in turns)
    return "" if prompt is None else str(prompt)


__all__ = [
    "LABELS",
    "Choice",
    "Comparison",
    "Label",
    "LabelError",
    "append_label",
    "as_text",
    "labels_file",
    "read_comparisons",
    "read_labels",
]
