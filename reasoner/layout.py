"""How rows lie in a forward pass: packed end to end, or side by side. Neither changes a number.

Letters: B rows, N completion tokens, K lines of a forward pass, L tokens of a line.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reasoner.batch import Batch


class Forward(NamedTuple):
    """The inputs of one forward pass."""

    input_ids: Tensor
    """[K, L] int64."""
    position_ids: Tensor | None
    """[K, L], starting again at 0 with each row of a pack; None: one row a line, from 0."""
    flat_positions_N: Tensor
    """[N] index into [K * L] of the position that predicts each completion token."""
    targets_N: Tensor
    """[N] the completion tokens."""
    ends_B: Tensor
    """[B] index into [K * L] of each row's last token."""

    def to(self, device: torch.device) -> Forward:
        """The same on a device."""
        positions = None if self.position_ids is None else self.position_ids.to(device)
        moved = (part.to(device) for part in (self.flat_positions_N, self.targets_N, self.ends_B))
        return Forward(self.input_ids.to(device), positions, *moved)


def padded(batch: Batch) -> Forward:
    """One row a line, padded on the right.

    Under a causal mask no real token attends to padding that follows it, so no attention mask is needed.
    """
    length = max(len(ids) for ids in batch.input_ids)
    input_ids = torch.zeros(len(batch), length, dtype=torch.long)
    for row, ids in enumerate(batch.input_ids):
        input_ids[row, : len(ids)] = ids
    starts = torch.arange(len(batch)) * length
    return Forward(input_ids, None, *_targets(batch, starts.tolist()))


def packed(batch: Batch, pack_tokens: int | None) -> Forward:
    """Rows end to end in lines of at most pack_tokens (first fit; None: one line), positions from 0 in each row.

    transformers derives the block mask from the positions (or passes them to flash attention as lengths).
    The tail of a line is a row of padding of its own.
    """
    lines: list[list[int]] = []
    used: list[int] = []
    for row, ids in enumerate(batch.input_ids):
        place = next((k for k in range(len(lines)) if pack_tokens is None or used[k] + len(ids) <= pack_tokens), None)
        if place is None:
            lines.append([])
            used.append(0)
            place = len(lines) - 1
        lines[place].append(row)
        used[place] += len(ids)
    length = max(used)
    input_ids = torch.zeros(len(lines), length, dtype=torch.long)
    position_ids = torch.zeros(len(lines), length, dtype=torch.long)
    starts = [0] * len(batch)
    for k, rows in enumerate(lines):
        at = 0
        for row in rows:
            ids = batch.input_ids[row]
            input_ids[k, at : at + len(ids)] = ids
            position_ids[k, at : at + len(ids)] = torch.arange(len(ids))
            starts[row] = k * length + at
            at += len(ids)
        position_ids[k, at:] = torch.arange(length - at)
    return Forward(input_ids, position_ids, *_targets(batch, starts))


def _targets(batch: Batch, starts: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    positions: list[Tensor] = []
    targets: list[Tensor] = []
    for row, ids in enumerate(batch.input_ids):
        prompt = int(batch.prompt_lengths_B[row])
        positions.append(torch.arange(starts[row] + prompt - 1, starts[row] + len(ids) - 1))
        targets.append(ids[prompt:])
    ends = torch.tensor([start + len(ids) - 1 for start, ids in zip(starts, batch.input_ids, strict=True)])
    return torch.cat(positions), torch.cat(targets), ends
