"""Data sets of the Hugging Face hub, by name: what `datasets` downloads, as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

from tasks.base import TaskError
from tasks.inputs.arrow_files import plain
from tasks.inputs.entries import Entry
from tasks.inputs.unpacking import needs_data

if TYPE_CHECKING:
    from datasets import Dataset


class Hub:
    """The rows of a split of a data set on the hub."""

    def __init__(self, name: str, loaded: Dataset) -> None:
        self.path, self._loaded = name, loaded

    def entries(self) -> Iterator[Entry]:
        for number, row in enumerate(self._loaded, 1):
            yield Entry(number, cast("Mapping[str, object]", plain(row)))

    def count(self) -> int:
        return len(self._loaded)

    def at(self, place: int) -> Entry:
        return Entry(place + 1, cast("Mapping[str, object]", plain(self._loaded[place])))


def hub_rows(name: str, *, split: str, config: str | None) -> Hub:
    """Download a split, or find it where it was downloaded before.

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
        raise TaskError(
            f"{name!r} is no local file or folder, and the hub's split {split!r} of it cannot be loaded: {reason}"
            f"{_advice(reason)}"
        ) from error


def hub_splits(name: str, *, config: str | None) -> list[str] | None:
    """The names of the splits of a data set on the hub; None where that cannot be known: reading it says why."""
    try:
        from datasets import get_dataset_split_names
    except ImportError:
        return None
    try:
        return get_dataset_split_names(name, config)
    except Exception:  # the hub client raises a dozen unrelated classes
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
