"""Data sets of the Hugging Face hub, by name, as rows that `datasets` downloads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tasks.base import TaskError
from tasks.inputs.arrow_files import plain
from tasks.inputs.entries import Entry
from tasks.inputs.names import Use, asked_for, meant
from tasks.inputs.unpacking import needs_data

if TYPE_CHECKING:
    from datasets import Dataset


class Hub:
    """The rows of a split of a data set on the hub."""

    def __init__(self, name: str, loaded: Dataset, *, notes: Sequence[str] = ()) -> None:
        self.path, self.loaded, self.notes = name, loaded, notes

    def entries(self) -> Iterator[Entry]:
        for number, row in enumerate(self.loaded, 1):
            yield Entry(number, cast("Mapping[str, object]", plain(row)))

    def count(self) -> int:
        return len(self.loaded)

    def at(self, place: int) -> Entry:
        return Entry(place + 1, cast("Mapping[str, object]", plain(self.loaded[place])))


def hub_rows(name: str, *, split: str, config: str | None, use: Use | None = None) -> Hub:
    """Download a split, or read it from the cache. If there is no split of that name, take the one that the name means.

    Raises:
        TaskError: `datasets` is not installed, there is no such data set, configuration or split, or it has a script.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise TaskError(needs_data(f"{name!r} is no file or folder here; a data set of the hub")) from error
    try:
        return Hub(name, load_dataset(name, config, split=split, trust_remote_code=False))
    except Exception as error:  # the hub client raises a dozen unrelated classes
        reason = str(error).strip().split("\n")[0]
        other = _other_split(reason, split, use)
        if other is not None:
            rows = hub_rows(name, split=other, config=config)
            return Hub(name, rows.loaded, notes=[f"{name}: the split {other!r} is taken as {split!r}."])
        raise TaskError(
            f"{name!r} is no local file or folder, and the hub's split {split!r} of it cannot be loaded: {reason}"
            f"{_advice(reason)}"
        ) from error


def _other_split(reason: str, split: str, use: Use | None) -> str | None:
    """Return the existing split that a missing name means, from the names in the error message of `datasets`; else
    None.
    """
    told = re.search(r"Unknown split .*? one of \[(.*?)\]", reason)
    if told is None:
        return None
    written, known = split, re.findall(r"'([^']+)'", told[1])
    for part in asked_for(split):
        name = meant(part.name, known, use=use)
        if name is None:
            return None
        written = re.sub(rf"(?<![\w.@-]){re.escape(part.name)}(?![\w.@-])", name, written)
    return None if written == split else written


@cache
def hub_splits(name: str, *, config: str | None) -> list[str] | None:
    """Return the split names of a data set on the hub; None if they cannot be known (reading it will then say why).

    The hub is asked at most once, and not at all if the data set is in the cache.
    """
    try:
        from datasets import get_dataset_split_names
    except ImportError:
        return None
    downloaded = _downloaded_splits(name, config)
    if downloaded is not None:
        return downloaded
    try:
        return get_dataset_split_names(name, config)
    except Exception:  # the hub client raises a dozen unrelated classes
        return None


def _downloaded_splits(name: str, config: str | None) -> list[str] | None:
    """Return the split names of a cached data set, as `datasets` wrote it to CACHE/OWNER___NAME/CONFIG/VERSION/HASH.

    None if it is not in the cache, or if it has several configurations and none is named.
    """
    from datasets import config as settings
    from datasets.naming import camelcase_to_snakecase

    owner, _, own = name.rpartition("/")
    folder = Path(settings.HF_DATASETS_CACHE) / "___".join([*filter(None, [owner]), camelcase_to_snakecase(own)])
    written = sorted(folder.glob("*/*/*/dataset_info.json"), key=lambda path: path.stat().st_mtime)
    newest = {path.parents[2].name: path for path in written}
    chosen = newest.get(config) if config is not None else next(iter(newest.values()), None)
    if chosen is None or (config is None and len(newest) > 1):
        return None
    try:
        return [*json.loads(chosen.read_text(encoding="utf-8"))["splits"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _advice(reason: str) -> str:
    low = reason.lower()
    if "unknown split" in low or "bad split" in low:
        return " Set split_names, for example {test: validation} or {train: 'train[5%:]', test: 'train[:5%]'}."
    if "config name is missing" in low or "builderconfig" in low:
        return " Set config to one of them."
    if "script" in low:
        return " A loading script is never run: use the hub's branch refs/convert/parquet, or another copy of the data."
    return ""


__all__ = ["Hub", "hub_rows", "hub_splits"]
