"""One optimizer step's rows as flat tensors. Letters: B rows, N completion tokens of all rows, T of one row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows without padding: every `_N` tensor holds the completion tokens of row 0, then of row 1, ...

    A micro-batch is a Batch of some of the rows. Anything normalised (`weights_N`, advantages) is set
    once, for the whole optimizer step, so that micro-batches are only summed: see `token_weights`.
    """

    input_ids: tuple[Tensor, ...]
    """B tensors [prompt + completion] of int64."""
    prompt_lengths_B: Tensor
    """[B] int64."""
    row_N: Tensor
    """[N] int64: the row of each completion token, 0 .. B-1, ascending."""
    loss_mask_N: Tensor
    """[N] bool: True where the token is trained on."""
    reward_B: Tensor
    """[B] float64. Ungraded rollouts have left before a batch is made."""
    group_B: Tensor
    """[B] int64: rows of one problem share a number."""
    weights_N: Tensor
    """[N] float32: each token's share in the loss of the whole optimizer step; 0 where masked."""
    rollout_logprobs_N: Tensor
    """[N] float32: the engine's, at sampling."""
    advantages_N: Tensor | None = None
    """[N] float32, set by the advantage estimator."""
    old_logprobs_N: Tensor | None = None
    """[N] float32: the trainer's weights at the start of the step; None where provably the trainer's own."""
    ref_logprobs_N: Tensor | None = None
    values_N: Tensor | None = None
    """[N] float32: value head, before the step."""
    returns_N: Tensor | None = None
    """[N] float32: targets of the value head."""

    def __len__(self) -> int:
        return len(self.input_ids)

    def select(self, rows: Sequence[int]) -> Batch:
        """Some of the rows, in the given order, as a Batch of their own (row_N is renumbered)."""
        starts = self.row_starts()
        index_B = torch.as_tensor(rows, dtype=torch.long)
        spans = [torch.arange(starts[row], starts[row + 1]) for row in rows]
        index_N = torch.cat(spans) if spans else torch.zeros(0, dtype=torch.long)
        lengths = torch.tensor([len(span) for span in spans], dtype=torch.long)
        taken: dict[str, Tensor | None] = {}
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                taken[name] = value[index_N if name.endswith("_N") else index_B]
        taken["row_N"] = torch.repeat_interleave(torch.arange(len(rows)), lengths)
        return replace(self, input_ids=tuple(self.input_ids[row] for row in rows), **taken)

    def row_starts(self) -> list[int]:
        """B + 1 offsets into the _N tensors."""
        counts = torch.bincount(self.row_N, minlength=len(self))
        return [0, *torch.cumsum(counts, 0).tolist()]

    def micro_batches(self, max_tokens: int) -> Iterator[Batch]:
        """Split into Batches of at most max_tokens tokens (prompts included), longest rows together.

        A row longer than max_tokens is a micro-batch of its own.
        """
        order = sorted(range(len(self)), key=lambda row: -len(self.input_ids[row]))
        taken: list[int] = []
        tokens = 0
        for row in order:
            length = len(self.input_ids[row])
            if taken and tokens + length > max_tokens:
                yield self.select(taken)
                taken, tokens = [], 0
            taken.append(row)
            tokens += length
        if taken:
            yield self.select(taken)


__all__ = ["Batch"]
