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
from verifiers.stats import Interval, LengthControlled, length_controlled, wilson_interval

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
    """Summary of the labels of one category. Lengths are in characters."""

    first: int
    second: int
    ties: int
    skipped: int
    win_rate: float | None
    """Share of the decided pairs that the first won; None if none was decided."""
    interval: Interval
    """95 % Wilson interval of the win rate over the decided pairs."""
    at_equal_length: LengthControlled | None
    """Win rate of the first with ties as one half, plain and at equal length; None without labels."""
    winner_longer: float | None
    """Mean length of the preferred completion minus that of the other, over the decided pairs."""
    winner_length: float | None
    """Mean length of the preferred completion."""


def tally(labelled: Sequence[tuple[Comparison, Label]]) -> Tally:
    """Count wins, ties and skips; compute the win rate of the first, plain and at equal length.

    Example:
        >>> pair = Comparison(id="0", prompt="", first="long", second="no")
        >>> found = tally([(pair, Label(id="0", label="first", swapped=False))])
        >>> found.win_rate, found.winner_longer
        (1.0, 2.0)
    """
    counts = {
        choice: sum(label.label == choice for _, label in labelled) for choice in ("first", "second", "tie", "skip")
    }
    decided = counts["first"] + counts["second"]
    scored = [(OUTCOMES[label.label], pair) for pair, label in labelled if label.label in OUTCOMES]
    lengths = [
        (len(pair.first), len(pair.second)) if outcome else (len(pair.second), len(pair.first))
        for outcome, pair in scored
        if outcome != OUTCOMES["tie"]
    ]
    return Tally(
        counts["first"],
        counts["second"],
        counts["tie"],
        counts["skip"],
        counts["first"] / decided if decided else None,
        wilson_interval(counts["first"], decided),
        length_controlled(
            [outcome for outcome, _ in scored], [len(pair.first) - len(pair.second) for _, pair in scored]
        ),
        sum(winner - other for winner, other in lengths) / decided if decided else None,
        sum(winner for winner, _ in lengths) / decided if decided else None,
    )


OUTCOMES = {"first": 1.0, "tie": 0.5, "second": 0.0}
"""Outcome of a label for the first completion; a skipped pair has none."""


def summary(pairs: Sequence[Comparison], labels: dict[str, Label]) -> dict[str, Tally]:
    """Summarize the labels under "all", and, if there are several categories, under each of them."""
    categories = sorted({pair.category for pair in pairs})
    labelled = [(pair, labels[pair.id]) for pair in pairs if pair.id in labels]
    found = {"all": tally(labelled)}
    if len(categories) > 1:
        for category in categories:
            found[category or "none"] = tally([one for one in labelled if one[0].category == category])
    return found


def lines(category: str, one: Tally, models: tuple[str, str]) -> list[str]:
    """Return the summary of a category as lines of text."""
    first, second = models
    counts = f"{first} {one.first}, {second} {one.second}, ties {one.ties}, skipped {one.skipped}"
    if one.win_rate is None or one.winner_longer is None or one.winner_length is None:
        return [f"{category}: none decided; {counts}"]
    low, high = one.interval
    found = [f"{category}: {first} preferred {one.win_rate:.1%} [{low:.1%}, {high:.1%}]; {counts}"]
    if (equal := one.at_equal_length) is not None:
        share = one.winner_longer / max(1.0, one.winner_length - one.winner_longer)
        found.append(
            f"{category}: at equal length {equal.value:.1%} [{equal.low:.1%}, {equal.high:.1%}], against"
            f" {equal.plain:.1%} (ties as one half); the preferred completion is {one.winner_longer:+.0f} characters"
            f" ({share:+.0%}) longer on average"
        )
    return found


def as_json(found: dict[str, Tally]) -> dict[str, JSON]:
    """Return the summary as JSON, for scripts."""
    return {
        name: {
            **one._asdict(),
            "interval": list(one.interval),
            "at_equal_length": None if one.at_equal_length is None else one.at_equal_length._asdict(),
        }
        for name, one in found.items()
    }
