"""Rows of a dataset: a local file, a folder of files named after their splits, or a hub name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tasks.base import TaskError
from verifiers import JSON
from verifiers.errors import FileError
from verifiers.jsonl import JsonLinesError, half_surrogate, is_list, is_object, parse_line, read_jsonl
from verifiers.parquet import read_parquet

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".json")


def read_rows(path: str, *, split: str, name: str | None = None) -> Iterable[Mapping[str, object]]:
    """The rows of one split.

    Args:
        path: a file (then it is the only split asked for), a folder that holds one file per split
            (`train.jsonl`, `something_test.parquet`, ...), or a dataset of the Hugging Face hub.
        split: its name.
        name: the configuration of a hub dataset, if it has several.
    Raises:
        TaskError: no such file, folder or dataset; a line that is no JSON object.
    """
    place = Path(path)
    if place.is_file():
        return read_file(place)
    if place.is_dir():
        stems = {found: found.name.split(".")[0] for found in sorted(place.iterdir()) if _readable(found)}
        matches = [found for found, stem in stems.items() if stem == split or stem.endswith(f"_{split}")]
        if len(matches) != 1:
            seen = ", ".join(found.name for found in stems) or "no data file"
            raise TaskError(
                f"{path} must hold exactly one file for split {split!r} ({split}.jsonl, .jsonl.gz, .parquet or .json);"
                f" found {seen}."
            )
        return read_file(matches[0])
    if is_local(path):
        raise TaskError(f"there is no file or folder {path!r} (looked from {Path.cwd()}).")
    from datasets import load_dataset

    try:
        return load_dataset(path, name, split=split, trust_remote_code=False)
    except Exception as error:  # the hub client raises a dozen unrelated classes
        reason = str(error).strip().split("\n")[0]
        raise TaskError(
            f"{path!r} is no local file or folder, and the hub's split {split!r} of it cannot be loaded: {reason}"
        ) from error


def is_local(path: str) -> bool:
    """Whether a path means a file or folder here, and no name on the hub."""
    return path.startswith((".", "/", "~")) or path.endswith(SUFFIXES) or Path(path).exists()


def read_file(path: Path) -> Sequence[Mapping[str, object]]:
    """The rows of one .jsonl, .jsonl.gz, .json (a list) or .parquet file.

    Raises:
        TaskError: the file cannot be decoded, or holds no row.
    """
    try:
        if path.name.endswith(".parquet"):
            rows: Sequence[Mapping[str, object]] = [*read_parquet(path)]
        else:
            rows = _listed(path) if path.name.endswith(".json") else [row for _, row in read_jsonl(path)]
    except FileError as error:
        hint = "" if isinstance(error, JsonLinesError) else " Write it anew, or name another file."
        raise TaskError(f"{error}{hint}") from error
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error}. Write it anew, or name another file.") from error
    if not rows:
        raise TaskError(f"{path} must hold at least one row; it holds none.")
    return rows


def _listed(path: Path) -> list[Mapping[str, object]]:
    try:
        rows = parse_line(path.read_bytes())
    except ValueError as error:
        raise TaskError(f"{path} must be JSON: {error}.") from error
    if not is_list(rows):
        raise TaskError(f"{path} must be a JSON list of objects; got {type(rows).__name__}.")
    return [_object(row, path, f"entry {number}") for number, row in enumerate(rows, 1)]


def _object(row: JSON, path: Path, where: str) -> Mapping[str, object]:
    if not is_object(row):
        raise TaskError(f"{path} {where} must be a JSON object; got {type(row).__name__}.")
    if half := half_surrogate(row):
        raise TaskError(f"{path} {where} {half}")
    return row


def text_of_first(answers: object) -> str:
    """Return the text of the first of a list of answers, which are objects with a text.

    Raises:
        ValueError: it is no such list.
    """
    first = answers[0] if is_list(answers) and answers else None
    if not is_object(first) or "text" not in first:
        raise ValueError(f"got {str(answers)[:80]!r}")
    return str(first["text"])


def _readable(path: Path) -> bool:
    return path.name.endswith(SUFFIXES) and path.is_file()


__all__ = ["is_local", "read_file", "read_rows", "text_of_first"]
