"""What the grading pool hands around: kinds of rows, rows, and what became of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from verifiers.base import GradingRow, Verifier
from verifiers.verdict import JSON, Outcome, Verdict, fixed

if TYPE_CHECKING:
    from verifiers.compose import Composite

LOADING_FAILURES = 3
"""So many workers lost in a row while they load one verifier, and its rows are given up at once."""


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
    shared: Verifier | None = None
    """Graded with in the caller's process."""
    merges_equal: bool = False
    composed: Composite | None = None
    """Its parts are graded apart, because one of them is graded in the caller's process."""
    active: int = 0
    """Lanes that are grading with it."""
    lost_loading: int = 0
    """Workers lost in a row while they loaded it."""
    row_seconds: float = 0.0
    """Of the last chunk, for each row."""


@dataclass(slots=True, eq=False)
class Item:
    """A row on its way through the pool."""

    kind: Kind
    row: GradingRow
    order: tuple[int, int] = (0, 0)
    """Rank and arrival: the lowest is graded first."""
    alone: bool = False
    """Not in a batch: a worker was lost in the batch that held it."""
    future: Future[Verdict] = field(default_factory=Future[Verdict])
    twins: list[Item] = field(default_factory=list["Item"])
    """Rows equal to this one that wait for its verdict."""

    def __lt__(self, other: Item) -> bool:
        return self.order < other.order

    @property
    def key(self) -> tuple[Kind, bytes]:
        """The same for equal rows of one kind."""
        row = self.row
        text = json.dumps([row.completion, row.reference, row.prompt, dict(row.info)])
        return self.kind, hashlib.sha256(text.encode()).digest()

    def settle(self, verdict: Verdict) -> None:
        """Give the verdict, unless there is one."""
        if not self.future.done():
            self.future.set_result(verdict)

    def fault(self, cause: str) -> None:
        """Could not be graded, and why."""
        self.settle(signed(fixed(Outcome.VERIFIER_ERROR, cause), self.kind.name))


def signed(verdict: Verdict, name: str) -> Verdict:
    """The verdict under the name of a verifier that could not sign it itself."""
    return Verdict.from_json({**verdict.to_json(), "verifier": name})


CLOSED = "the grading pool was closed before this row was graded"
