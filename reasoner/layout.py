"""How rows lie in a forward pass: packed end to end, side by side, or behind prompts that they share.

None of it changes a number. Letters: B rows, N completion tokens, K lines of a forward pass, L tokens of a line,
P distinct prompts, S tokens of the longest one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.modeling_utils import PreTrainedModel

from reasoner.batch import Batch


class Prompts(NamedTuple):
    """What several lines continue: run once each, before the lines."""

    input_ids: Tensor
    """[P, S] int64, each without its last token, padded on the right."""
    prompt_K: Tensor
    """[K] the prompt that each line continues."""
    seen: Tensor
    """[K, 1, L, S + L] bool: what each token of a line attends to, of its prompt and of its line."""


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
    """[B] index into [K * L] of each row's last token; behind shared prompts of the one before it."""
    prompts: Prompts | None = None
    """Set where the lines continue shared prompts."""

    def to(self, device: torch.device) -> Forward:
        """The same on a device."""
        positions = None if self.position_ids is None else self.position_ids.to(device)
        prompts = None if self.prompts is None else Prompts(*(part.to(device) for part in self.prompts))
        flat_N, targets_N, ends_B = (part.to(device) for part in (self.flat_positions_N, self.targets_N, self.ends_B))
        return Forward(self.input_ids.to(device), positions, flat_N, targets_N, ends_B, prompts)


def hidden_states(model: PreTrainedModel, forward: Forward) -> Tensor:
    """[K * L, D] last hidden states of the lines."""
    decoder = cast("Callable[..., Any]", model.get_decoder())
    if forward.prompts is None:
        output = decoder(input_ids=forward.input_ids, position_ids=forward.position_ids, use_cache=False)
    else:
        before = decoder(input_ids=forward.prompts.input_ids, use_cache=True).past_key_values
        output = decoder(
            input_ids=forward.input_ids,
            position_ids=forward.position_ids,
            attention_mask=forward.prompts.seen,
            past_key_values=_Continued([(held.keys, held.values) for held in before.layers], forward.prompts.prompt_K),
            use_cache=True,
        )
    return output.last_hidden_state.flatten(0, 1)


class _Continued:
    """Keys and values of prompts, each given to every line that continues it; gradients flow back into them.

    It answers the calls that a transformers attention layer makes on a cache.
    """

    def __init__(self, held: list[tuple[Tensor, Tensor]], prompt_K: Tensor) -> None:
        self._held = held
        self._prompt_K = prompt_K

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """[K, heads, S + L, D] keys and values of each line behind those of its prompt; nothing is kept."""
        before_keys, before_values = self._held[layer]
        return (
            torch.cat([before_keys[self._prompt_K], keys], dim=2),
            torch.cat([before_values[self._prompt_K], values], dim=2),
        )

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens of the longest prompt."""
        return self._held[0][0].shape[2]


def full_attention(config: PretrainedConfig, positions: int) -> bool:
    """Whether every layer attends to everything before it, up to so many positions."""
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    short = window is not None and window < positions
    return kinds <= ({"full_attention"} if short else {"full_attention", "sliding_attention"})


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


def shared(batch: Batch) -> Forward:
    """Each distinct prompt once, but for its last token; a line is that token and a row's completion without its last.

    The lines attend to the keys and values of their prompts (the idea: arXiv:2506.05433). Rows of one prompt cost its
    length once instead of each.
    """
    place, prompts_P = distinct_prompts(batch)
    lengths_P = torch.tensor([len(ids) - 1 for ids in prompts_P])
    prompt_K = torch.tensor(place)
    before = int(lengths_P.max())
    prompt_ids = torch.zeros(len(prompts_P), before, dtype=torch.long)
    for row, ids in enumerate(prompts_P):
        prompt_ids[row, : len(ids) - 1] = ids[:-1]
    tails = [ids[int(n) - 1 : -1] for ids, n in zip(batch.input_ids, batch.prompt_lengths_B, strict=True)]
    length = max(len(tail) for tail in tails)
    input_ids = torch.zeros(len(batch), length, dtype=torch.long)
    for row, tail in enumerate(tails):
        input_ids[row, : len(tail)] = tail
    # padding takes a position that some row has: one beyond a model's last is no position at all
    last = max(len(ids) for ids in batch.input_ids) - 1
    position_ids = (lengths_P[prompt_K][:, None] + torch.arange(length)).clamp(max=last)
    of_prompt = (torch.arange(before) < lengths_P[prompt_K][:, None])[:, None].expand(-1, length, -1)
    of_line = torch.ones(length, length, dtype=torch.bool).tril().expand(len(batch), -1, -1)
    prompts = Prompts(prompt_ids, prompt_K, torch.cat([of_prompt, of_line], dim=2)[:, None])
    starts = [row * length for row in range(len(batch))]
    return Forward(
        input_ids,
        position_ids,
        torch.cat([torch.arange(start, start + len(tail)) for start, tail in zip(starts, tails, strict=True)]),
        torch.cat([ids[int(n) :] for ids, n in zip(batch.input_ids, batch.prompt_lengths_B, strict=True)]),
        torch.tensor([start + len(tail) - 1 for start, tail in zip(starts, tails, strict=True)]),
        prompts,
    )


def distinct_prompts(batch: Batch) -> tuple[list[int], list[Tensor]]:
    """The place of each row's prompt among the distinct ones, and these."""
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
