"""One person's sitting with a labelling file: the next pair, the decisions, and their summary."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from reasoner.label.labels import (
    AlreadyLabelled,
    Choice,
    Comparison,
    Label,
    LabelError,
    append_label,
    labels_file,
    read_comparisons,
    read_labels,
)
from verifiers import JSON
from verifiers.stats import Interval, wilson_interval

Side = Literal["left", "right", "tie", "skip"]
SIDES = ("left", "right", "tie", "skip")


class Shown(NamedTuple):
    """A pair as shown to the person, without a hint which completion is which."""

    id: str
    prompt: str
    left: str
    right: str
    done: int
    total: int


class Sitting:
    """Pairs in a shuffled order, with sides swapped for half of them; continues after the labels already given."""

    def __init__(self, file: Path, *, seed: int = 0, who: str = "") -> None:
        if not file.is_file():
            raise LabelError(
                f"there is no file {file}. A pairs stage writes one, and --blind makes one from two models."
            )
        self.file, self.seed, self.who = file, seed, who
        self.pairs = {pair.id: pair for pair in read_comparisons(file)}
        if not self.pairs:
            raise LabelError(f"{file} must contain at least one pair; it is empty.")
        self._size = -1
        self.labels: dict[str, Label] = {}
        self._refresh()
        unknown = set(self.labels) - set(self.pairs)
        if unknown:
            raise LabelError(
                f"{labels_file(file)} labels pairs that {file} does not contain (such as {min(unknown)!r}). Restore the"
                " file that was labelled, or move the labels away."
            )
        self._order = sorted(self.pairs)
        random.Random(seed).shuffle(self._order)
        self._given: list[tuple[str, Label]] = [("", label) for label in self.labels.values() if label.who == who]
        """(tab, label) of every label that can be undone, in order."""

    def _refresh(self) -> None:
        """Read the labels again if another process has written some: not every file system has working locks."""
        place = labels_file(self.file)
        size = place.stat().st_size if place.exists() else 0
        if size != self._size:
            self.labels, self._size = read_labels(self.file), size

    def _write(self, label: Label) -> None:
        append_label(self.file, label)
        self._size = labels_file(self.file).stat().st_size

    def shown(self) -> Shown | None:
        """Return the next pair without a label; None if all have one."""
        for name in self._order:
            if name not in self.labels:
                pair = self.pairs[name]
                left, right = (pair.second, pair.first) if pair.swapped(self.seed) else (pair.first, pair.second)
                return Shown(name, pair.prompt, left, right, len(self.labels), len(self.pairs))
        return None

    def give(self, name: str, side: Side, *, seconds: float = 0.0, tab: str = "") -> None:
        """Label a pair by the side that is better; the label is on disk when this returns.

        Args:
            name: id of the pair.
            side: the better side, or tie or skip.
            seconds: time that the decision took.
            tab: id of the page's tab, whose undo removes its own labels only.
        Raises:
            LabelError: no such pair, no such side, or an invalid time.
            AlreadyLabelled: the pair has a label already, for example from another tab.
        """
        if name not in self.pairs or side not in SIDES:
            raise LabelError(
                f"a label must name a pair of the file and one of {', '.join(SIDES)}; got {name!r}, {side!r}."
            )
        if not (math.isfinite(seconds) and seconds >= 0):
            raise LabelError(f"seconds must be a finite number >= 0; got {seconds}.")
        self._refresh()
        if name in self.labels:
            raise AlreadyLabelled(f"pair {name!r} is already labelled. Undo that label before you give another one.")
        swapped = self.pairs[name].swapped(self.seed)
        choice: Choice = side if side in ("tie", "skip") else "first" if (side == "left") != swapped else "second"
        label = Label(id=name, label=choice, swapped=swapped, seconds=round(seconds, 2), who=self.who)
        self._write(label)
        self.labels[name] = label
        self._given.append((tab, label))

    def undo(self, *, tab: str = "") -> str | None:
        """Remove the last label of this tab, or else of the same person before this sitting; its pair is shown again.

        Returns:
            the id of the pair; None if there is nothing to undo.
        """
        self._refresh()
        own = [one for owner in dict.fromkeys(("", tab)) for one in self._given if one[0] == owner]
        while own:
            _, label = one = own.pop()
            self._given.remove(one)
            if self.labels.get(label.id) == label:  # the label is still ours: nobody has relabelled the pair since
                self._write(Label(id=label.id, label="undo", swapped=False, who=self.who))
                del self.labels[label.id]
                return label.id
        return None


class Tally(NamedTuple):
    """Summary of the labels of one category."""

    first: int
    second: int
    ties: int
    skipped: int
    win_rate: float | None
    """Share of the decided pairs that the first won; None if none was decided."""
    interval: Interval
    """95 % Wilson interval of the win rate over the decided pairs."""


def tally(labels: Sequence[Label]) -> Tally:
    """Count wins, ties and skips, and compute the win rate of the first with its interval.

    Example:
        >>> tally([Label(id="0", label="first", swapped=False), Label(id="1", label="tie", swapped=True)]).win_rate
        1.0
    """
    counts = {choice: sum(label.label == choice for label in labels) for choice in ("first", "second", "tie", "skip")}
    decided = counts["first"] + counts["second"]
    return Tally(
        counts["first"],
        counts["second"],
        counts["tie"],
        counts["skip"],
        counts["first"] / decided if decided else None,
        wilson_interval(counts["first"], decided),
    )


def summary(pairs: Sequence[Comparison], labels: dict[str, Label]) -> dict[str, Tally]:
    """Summarize the labels under "all", and, if there are several categories, under each of them."""
    categories = sorted({pair.category for pair in pairs})
    found = {"all": tally(list(labels.values()))}
    if len(categories) > 1:
        for category in categories:
            found[category or "none"] = tally(
                [labels[p.id] for p in pairs if p.category == category and p.id in labels]
            )
    return found


def as_json(found: dict[str, Tally]) -> dict[str, JSON]:
    """Return the summary as JSON, for scripts."""
    return {name: {**one._asdict(), "interval": list(one.interval)} for name, one in found.items()}
