"""Single completions with a label, desirable or not: the data of `method: kto`.

A row is {prompt, completion, label}: texts, or chat messages as in TRL's unpaired preferences; the label is true or
false. Optional: `id`. `preferences.columns` renames them. Imports no torch.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from reasoner.config.sections import KtoSection, PreferenceSection
from reasoner.data.preferences import Pair, Prompt, answer_of, load_pairs, prompt_fault
from reasoner.data.rows import Source, divided, held_out_paths, source_in, usable_rows
from tasks import BadRow, UnusableRow
from tasks.inputs.spool import Spool
from verifiers.suggest import did_you_mean

UNPAIRED_SHAPE = (
    "{prompt, completion, label} with true or false as the label; other columns are named by preferences.columns. Pairs"
    " are for method dpo, or are split into two rows each with kto.split_pairs: true"
)
"""Description of a row, for error messages."""
OPTIONAL = frozenset({"id"})
LABELS: Mapping[str, bool] = {"true": True, "1": True, "false": False, "0": False}
"""Written label -> True if the completion is desirable."""
MOST_APART = (0.8, 5 / 3)
"""Range of (desirable rows * weight) / (undesirable rows * weight) in which nothing is said: a quarter more on both
sides than the paper's [1, 4/3] (arXiv:2402.01306, equation 8; the quarter is our choice)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A completion with its label.

    Example:
        >>> Labelled(id="0", prompt="Say hello.", completion="Hello!", desirable=True).desirable
        True
    """

    id: str
    """File and row number, or the row's own id."""
    prompt: Prompt
    completion: str
    desirable: bool


class Rows(NamedTuple):
    """Usable rows and bad rows."""

    rows: Sequence[Labelled]
    bad: list[BadRow]
    notes: Sequence[str] = ()


class Splits(NamedTuple):
    """Training rows and held-out rows."""

    train: Rows
    test: Rows


def load_unpaired(section: PreferenceSection, *, split_pairs: bool) -> Splits:
    """Load the rows of a config section; with `split_pairs` its pairs, of which each becomes two rows.

    Rows are held out by a digest of the prompt, as pairs are.
    """
    if split_pairs:
        train, test = load_pairs(section)
        return Splits(*(Rows(Spool(halves(found.pairs)), found.bad, found.notes) for found in (train, test)))

    def read(paths: Sequence[str], split: Literal["train", "test"]) -> Rows:
        notes: list[str] = []
        source = unpaired_in(section, split, paths)
        return Rows(*usable_rows(source, read=lambda row, where: labelled_of(row, where=where), notes=notes), notes)

    rows, bad, notes = read(section.train, "train")
    paths, own = held_out_paths(section, section.train, use="unpaired", share=section.held_out_share)
    if paths:
        test = read(paths, "test")
        test = test._replace(notes=[*own, *test.notes])
    else:
        rows, tests = divided(rows, section.held_out_share)
        test = Rows(tests, [])
    return Splits(Rows(rows[: section.limit], bad, notes), test)


def unpaired_in(section: PreferenceSection, split: Literal["train", "test"], paths: Sequence[str]) -> Source:
    """Return the rows of a config section, read from `paths`."""
    return source_in(section, paths, use="unpaired", split=split, optional=OPTIONAL)


def halves(pairs: Iterable[Pair]) -> Iterator[Labelled]:
    """Yield both completions of each pair: the better one is desirable, the other is not. Ties are left out."""
    for pair in pairs:
        if pair.target != 0.5:
            yield Labelled(id=f"{pair.id} chosen", prompt=pair.prompt, completion=pair.first, desirable=True)
            yield Labelled(id=f"{pair.id} rejected", prompt=pair.prompt, completion=pair.second, desirable=False)


def labelled_of(row: Mapping[str, object], *, where: str) -> Labelled:
    """Convert a row in this module's columns.

    Raises:
        UnusableRow: a column is missing, the label is neither true nor false, or the prompt or completion is empty.
    """
    if row.get("chosen") is not None and row.get("rejected") is not None and row.get("completion") is None:
        raise UnusableRow(
            "is a pair, and method kto learns from {prompt, completion, label}. Use method dpo, or set"
            " kto.split_pairs: true"
        )
    for key in ("prompt", "completion", "label"):
        if row.get(key) is None:
            names = [*map(str, row)]
            meant = did_you_mean(key, names) if key not in names else ""
            raise UnusableRow(f"has no value in column {key!r} (columns: {', '.join(names) or 'none'}){meant}")
    desirable = LABELS.get(str(row["label"]).strip().lower())
    if desirable is None:
        raise UnusableRow(f"label must be true (desirable) or false; got {row['label']!r}")
    prompt, completion = answer_of(row["completion"], row["prompt"], "completion")
    if not completion.strip():
        raise UnusableRow("the completion is empty")
    if fault := prompt_fault(prompt):
        raise UnusableRow(fault)
    return Labelled(id=str(row.get("id") or where), prompt=prompt, completion=completion, desirable=desirable)


def mismatched(prompts: Sequence[Hashable], *, seed: int) -> list[int]:
    """Choose for each row another one, whose completion answers another prompt; each row is chosen once.

    Rows are shuffled, those of one prompt stand together, and each gets the row further on by the size of the largest
    such group: only if one prompt has more than half of the rows do some get a completion of their own prompt.

    Example:
        >>> sorted(mismatched(["a", "a", "b", "b"], seed=0)), set(mismatched(["a", "a", "b", "b"], seed=0)[:2])
        ([0, 1, 2, 3], {2, 3})
    """
    order = [*range(len(prompts))]
    random.Random(seed).shuffle(order)
    groups: dict[Hashable, list[int]] = {}
    for row in order:
        groups.setdefault(prompts[row], []).append(row)
    together = [row for group in groups.values() for row in group]
    largest = max(map(len, groups.values()), default=0)
    chosen = [0] * len(prompts)
    for place, row in enumerate(together):
        chosen[row] = together[(place + largest) % len(together)]
    return chosen


def one_label(desirable: int, rows: int) -> str | None:
    """Return why rows teach nothing if all have the same label; None if they do not."""
    if rows and desirable in (0, rows):
        kind = "desirable" if desirable else "undesirable"
        return f"all {rows} rows are {kind} (label {'true' if desirable else 'false'}): rows of both labels are needed"
    return None


def lopsided(desirable: int, rows: int, section: KtoSection) -> str | None:
    """Return a sentence if one label outweighs the other, and the weight that would balance them; None if not."""
    undesirable = rows - desirable
    if not desirable or not undesirable:
        return None
    ahead, behind = desirable * section.desirable_weight, undesirable * section.undesirable_weight
    if MOST_APART[0] <= ahead / behind <= MOST_APART[1]:
        return None
    key, value = (
        ("desirable_weight", behind / desirable) if ahead < behind else ("undesirable_weight", ahead / undesirable)
    )
    more, times = "undesirable" if ahead < behind else "desirable", max(ahead / behind, behind / ahead)
    return (
        f"{desirable} rows are desirable and {undesirable} are not: with their weights the {more} ones count"
        f" {times:.1f} times as much. Set kto.{key} to {value:.2g}"
    )
