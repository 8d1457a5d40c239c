"""Quality of a reward model on rows of right and wrong completions: accuracy, calibration, length bias, spread.

Letters: C pairs of a right and a wrong completion of one row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import NamedTuple

from reasoner.evaluation.reward_bench import TIES, Benchmark, Gap, Share, Ties, benchmark_of, ties_score
from reasoner.evaluation.reward_report import pair_report
from verifiers import JSON
from verifiers.judge.agreement import spearman


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredChoice:
    """Rewards and lengths of the completions of one row."""

    id: str
    subset: str
    chosen: Sequence[float]
    """Rewards of the right completions."""
    rejected: Sequence[float]
    chosen_tokens: Sequence[int]
    """Token counts of the right completions."""
    rejected_tokens: Sequence[int]

    @property
    def in_ties(self) -> bool:
        """True for a row of the Ties subset of RewardBench 2."""
        return self.subset.casefold() == TIES.casefold() and self.id.startswith(("ref:", "tied:"))

    @property
    def right(self) -> float:
        """How far the model ranks the row rightly, from 0 to 1.

        Of two completions the right one must have the higher reward; equal rewards are wrong (RewardBench). Of more, it
        is the chance to take a right one if one with the highest reward is taken at random (RewardBench 2: 1 / k if
        the right one shares the highest reward with k - 1 wrong ones). In the Ties subset every right completion must
        have a higher reward than every wrong one.
        """
        if self.in_ties or len(self.chosen) == len(self.rejected) == 1:
            return float(min(self.chosen) > max(self.rejected))
        highest = max(*self.chosen, *self.rejected)
        good, bad = self.chosen.count(highest), self.rejected.count(highest)
        return good / (good + bad)


class Rewards(NamedTuple):
    """Mean and population standard deviation of some rewards."""

    mean: float
    std: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Rewards:
        """Return those of at least one value."""
        return cls(fmean(values), pstdev(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoicesReport:
    """Figures of a reward model on rows of right and wrong completions."""

    accuracy: Share
    """Mean of `ScoredChoice.right` over all rows."""
    best_of: Mapping[int, Share]
    """The same by the number of completions of a row, without the Ties subset."""
    subsets: Mapping[str, Share]
    """The same by subset; of the Ties subset its own score."""
    ties: Ties | None
    """Parts of the score of the Ties subset; None without one."""
    benchmark: Benchmark | None
    """Scores of the benchmark whose subsets these are."""
    pair_accuracy: Share
    """Mean over rows of the share of their pairs in which the right completion has the higher reward."""
    equal_pairs: int
    """Number of pairs with equal rewards."""
    chosen: Rewards
    rejected: Rewards
    margins: Rewards
    """Of right minus wrong, over all pairs."""
    rank_correlation: float
    """Spearman's correlation of reward and token count over all completions; NaN if one of them never varies."""
    pairs: Mapping[str, JSON]
    """`reward_report.pair_report` over all pairs: their number, calibration and length bias. Each pair counts once, so
    that a row with many completions weighs more."""

    def to_json(self) -> dict[str, JSON]:
        """Return the report as JSON."""
        found = self.benchmark
        return {
            "rows": self.accuracy.rows,
            "metrics": {name: [*share[:3]] for name, share in self.metrics().items()},
            "best_of": {str(count): share.to_json() for count, share in self.best_of.items()},
            "subsets": {name: share.to_json() for name, share in self.subsets.items()},
            "sections": {name: share.to_json() for name, share in found.sections.items()} if found else {},
            "benchmark": found.name if found else None,
            "missing_subsets": [*found.missing] if found else [],
            "ties": self.ties.to_json() if self.ties else None,
            "equal_pairs": self.equal_pairs,
            "rewards": {
                "chosen": {**self.chosen._asdict()},
                "rejected": {**self.rejected._asdict()},
                "margin": {**self.margins._asdict()},
            },
            "rank_correlation_with_length": None if math.isnan(self.rank_correlation) else self.rank_correlation,
            **{name: value for name, value in self.pairs.items() if name != "by_category"},
        }

    def metrics(self) -> dict[str, Share]:
        """Return the figures that stand for the whole file, by name."""
        score = self.benchmark.score if self.benchmark else None
        return {
            "accuracy": self.accuracy,
            "pair_accuracy": self.pair_accuracy,
            **({"score": score} if score else {}),
        }


def choices_report(rows: Sequence[ScoredChoice]) -> ChoicesReport:
    """Compute the figures of scored rows; there must be at least one.

    Confidence of a preference is s(|d|), with d the difference of two rewards and s the sigmoid: that is the
    probability of the completion with the higher reward under Bradley-Terry. The calibration error compares it with
    how often that completion is the right one. Rewards must be those of the loss, not rescaled ones.
    """
    pairs = [(good, bad) for row in rows for good in row.chosen for bad in row.rejected]
    lengths = [(good, bad) for row in rows for good in row.chosen_tokens for bad in row.rejected_tokens]
    every = [(reward, count) for row in rows for reward, count in _completions(row)]
    ties = ties_score({row.id: Gap.of(row.chosen, row.rejected) for row in rows if row.in_ties})
    subsets = {name: Share.of([row.right for row in part]) for name, part in _by_subset(rows).items()}
    if ties is not None:
        subsets |= {name: ties.score for name in subsets if name.casefold() == TIES.casefold()}
    elif any(row.in_ties for row in rows):  # no prompt is complete: the subset has no score
        subsets = {name: share for name, share in subsets.items() if name.casefold() != TIES.casefold()}
    sizes = sorted({_size(row) for row in rows if not row.in_ties})
    return ChoicesReport(
        accuracy=Share.of([row.right for row in rows]),
        best_of={
            size: Share.of([row.right for row in rows if _size(row) == size and not row.in_ties]) for size in sizes
        },
        subsets=subsets,
        ties=ties,
        benchmark=benchmark_of(subsets, best_of=max(map(_size, rows))),
        pair_accuracy=Share.of([_pairs_right(row) for row in rows]),
        equal_pairs=sum(good == bad for good, bad in pairs),
        chosen=Rewards.of([reward for row in rows for reward in row.chosen]),
        rejected=Rewards.of([reward for row in rows for reward in row.rejected]),
        margins=Rewards.of([good - bad for good, bad in pairs]),
        rank_correlation=spearman([reward for reward, _ in every], [float(count) for _, count in every]),
        pairs=pair_report(pairs, lengths, [""] * len(pairs)),
    )


def _by_subset(rows: Sequence[ScoredChoice]) -> dict[str, list[ScoredChoice]]:
    """Return the rows of each subset, in the order in which the subsets appear; none if all are in one without name."""
    found: dict[str, list[ScoredChoice]] = {}
    for row in rows:
        found.setdefault(row.subset, []).append(row)
    return {} if found.keys() == {""} else found


def _size(row: ScoredChoice) -> int:
    return len(row.chosen) + len(row.rejected)


def _completions(row: ScoredChoice) -> list[tuple[float, int]]:
    return [
        *zip(row.chosen, row.chosen_tokens, strict=True),
        *zip(row.rejected, row.rejected_tokens, strict=True),
    ]


def _pairs_right(row: ScoredChoice) -> float:
    return fmean(float(good > bad) for good in row.chosen for bad in row.rejected)
