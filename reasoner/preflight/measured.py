"""What a preflight measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from reasoner.config.stage import StageConfig
from reasoner.observe.explain import Finding
from reasoner.observe.explain.signal_chance import Belief
from reasoner.preflight.all_rows import AllRows
from reasoner.preflight.causes import Causes
from reasoner.preflight.fields import Side, Split
from reasoner.storage.history import Row


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Problems of similar difficulty."""

    name: str
    problems: int
    belief: Belief
    low: float
    high: float
    """`low` and `high`: bounds of the pass rates of 90 % of the problems."""
    difficulties: tuple[float, float] | None = None
    """Lowest and highest difficulty of the problems; None if they are not divided by difficulty."""
    side: Side | None = None
    """Side of the field that separates two kinds of problems; None if they are not divided by one."""


class Kept(NamedTuple):
    """What --write-problems keeps."""

    kept: int
    known: int
    """Number of all training problems."""
    sampled: int
    """Number of the kept problems that were sampled."""
    chance: float
    """Mean chance of signal of the kept problems."""


class TwoKinds(NamedTuple):
    """Two kinds of problems, and what separates them; the kind that is solved more rarely comes first."""

    shares: tuple[float, float]
    means: tuple[float, float]
    split: Split | None
    """The field that separates them; None if none does."""


@dataclass(kw_only=True)
class Preflight:
    """All measurements."""

    config: StageConfig
    rows: list[Row]
    bins: list[Bin]
    whole: Belief
    seconds_per_step: float
    split: dict[str, float]
    tokens_per_step: float
    memory_mb: float
    seconds: float
    findings: list[Finding]
    causes: Causes = field(default_factory=Causes)
    kinds: TwoKinds | None = None
    """None for one kind of problems."""
    all_rows: AllRows | None = None
    kept: Kept | None = None

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """By problem: number of right samples, and number of samples with a verdict of right or wrong."""
        return counts_of(self.rows)

    def shares(self) -> dict[str, float]:
        """Return the shares of problems whose samples are all wrong, mixed, and all right."""
        counts = [*self.counts.values()]
        total = max(1, len(counts))
        wrong, right = sum(c == 0 for c, _ in counts) / total, sum(c == n for c, n in counts) / total
        return {"all wrong": wrong, "mixed": sum(0 < c < n for c, n in counts) / total, "all right": right}


def counts_of(rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
    """Return by problem the number of right samples, and of samples with a verdict of right or wrong."""
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        if row.mark is not None:
            right, total = found.get(row.problem, (0, 0))
            found[row.problem] = (right + row.right, total + 1)
    return found
