"""Reference log-probabilities of a stage's rows, computed once by its start model. Letters: N completion tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from reasoner.data.encode import batch_of
from reasoner.data.rows import Encoded
from reasoner.policy.policy import Policy
from reasoner.session.session import Session
from reasoner.storage.files import write_atomic

REFERENCE_FILE = "ref_logprobs.safetensors"


class TwoRows(Protocol):
    """An item with two rows: the sides of a pair, or a row and its mismatched completion."""

    @property
    def first(self) -> Encoded:
        """Its first row."""
        ...

    @property
    def second(self) -> Encoded:
        """Its second row."""
        ...

    @property
    def number(self) -> int:
        """Its index among the items of its split."""
        ...


class Reference:
    """[N] token log-probabilities of both rows of all items under the stage's start model."""

    def __init__(self, logprobs: dict[str, dict[int, tuple[Tensor, Tensor]]]) -> None:
        self._logprobs = logprobs

    @classmethod
    def of(cls, session: Session, train: Sequence[TwoRows], validation: Sequence[TwoRows]) -> Reference:
        """Load from the run folder; a new stage first computes and writes them."""
        file = session.run.path / REFERENCE_FILE
        sides = {"train": train, "test": validation}
        if session.fresh:
            flat = {side: _score(session.policy, items) for side, items in sides.items() if items}
            write_atomic(file, save(flat))
        return cls({side: _split(load_file(file)[side], items) for side, items in sides.items() if items})

    def of_first(self, items: Sequence[TwoRows], *, side: str) -> Tensor:
        """Return [N] of the first rows of some items."""
        return torch.cat([self._logprobs[side][item.number][0] for item in items])

    def of_second(self, items: Sequence[TwoRows], *, side: str) -> Tensor:
        """Return [N] of the second rows of some items."""
        return torch.cat([self._logprobs[side][item.number][1] for item in items])

    def of_both(self, items: Sequence[TwoRows], *, side: str) -> Tensor:
        """Return [N] of both rows of some items, item by item."""
        return torch.cat([part for item in items for part in self._logprobs[side][item.number]])


def _score(policy: Policy, items: Sequence[TwoRows]) -> Tensor:
    batch = batch_of([row for item in items for row in (item.first, item.second)])
    scored = policy.annotate(batch, frozenset({"old_logprobs"})).old_logprobs_N
    assert scored is not None
    return scored


def _split(flat_N: Tensor, items: Sequence[TwoRows]) -> dict[int, tuple[Tensor, Tensor]]:
    lengths = [len(row.completion_ids) for item in items for row in (item.first, item.second)]
    parts = flat_N.split(lengths)
    return {item.number: (parts[2 * place], parts[2 * place + 1]) for place, item in enumerate(items)}
