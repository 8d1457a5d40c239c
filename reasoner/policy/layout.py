"""Layouts of a batch for a forward pass: rows packed end to end, padded side by side, or without any padding.

All layouts give the same loss and gradient (to 1e-9 in float64). Letters: B rows, N completion tokens, K lines of a
forward pass, L tokens of a line. A pass without padding has one line of T tokens. Each of its attention blocks has K
stretches of at most L tokens, which may follow prompts of at most S tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from reasoner.algorithm.batch import Batch
from reasoner.model.forward import Block, Forward, Spread

ALIKE, SHORT = 0.7, 16
"""Stretches of a block have at least this share of its longest one's length, unless that is at most SHORT tokens."""


def padded(batch: Batch) -> Forward:
    """Lay out one row per line, padded on the right.

    Under the causal mask no real token attends to padding after it, so no attention mask is needed.
    """
    length = max(len(ids) for ids in batch.input_ids)
    input_ids = torch.zeros(len(batch), length, dtype=torch.long)
    for row, ids in enumerate(batch.input_ids):
        input_ids[row, : len(ids)] = ids
    starts = torch.arange(len(batch)) * length
    return Forward(input_ids, None, *_targets(batch, starts.tolist()))


def packed(batch: Batch, pack_tokens: int | None) -> Forward:
    """Pack rows end to end into lines of at most pack_tokens (first fit; None: one line).

    Positions restart at 0 in each row.

    transformers derives the block mask from the positions (or passes them to flash attention as lengths).
    The tail of a line is treated as one more row of padding.
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


class Stretch(NamedTuple):
    """Consecutive tokens of the line that belong to one row (or to a shared prompt)."""

    start: int
    length: int
    prompt_start: int = 0
    prompt_length: int = 0
    """Length of the shared prompt that this stretch continues; 0: it continues none."""


def unpadded(batch: Batch, *, ends: bool = False) -> Forward:
    """Lay out all rows in one line without padding. A prompt that several rows share is included once.

    Only attention uses blocks of rows side by side, with similar lengths in a block (sharing: arXiv:2506.05433).

    Args:
        batch: rows with prompts of at least one token.
        ends: True also runs each row's last token, which predicts nothing.
    """
    prompt_B, prompts_P = distinct_prompts(batch)
    rows_P = Counter(prompt_B)
    line: list[Tensor] = []
    stretches: list[Stretch] = []

    def add(ids: Tensor, prompt: Stretch | None = None) -> Stretch:
        start = stretches[-1].start + stretches[-1].length if stretches else 0
        before = (prompt.start, prompt.length) if prompt else ()
        line.append(ids)
        stretches.append(Stretch(start, len(ids), *before))
        return stretches[-1]

    shared = {place: add(ids) for place, ids in enumerate(prompts_P) if rows_P[place] > 1}
    places = [torch.zeros(0, dtype=torch.long)]
    last_B: list[int] = []
    for ids, place in zip(batch.input_ids, prompt_B, strict=True):
        prompt, completion = len(prompts_P[place]), len(ids) - len(prompts_P[place])
        run = ids if ends or not completion else ids[:-1]
        if place in shared:
            end = shared[place].start + prompt
            after = add(run[prompt:], shared[place]).start
        else:
            end = add(run).start + prompt
            after = end
        if completion:
            places += [torch.tensor([end - 1]), torch.arange(after, after + completion - 1)]
        last_B.append(after + len(run) - prompt - 1 if len(run) > prompt else end - 1)
    return Forward(
        torch.cat(line)[None],
        torch.cat([torch.arange(s.prompt_length, s.prompt_length + s.length) for s in stretches])[None],
        torch.cat(places),
        torch.cat([ids[int(n) :] for ids, n in zip(batch.input_ids, batch.prompt_lengths_B, strict=True)]),
        torch.tensor(last_B),
        _spread(stretches),
    )


def _spread(stretches: Sequence[Stretch]) -> Spread:
    blocks: list[Block] = []
    place_T = torch.zeros(sum(stretch.length for stretch in stretches), dtype=torch.long)
    used = 0
    for alike in _alike(stretches):
        blocks.append(_block(alike))
        for stretch in alike:
            place_T[stretch.start : stretch.start + stretch.length] = torch.arange(used, used + stretch.length)
            used += blocks[-1].queries.shape[1]
    return Spread(tuple(blocks), place_T)


def _alike(stretches: Sequence[Stretch]) -> Iterator[list[Stretch]]:
    """Group stretches of similar length into blocks. A block's stretches either all continue prompts or none does."""
    for continued in (False, True):
        found: list[Stretch] = []
        some = [stretch for stretch in stretches if stretch.length and (stretch.prompt_length > 0) == continued]
        for stretch in sorted(some, key=lambda stretch: -stretch.length):
            if found and found[0].length > SHORT and stretch.length < ALIKE * found[0].length:
                yield found
                found = []
            found.append(stretch)
        if found:
            yield found


def _block(stretches: Sequence[Stretch]) -> Block:
    start_K1, length_K1, prompt_start_K1, prompt_K1 = torch.tensor(stretches).T[:, :, None]
    place_L, place_S = torch.arange(int(length_K1.max())), torch.arange(int(prompt_K1.max()))
    queries = torch.where(place_L < length_K1, start_K1 + place_L, 0)
    if not len(place_S):
        return Block(queries, queries, None)
    of_prompt = place_S < prompt_K1
    before = torch.where(of_prompt, prompt_start_K1 + place_S, 0)
    own = (place_L <= place_L[:, None]).expand(len(stretches), -1, -1)
    seen = torch.cat([of_prompt[:, None].expand(-1, len(place_L), -1), own], dim=2)
    return Block(queries, torch.cat([before, queries], dim=1), seen[:, None])


def distinct_prompts(batch: Batch) -> tuple[list[int], list[Tensor]]:
    """Return each row's index into the list of distinct prompts, and that list."""
    places: dict[bytes, int] = {}
    place: list[int] = []
    prompts: list[Tensor] = []
    for ids, length in zip(batch.input_ids, batch.prompt_lengths_B.tolist(), strict=True):
        prompt = ids[:length]
        key = prompt.numpy().tobytes()
        if key not in places:
            places[key] = len(prompts)
            prompts.append(prompt)
        place.append(places[key])
    return place, prompts


def _targets(batch: Batch, starts: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    positions: list[Tensor] = []
    targets: list[Tensor] = []
    for row, ids in enumerate(batch.input_ids):
        prompt = int(batch.prompt_lengths_B[row])
        positions.append(torch.arange(starts[row] + prompt - 1, starts[row] + len(ids) - 1))
        targets.append(ids[prompt:])
    ends = torch.tensor([start + len(ids) - 1 for start, ids in zip(starts, batch.input_ids, strict=True)])
    return torch.cat(positions), torch.cat(targets), ends
