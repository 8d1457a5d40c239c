"""Records of the grading pool: the kind of a row, and a queued row with its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from verifiers.base import GradingRow, Verifier
from verifiers.compose import Composite
from verifiers.verdict import JSON, Outcome, Verdict, fixed

LOADING_FAILURES = 3
"""Workers lost in a row while they loaded one verifier, after which its rows are given up at once."""


class GradingRequest(NamedTuple):
    """One row and the verifier that grades it."""

    verifier: str
    row: GradingRow
    options: Mapping[str, JSON] = {}


@dataclass(slots=True, eq=False, kw_only=True)
class Kind:
    """A verifier with its options, as the pool sees it: how it is reached, and the limits of one of its rows."""

    name: str
    options: dict[str, JSON]
    target: str
    """The name by which a worker finds it."""
    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int
    batch_rows: int
    concurrency: int
    in_process: Verifier | None = None
    """The verifier itself, if it grades in the caller's process."""
    merges_equal: bool = False
    composed: Composite | None = None
    """Its parts are graded apart, because one of them is graded in the caller's process."""
    active: int = 0
    """Workers that are grading with it."""
    lost_loading: int = 0
    """Workers lost in a row while they loaded it."""
    row_seconds: float = 0.0
    """Seconds for each row of the last chunk."""


@dataclass(slots=True, eq=False)
class Item:
    """A row on its way through the pool."""

    kind: Kind
    row: GradingRow
    order: tuple[int, int] = (0, 0)
    """Rank and arrival: the lowest is graded first."""
    alone: bool = False
    """True: graded in a batch of its own, because a worker was lost in the batch that held it."""
    future: Future[Verdict] = field(default_factory=Future[Verdict])
    twins: list[Item] = field(default_factory=list["Item"])
    """Rows equal to this one that wait for its verdict."""

    def __lt__(self, other: Item) -> bool:
        return self.order < other.order

    @property
    def key(self) -> tuple[Kind, bytes]:
        """Key that equal rows of one kind share."""
        row = self.row
        text = json.dumps([row.completion, row.reference, row.prompt, dict(row.info)])
        return self.kind, hashlib.sha256(text.encode()).digest()

    def settle(self, verdict: Verdict) -> None:
        """Set the verdict, unless it is set."""
        if not self.future.done():
            self.future.set_result(verdict)

    def fault(self, cause: str) -> None:
        """Set `verifier_error` as the verdict, with its cause."""
        self.settle(named(fixed(Outcome.VERIFIER_ERROR, cause), self.kind.name))


def named(verdict: Verdict, name: str) -> Verdict:
    """Return the verdict under the name of a verifier that did not give it itself."""
    return replace(verdict, verifier=name)


CLOSED = "the grading pool was closed before this row was graded"
