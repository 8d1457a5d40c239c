"""What `explain` says: one finding, its evidence, the change to try; and the order in which they are said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from reasoner.storage.history import Row
from verifiers import JSON


class Level(StrEnum):
    """How a finding is meant."""

    FAULT = "fault"
    """The run learns from something wrong: wrong gradients, wrong rewards, weights that are not the policy's."""
    WARNING = "warning"
    """A large part of the compute teaches nothing, or soon will."""
    NOTE = "note"
    """Worth knowing; nothing has to change."""


class Place(NamedTuple):
    """A rollout of the run."""

    step: int
    group: int
    sample: int

    def __str__(self) -> str:
        return f"{self.step}/{self.group}/{self.sample}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One sentence with its evidence.

    Example:
        >>> Finding(code="x", level=Level.NOTE, cost=0.0, title="All is well.").code
        'x'
    """

    code: str
    """Stable name, for scripts and for the glossary in docs/observe.md."""
    level: Level
    cost: float
    """0 .. 1: the share of the run (or of its rollouts) that is lost or learns the wrong thing."""
    title: str
    evidence: tuple[str, ...] = ()
    change: str = ""
    """What to try."""
    rollouts: tuple[Place, ...] = ()
    """Some of the rollouts behind it."""
    explains: frozenset[str] = field(default_factory=frozenset[str])
    """Codes of findings that follow from this one."""
    follows: str = ""
    """Code of the finding that explains this one, set by `ordered`."""

    def to_json(self) -> dict[str, JSON]:
        """As one JSON object."""
        return {
            "code": self.code,
            "level": str(self.level),
            "cost": round(self.cost, 4),
            "title": self.title,
            "evidence": [*self.evidence],
            "change": self.change,
            "rollouts": [str(place) for place in self.rollouts],
            "follows": self.follows or None,
        }


RANK = {Level.FAULT: 0, Level.WARNING: 1, Level.NOTE: 2}


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Causes before what follows from them, faults before warnings before notes, then by cost.

    A finding that another present one explains comes behind it and says so; it never outranks its cause.
    """
    listed = sorted(findings, key=lambda f: (RANK[f.level], -f.cost, f.code))
    causes = {finding.code: finding for finding in listed}
    marked: list[Finding] = []
    for finding in listed:
        cause = next((c for c in listed if finding.code in c.explains and c.code != finding.code), None)
        circular = cause is not None and cause.code in finding.explains and RANK[finding.level] <= RANK[cause.level]
        marked.append(replace(finding, follows=cause.code) if cause is not None and not circular else finding)

    def key(finding: Finding) -> tuple[int, int, float, str]:
        root = causes.get(finding.follows, finding)
        level = max(RANK[finding.level], RANK[root.level])
        return (level, int(bool(finding.follows)), -finding.cost, finding.code)

    return sorted(marked, key=key)


def places(rows: Sequence[Row], limit: int = 5) -> tuple[Place, ...]:
    """The places of up to `limit` rollouts, spread over the sequence."""
    step = max(1, len(rows) // limit)
    return tuple(Place(*row.place) for row in rows[::step][:limit])
