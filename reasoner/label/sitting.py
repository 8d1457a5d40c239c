"""One person's sitting with a labelling file: the next pair, the decisions, and their summary."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from reasoner.label.labels import (
    AlreadyLabelled,
    Choice,
    Comparison,
    Label,
    LabelError,
    Slot,
    append_label,
    labels_file,
    put,
    read_comparisons,
    read_slots,
)
from verifiers import JSON
from verifiers.stats import Interval, LengthControlled, length_controlled, wilson_interval

Side = Literal["left", "right", "tie", "skip"]
SIDES = ("left", "right", "tie", "skip")
APART = 10
"""Pairs between the two times that a pair is shown, or half of all pairs if there are fewer."""


class Shown(NamedTuple):
    """A pair as shown to the person, without a hint which completion is which."""

    id: str
    prompt: str
    left: str
    right: str
    repeat: bool
    """True the second time, with the sides of the first time swapped; the page does not say so."""


class Progress(NamedTuple):
    """How far a sitting is."""

    done: int
    total: int
    """Decisions to make, those about pairs shown a second time included."""
    categories: dict[str, tuple[int, int]]
    """Labelled pairs and all pairs of each category."""
    agreement: Agreement
    """Agreement of this person with themselves."""


class Sitting:
    """Pairs in a shuffled order, with sides swapped for half of them; continues after the labels already given."""

    def __init__(self, file: Path, *, seed: int = 0, who: str = "", repeat: float = 0.0) -> None:
        """Read the pairs and the labels.

        Args:
            file: pairs to compare.
            seed: seed of the order of pairs and sides.
            who: name stored with each label.
            repeat: share of the pairs that are shown a second time.
        Raises:
            LabelError: the file or its labels cannot be used.
        """
        if not file.is_file():
            raise LabelError(
                f"there is no file {file}. A pairs stage writes one, and --blind makes one from two models."
            )
        self.file, self.seed, self.who = file, seed, who
        self.pairs = {pair.id: pair for pair in read_comparisons(file)}
        if not self.pairs:
            raise LabelError(f"{file} must contain at least one pair; it is empty.")
        self._size = -1
        self.slots: dict[Slot, Label] = {}
        """All labels, those of pairs shown a second time included."""
        self._refresh()
        unknown = {name for name, _ in self.slots} - set(self.pairs)
        if unknown:
            raise LabelError(
                f"{labels_file(file)} labels pairs that {file} does not contain (such as {min(unknown)!r}). Restore the"
                " file that was labelled, or move the labels away."
            )
        self._order = order_of(self.pairs, seed=seed, repeat=repeat)
        self._given: list[tuple[str, Label]] = [("", label) for label in self.slots.values() if label.who == who]
        """(tab, label) of every label that can be undone, in order."""

    @property
    def labels(self) -> dict[str, Label]:
        """Return the labels by pair, without those of pairs shown a second time."""
        return {name: label for (name, repeat), label in self.slots.items() if not repeat}

    def _refresh(self) -> None:
        """Read the labels again if another process has written some: not every file system has working locks."""
        place = labels_file(self.file)
        size = place.stat().st_size if place.exists() else 0
        if size != self._size:
            self.slots, self._size = read_slots(self.file), size

    def _write(self, label: Label) -> None:
        append_label(self.file, label)
        put(self.slots, label)
        self._size = labels_file(self.file).stat().st_size

    def _counts(self, slot: Slot) -> bool:
        """Return False for a second time that is not asked: the first was skipped, or another person's."""
        first = self.slots.get((slot[0], False))
        return not slot[1] or first is None or (first.who == self.who and first.label != "skip")

    def _swapped(self, name: str, *, repeat: bool) -> bool:
        first = self.slots.get((name, False)) if repeat else None
        return self.pairs[name].swapped(self.seed) if first is None else not first.swapped

    def shown(self) -> Shown | None:
        """Return the next pair to decide; None if there is none."""
        for name, repeat in self._order:
            if (name, repeat) not in self.slots and self._counts((name, repeat)):
                pair = self.pairs[name]
                sides = (pair.first, pair.second)
                left, right = reversed(sides) if self._swapped(name, repeat=repeat) else sides
                return Shown(name, pair.prompt, left, right, repeat)
        return None

    def progress(self) -> Progress:
        """Return how many decisions are made, by category too, and how far this person agrees with themselves."""
        counted = [slot for slot in self._order if slot in self.slots or self._counts(slot)]
        every = Counter(pair.category for pair in self.pairs.values())
        labelled = Counter(self.pairs[name].category for name in self.labels)
        return Progress(
            sum(slot in self.slots for slot in counted),
            len(counted),
            {category: (labelled[category], every[category]) for category in sorted(every)},
            agreement({slot: label for slot, label in self.slots.items() if label.who == self.who}),
        )

    def give(
        self,
        name: str,
        side: Side,
        *,
        repeat: bool = False,
        seconds: float = 0.0,
        reason: str = "",
        tab: str = "",
    ) -> None:
        """Label a pair by the side that is better; the label is on disk when this returns.

        Args:
            name: id of the pair.
            side: the better side, or tie or skip.
            repeat: the pair is shown for the second time.
            seconds: time that the decision took.
            reason: what the person wrote about the decision.
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
        if (name, repeat) in self.slots:
            raise AlreadyLabelled(f"pair {name!r} is already labelled. Undo that label before you give another one.")
        if repeat and (name, False) not in self.slots:
            raise LabelError(f"pair {name!r} must be labelled a first time before the second; it has no label.")
        swapped = self._swapped(name, repeat=repeat)
        choice: Choice = side if side in ("tie", "skip") else "first" if (side == "left") != swapped else "second"
        label = Label(
            id=name,
            label=choice,
            swapped=swapped,
            seconds=round(seconds, 2),
            who=self.who,
            reason=reason.strip(),
            repeat=repeat,
        )
        self._write(label)
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
            if self.slots.get((label.id, label.repeat)) == label:  # still ours: nobody has relabelled the pair since
                self._write(Label(id=label.id, label="undo", swapped=False, who=self.who, repeat=label.repeat))
                return label.id
        return None


def order_of(names: Iterable[str], *, seed: int, repeat: float) -> list[Slot]:
    """Return the order in which pairs are shown: shuffled, with a share of them once more, at least APART pairs later.

    Args:
        names: ids of the pairs.
        seed: seed of the order, and of the choice of the repeated pairs.
        repeat: share of the pairs to repeat; the last APART of the order (or the last half) cannot be repeated.
    Example:
        >>> order_of("abcd", seed=0, repeat=0.25)
        [('c', False), ('a', False), ('b', False), ('d', False), ('a', True)]
    """
    source, order = random.Random(seed), sorted(names)
    source.shuffle(order)
    apart = min(APART, len(order) // 2)
    early = range(len(order) - apart)
    chosen = source.sample(early, min(len(early), int(repeat * len(order) + 0.5)))
    places = [(float(at), (name, False)) for at, name in enumerate(order)]
    places += [(source.uniform(at + apart, len(order)), (order[at], True)) for at in chosen]
    return [slot for _, slot in sorted(places)]


class Agreement(NamedTuple):
    """Agreement of a person with themselves on pairs shown twice, the second time with the sides swapped."""

    equal: int
    of: int
    """Pairs that were decided both times, ties included."""
    share: float | None
    """Share of equal choices; None without such pairs."""
    interval: Interval
    """95 % Wilson interval of the share."""

    def __str__(self) -> str:
        if self.share is None:
            return "agreement with oneself: no pair was decided twice"
        low, high = self.interval
        return (
            f"agreement with oneself: {self.share:.1%} [{low:.1%}, {high:.1%}],"
            f" the same choice for {self.equal} of {self.of} pairs shown twice"
        )


def agreement(slots: Mapping[Slot, Label]) -> Agreement:
    """Count the pairs that got the same label twice; a skip is no decision.

    Example:
        >>> first = Label(id="0", label="tie", swapped=False)
        >>> agreement({("0", False): first, ("0", True): first})[:3]
        (1, 1, 1.0)
    """
    twice = [
        (slots[name, False].label, label.label)
        for (name, repeat), label in slots.items()
        if repeat and (name, False) in slots
    ]
    decided = [one == other for one, other in twice if "skip" not in (one, other)]
    share = sum(decided) / len(decided) if decided else None
    return Agreement(sum(decided), len(decided), share, wilson_interval(sum(decided), len(decided)))


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


def agreement_json(found: Agreement) -> dict[str, JSON]:
    """Return the agreement as JSON, for the page and for scripts."""
    return {"equal": found.equal, "of": found.of, "share": found.share, "interval": list(found.interval)}
