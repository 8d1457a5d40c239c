"""Findings of `explain`: a sentence, its evidence and the change to try; and their order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from reasoner.storage.history import Row
from verifiers import JSON


class Level(StrEnum):
    """Severity of a finding."""

    FAULT = "fault"
    """Training uses something wrong: wrong gradients, wrong rewards, or weights that are not the policy's."""
    WARNING = "warning"
    """A large part of the compute gives no training signal, or soon will."""
    NOTE = "note"
    """Information; nothing has to change."""


class Place(NamedTuple):
    """Position of a rollout in the run."""

    step: int
    group: int
    sample: int

    def __str__(self) -> str:
        return f"{self.step}/{self.group}/{self.sample}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A finding: one sentence with its evidence.

    Example:
        >>> Finding(code="x", level=Level.NOTE, cost=0.0, title="All is well.").code
        'x'
    """

    code: str
    """Stable name, used by scripts and in the table of docs/observe.md."""
    level: Level
    cost: float
    """0 .. 1: share of the run (or of its rollouts) that is lost or trains towards something wrong."""
    title: str
    evidence: tuple[str, ...] = ()
    change: str = ""
    """Recommended change."""
    rollouts: tuple[Place, ...] = ()
    """Some of the rollouts concerned."""
    explains: frozenset[str] = field(default_factory=frozenset[str])
    """Codes of findings that are consequences of this one."""
    follows: str = ""
    """Code of the finding that explains this one; set by `ordered`."""

    def to_json(self) -> dict[str, JSON]:
        """Return the finding as a JSON object."""
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
    """Order findings: causes before their consequences, faults before warnings before notes, then by falling cost.

    A finding that another one explains is placed after its cause, which is named in `follows`.
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
    """Return the positions of up to `limit` rollouts, spread evenly over the sequence."""
    step = max(1, len(rows) // limit)
    return tuple(Place(*row.place) for row in rows[::step][:limit])
