"""How rows lie in a forward pass: end to end in packs, side by side, or without any padding.

None of it changes a number. Letters: B rows, N completion tokens, K lines of a forward pass, L tokens of a line. A pass
without padding has one line of T tokens; its blocks have K stretches of at most L tokens, behind prompts of at most S.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface, PreTrainedModel

from reasoner.algorithm.batch import Batch
from reasoner.config.sections import ConfigError

UNPADDED = "reasoner_unpadded"
"""The name of an attention that does what transformers' sdpa does, and takes a `Spread`."""
ALIKE, SHORT = 0.7, 16
"""A block holds stretches down to this share of its longest one; all, where that has no more than SHORT tokens."""


class Block(NamedTuple):
    """Stretches of the line side by side, padded, as attention takes them."""

    queries: Tensor
    """[K, L] place in the line of each token of a stretch; 0 behind its end."""
    keys: Tensor
    """[K, S + L] the same, behind the tokens of the prompt that the stretch continues."""
    seen: Tensor | None
    """[K, 1, L, S + L] bool: the keys that a query attends to; None: those up to itself (no prompts, S = 0)."""

    def to(self, device: torch.device) -> Block:
        """The same on a device."""
        seen = None if self.seen is None else self.seen.to(device)
        return Block(self.queries.to(device), self.keys.to(device), seen)


class Spread(NamedTuple):
    """What each token of the line attends to."""

    blocks: tuple[Block, ...]
    place_T: Tensor
    """[T] where each token lies among the queries of all blocks, flattened and one block after the other."""

    def to(self, device: torch.device) -> Spread:
        """The same on a device."""
        return Spread(tuple(block.to(device) for block in self.blocks), self.place_T.to(device))


class Forward(NamedTuple):
    """The inputs of one forward pass."""

    input_ids: Tensor
    """[K, L] int64; [1, T] without padding."""
    position_ids: Tensor | None
    """Like input_ids, starting again at 0 with each row of a pack; None: one row a line, from 0."""
    flat_positions_N: Tensor
    """[N] index into [K * L] of the position that predicts each completion token."""
    targets_N: Tensor
    """[N] the completion tokens."""
    ends_B: Tensor
    """[B] index into [K * L] of each row's last token, of those that are run."""
    spread: Spread | None = None
    """Set where the line has no padding."""

    def to(self, device: torch.device) -> Forward:
        """The same on a device."""
        positions = None if self.position_ids is None else self.position_ids.to(device)
        spread = None if self.spread is None else self.spread.to(device)
        flat_N, targets_N, ends_B = (part.to(device) for part in (self.flat_positions_N, self.targets_N, self.ends_B))
        return Forward(self.input_ids.to(device), positions, flat_N, targets_N, ends_B, spread)


def hidden_states(decoder: nn.Module, forward: Forward, places: Tensor) -> Tensor:
    """[M, D] last hidden states of a decoder at [M] places among the K * L of a forward pass."""
    options: dict[str, object] = {}
    if forward.spread is not None:
        # four dimensions are taken as they are; attention that looks at this mask, and not at the spread, fails
        nothing = torch.zeros(1, 1, 0, 0, dtype=torch.bool, device=forward.input_ids.device)
        options = {"attention_mask": nothing, "spread": forward.spread}
    run = cast("Callable[..., Any]", decoder)
    output = run(input_ids=forward.input_ids, position_ids=forward.position_ids, use_cache=False, **options)
    # indexing has a gradient that adds element by element on a CPU
    return output.last_hidden_state.flatten(0, 1).index_select(0, places)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    spread: Spread | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers' attention interface asks for: sdpa, block by block where there is a spread.

    With one, query, key and value are [1, heads, T, D] and the result is [1, T, heads, D].

    Raises:
        ConfigError: the model's layers do not hand the spread on.
    """
    if spread is None and attention_mask is not None and not attention_mask.numel():
        raise ConfigError(
            "bad-value",
            f"batch.layout must be padded for this model: {type(module).__name__} is not told where the rows lie.",
        )
    if spread is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    outputs: list[Tensor] = []
    for block in spread.blocks:
        states = _taken(query, block.queries), _taken(key, block.keys), _taken(value, block.keys)
        outputs.append(sdpa_attention_forward(module, *states, block.seen, **options)[0].flatten(0, 1))
    return torch.cat(outputs).index_select(0, spread.place_T)[None], None


def _taken(states: Tensor, places: Tensor) -> Tensor:
    """[K, heads, L, D] of [1, heads, T, D] at [K, L] places."""
    return states[0].transpose(0, 1).index_select(0, places.flatten()).unflatten(0, places.shape).transpose(1, 2)


AttentionInterface.register(UNPADDED, _attend)
AttentionMaskInterface.register(UNPADDED, sdpa_mask)


def allow_unpadded(model: PreTrainedModel) -> None:
    """Let a model with sdpa take passes without padding as well, where its attention is transformers' interface."""
    if model.config._attn_implementation == "sdpa" and model._supports_attention_backend:
        model.config._attn_implementation = UNPADDED


def takes_unpadded(model: PreTrainedModel, positions: int) -> bool:
    """Whether a model takes passes without padding, of rows of up to so many positions."""
    return model.config._attn_implementation == UNPADDED and full_attention(model.config, positions)


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


class Stretch(NamedTuple):
    """Tokens of the line that follow each other in a row."""

    start: int
    length: int
    prompt_start: int = 0
    prompt_length: int = 0
    """0: it continues no prompt."""


def unpadded(batch: Batch, *, ends: bool = False) -> Forward:
    """All rows in one line without padding, a prompt that several of them share only once.

    Only attention lays rows side by side, in blocks of like length (sharing: arXiv:2506.05433).

    Args:
        batch: rows with prompts of at least one token.
        ends: run each row's last token too, which predicts nothing.
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
    """The stretches of each block: of like length, all of them behind prompts or none."""
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
