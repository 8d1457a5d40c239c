"""Reading of rows from a path: a file, a folder, a pattern, a list of them, or a data set of the Hugging Face hub."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from tasks.base import TaskError
from tasks.inputs.arrow_files import Arrow, Parquet
from tasks.inputs.csv_files import csv_entries
from tasks.inputs.entries import Entry, Part, Rows, Source, Text
from tasks.inputs.folders import Splits, by_name, splits_in
from tasks.inputs.hub import hub_rows
from tasks.inputs.json_files import Errors, JsonFile
from tasks.inputs.names import SUFFIXES, Asked, Use, asked_for, is_data_file, kind_of, meant, no_split
from tasks.inputs.unpacking import unpacked
from verifiers import JSON

Paths = str | Sequence[str]
FORBIDDEN: Mapping[str, str] = {
    ".py": "is a loading script, which is never run. Name its data files, or write the rows as JSON lines",
    ".pkl": "is a Python pickle, which may run code when it is read. Write it as JSON lines",
    ".pickle": "is a Python pickle, which may run code when it is read. Write it as JSON lines",
    ".pt": "is a file of torch, which may run code when it is read. Write it as JSON lines",
    ".zip": "is an archive. Unpack it",
    ".tar": "is an archive. Unpack it",
    ".tgz": "is an archive. Unpack it",
    ".7z": "is an archive. Unpack it",
    ".xlsx": "is a spreadsheet. Save the sheet as CSV",
    ".xls": "is a spreadsheet. Save the sheet as CSV",
    ".ods": "is a spreadsheet. Save the sheet as CSV",
}


def read(path: Paths, *, split: str, config: str | None = None, use: Use | None = None) -> Rows:
    """Return the rows of one split. They are read lazily, except for the first.

    Args:
        path: a file (which is then the only split), a folder, a pattern (`data/train-*.parquet`), the name of a data
            set on the Hugging Face hub, or a list of these, read in order.
        split: its name, a part of it (`train[:5%]`, `train[100:200]`) or a sum (`train+validation`).
        config: the configuration, if the data set has several.
        use: use of the rows, which may decide between several splits.
    Returns:
        the rows, none of them kept in memory; iterating over them raises `TaskError` at a damaged row (`Rows.entries`
        yields damaged rows too).
    Raises:
        TaskError: there is no such file, folder, split or data set; it cannot be read; it has no row.
    """
    sources, notes = list[Source](), list[str]()
    asked = asked_for(split)
    for one in [path] if isinstance(path, str) else path:
        if not is_local(one):
            rows = hub_rows(one, split=split, config=config, use=use)
            sources.append(rows)
            notes += rows.notes
            continue
        available = _splits(one, config)
        for part in asked:
            files, said = _chosen(one, available, part.name, use)
            notes += said
            sources += _parts([open_file(file, split=part.name) for file in files], part)
    found = Rows(sources, notes=notes)
    if next(found.entries(), None) is None:
        raise TaskError(f"{path} must have at least one row; it has none.")
    return found


def splits(path: Paths, *, config: str | None = None) -> list[str] | None:
    """Return the split names of a local path; None if it has no splits (a single file, unsplit files) or is on the hub.

    Raises:
        TaskError: there is no such file or folder.
    """
    if not isinstance(path, str):
        each = [splits(one, config=config) for one in path]
        named = [set(one) for one in each if one is not None]
        return sorted(set[str].intersection(*named)) if each and len(named) == len(each) else None
    if not is_local(path):
        return None
    available = _splits(path, config)
    return None if [*available] == [""] else sorted(available)


def has_split(path: Paths, split: str, *, config: str | None = None, use: Use | None = None) -> bool | None:
    """Return True if a path has a split with that meaning; None if it has no splits of its own, or is on the hub."""
    names = splits(path, config=config)
    return None if names is None else all(meant(part.name, names, use=use) is not None for part in asked_for(split))


def is_local(path: str) -> bool:
    """Return True if a path means a local file or folder, and not a name on the hub."""
    if path.startswith((".", "/", "~")) or path.lower().endswith((*SUFFIXES, *FORBIDDEN)):
        return True
    return (
        Path(path).exists()
        or (_is_pattern(path) and path.count("/") != 1)
        or bool(_is_pattern(path) and glob.glob(path))
    )


def open_file(path: Path, *, split: str = "train", errors: Errors = "strict") -> Source:
    """Open one file as a source of rows, by its name and its first bytes.

    Args:
        path: the file.
        split: the split to take if the file is one JSON object of several splits.
        errors: "replace": bytes of a JSON file that are not UTF-8 become U+FFFD.
    Raises:
        TaskError: files of its kind are not read.
    """
    ending = path.suffix.lower()
    if ending in FORBIDDEN:
        raise TaskError(f"{path} {FORBIDDEN[ending]}.")
    kind = kind_of(path)
    try:
        with path.open("rb") as file:
            magic = file.read(6)
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error.strerror}. Write it again, or name another file.") from error
    if magic[:4] == b"PAR1" or kind == ".parquet":
        return Parquet(path)
    if magic == b"ARROW1" or kind in (".arrow", ".feather"):
        return Arrow(path)
    if kind in (".csv", ".tsv"):
        return Text(str(path), partial(csv_entries, path))
    if not kind and not _begins_as_json(path):
        raise TaskError(
            f"{path} is not of a known kind. Give its name the right ending: .jsonl, .json, .csv, .tsv, .parquet."
        )
    return JsonFile(path, split=split, errors=errors)


def _begins_as_json(path: Path) -> bool:
    with unpacked(path) as file:
        return file.peek(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def _splits(path: str, config: str | None) -> Splits:
    """Return the files of a local path by split; all under "" if they belong to none."""
    place = Path(path).expanduser()
    if place.is_dir():
        return splits_in(place, config)
    if place.is_file():
        return {"": [place]}
    if place.exists():
        raise TaskError(f"{path} must be a file or a folder; it is a pipe or a device. Write it to a file.")
    if _is_pattern(path):
        found = sorted(Path(one) for one in glob.glob(str(place), recursive=True))
        files = [one for one in found if one.is_file() and (is_data_file(one) or Path(path).suffix != "")]
        if not files:
            raise TaskError(f"no data file matches {path!r} (looked from {Path.cwd()}).")
        return by_name(files, Path(glob.escape(path.partition("*")[0])).parent)
    raise TaskError(f"there is no file or folder {path!r} (looked from {Path.cwd()}).")


def _is_pattern(path: str) -> bool:
    return any(mark in path for mark in "*?[")


def _chosen(path: str, available: Splits, wanted: str, use: Use | None = None) -> tuple[Sequence[Path], list[str]]:
    """Return the files of a split, and remarks for the user on the choice."""
    if [*available] == [""]:
        return available[""], []
    if len(available) == 1 and _is_pattern(path) and not Path(path).exists():
        return next(iter(available.values())), []  # the author of the pattern chose the files
    name = meant(wanted, available, use=use)
    if name is None:
        raise TaskError(no_split(path, wanted, available))
    return available[name], [] if name == wanted else [f"{path}: the split {name!r} is taken as {wanted!r}."]


def _parts(sources: Sequence[Source], asked: Asked) -> Iterator[Source]:
    """Yield the sources, restricted to the requested part of their rows."""
    if asked.whole:
        yield from sources
        return
    counts = [source.count() for source in sources]
    start, stop = asked.bounds(sum(counts))
    begin = 0
    for source, count in zip(sources, counts, strict=True):
        inner = Part(source, start=max(0, start - begin), stop=min(count, stop - begin))
        if inner.count() > 0:
            yield inner
        begin += count


def records(path: str) -> Iterator[tuple[int, Mapping[str, JSON] | str]]:
    """Yield (number, row or description of its fault) for every row of a file, a folder or a pattern, for grading.

    Bytes that are not UTF-8 become U+FFFD: the text of a model is graded as it is.

    Raises:
        TaskError: it cannot be read at all, or not beyond some place.
    """
    available = _splits(path, None)
    files = next(iter(available.values())) if len(available) == 1 else _chosen(path, available, "test")[0]
    number = 0
    for file in files:
        for entry in open_file(file, errors="replace").entries():
            number = entry.number if len(files) == 1 else number + 1
            yield number, entry.fault if entry.row is None else cast("Mapping[str, JSON]", entry.row)


__all__ = ["Entry", "has_split", "is_local", "open_file", "read", "records", "splits"]
