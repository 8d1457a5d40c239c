"""The split of a file by its name, and split expressions: a name, a part of a split, or a sum of splits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from tasks.base import TaskError
from tasks.inputs.unpacking import ENDINGS

TEXT = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
BINARY = (".parquet", ".arrow", ".feather")
KINDS = (*TEXT, *BINARY)
SUFFIXES = (*KINDS, *(kind + ending for kind in TEXT for ending in ENDINGS))
"""Endings of the names of readable files."""
WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Split -> words for it in the name of a file or folder, as the Hugging Face hub defines them
(https://huggingface.co/docs/hub/datasets-file-names-and-splits).
"""
Use = Literal["problems", "demonstrations", "preferences", "unpaired"]
"""Purpose of rows."""
USES: Mapping[Use, tuple[str, ...]] = {
    "problems": ("rl", "grpo", "ppo"),
    "demonstrations": ("sft",),
    "preferences": ("prefs", "preferences", "pref", "dpo"),
    "unpaired": ("unpaired", "kto"),
}
"""Use -> words for it after the split, in the split names of data sets with rows for several uses
(https://huggingface.co/datasets/HuggingFaceH4/ultrafeedback_binarized: `train_prefs`, `train_sft`).
"""
SHARD = re.compile(r"([-_.]?(part|shard|chunk)?[-_.]?\d+)?([-_]of[-_]\d+)?$", re.IGNORECASE)
EXPRESSION = re.compile(r"^(?P<name>[\w.@-]+?)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?$")


def is_data_file(path: Path) -> bool:
    """Return True if a file has the name of a readable data file."""
    return path.name.lower().endswith(SUFFIXES)


def kind_of(path: Path | str) -> str:
    """Return the kind of a file by its name, ignoring compression: `.jsonl`, `.csv`, ...; "" for none."""
    name = Path(path).name.lower()
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return next((kind for kind in KINDS if name.endswith(kind)), "")


def stem_of(path: Path) -> str:
    """Return a file's name without its kind, compression and shard number.

    Example:
        >>> stem_of(Path("train-00000-of-00002.parquet")), stem_of(Path("gsm8k_test.jsonl.gz"))
        ('train', 'gsm8k_test')
    """
    name = path.name
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    name = name[: len(name) - len(kind)] if (kind := kind_of(name)) else name
    return SHARD.sub("", name) or name


def split_of(name: str) -> str | None:
    """Return the split that a name means; None if it means none.

    A word of WORDS at its end, or alone, means that split. At its beginning it makes the whole name a split of its own:
    `train_prefs` and `train_sft` of one data set are two splits.

    Example:
        >>> [split_of(name) for name in ("gsm8k_train", "dev", "train_prefs", "my-test-set", "rows")]
        ['train', 'validation', 'train_prefs', 'test', None]
    """
    words = re.split(r"[-_. ]+", name.lower())
    found = [split for word in words for split, meant in WORDS.items() if word in meant]
    if not found:
        return None
    ahead = len(words) > 1 and any(words[0] in meant for meant in WORDS.values()) and len(found) == 1
    return name if ahead else found[-1]


class Asked(NamedTuple):
    """A split or a part of one, as requested."""

    name: str
    start: str | None = None
    stop: str | None = None
    """First row and end, as numbers or percentages with %; negative: from the end; None: no limit."""

    @property
    def whole(self) -> bool:
        """True if the whole split is requested."""
        return self.start is None and self.stop is None

    def bounds(self, count: int) -> tuple[int, int]:
        """Return the first row and the end (exclusive) in a split of `count` rows. Percentages round as in `datasets`.

        Example:
            >>> Asked("train", None, "5%").bounds(30), Asked("train", "-10", None).bounds(30)
            ((0, 2), (20, 30))
        """
        start, stop = _place(self.start, count, 0), _place(self.stop, count, count)
        return start, max(start, stop)


def _place(written: str | None, count: int, default: int) -> int:
    if written is None:
        return default
    place = round(int(written[:-1]) * count / 100) if written.endswith("%") else int(written)
    return max(0, min(count, place + count if place < 0 else place))


def asked_for(split: str) -> list[Asked]:
    """Parse a split expression: `train`, `train[:5%]`, `train[10:20]`, `train+validation`.

    Raises:
        TaskError: it has another form.
    """
    found: list[Asked] = []
    for part in split.split("+"):
        match = EXPRESSION.match(part.strip())
        if match is None:
            raise TaskError(f"a split must be a name, or a part such as train[:5%] or train[100:200]; got {split!r}.")
        found.append(Asked(match["name"], match["start"], match["stop"]))
    return found


def meant(wanted: str, available: Iterable[str], *, use: Use | None = None) -> str | None:
    """Return the available split that a name means: the same name, another word for it, or the one that begins with it.

    If several begin with it, the one whose name says the use of the rows. A missing test split may also be called
    validation: both mean data that is not trained on. None if no split, or no single one, is meant.

    Example:
        >>> meant("test", ["train", "validation"]), meant("train", ["train_prefs", "test_prefs"]), meant("x", ["y"])
        ('validation', 'train_prefs', None)
        >>> [meant("train", ["train_prefs", "train_sft"], use=use) for use in (None, "preferences")]
        [None, 'train_prefs']
    """
    names = list(available)
    if wanted in names:
        return wanted
    known = split_of(wanted)
    same = [name for name in names if known is not None and split_of(name) == known]
    longer = [name for name in names if re.match(rf"{re.escape(wanted)}[-_.]", name)]
    if len(same) == 1:
        return same[0]
    if len(longer) == 1 and not same:
        return longer[0]
    of_use = [name for name in longer if use is not None and re.split(r"[-_.]", name.lower())[-1] in USES[use]]
    if len(of_use) == 1 and not same:
        return of_use[0]
    if wanted == "test" and not same and not longer:
        return meant("validation", names) if "validation" in {split_of(name) for name in names} else None
    return None


def no_split(path: str, wanted: str, available: Iterable[str]) -> str:
    """Return the error message for a missing split, with the existing ones and how to set split_names."""
    names = sorted(available)
    near = next((name for name in names if name.startswith(wanted)), names[0])
    return (
        f"{path} has no split {wanted!r}; it has {', '.join(names)}. Set split_names, for example"
        f" {{{wanted.partition('_')[0]}: {near}}}."
    )


__all__ = [
    "SUFFIXES",
    "Asked",
    "Use",
    "asked_for",
    "is_data_file",
    "kind_of",
    "meant",
    "no_split",
    "split_of",
    "stem_of",
]
