"""Inputs of a forward pass in three layouts: packed end to end, padded side by side, or without any padding.

All layouts give the same results. Letters: B rows, N completion tokens, K lines of a forward pass, L tokens of a line.
A pass without padding has one line of T tokens. Its attention blocks have K stretches of at most L tokens, which may
follow prompts of at most S tokens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface, PreTrainedModel

from reasoner.config.errors import ConfigError
from reasoner.model.families import family_of, full_attention
from reasoner.model.internals import attention_of

UNPADDED = "reasoner_unpadded"
"""Name of an attention that works like transformers' sdpa and also accepts a `Spread`."""


class Block(NamedTuple):
    """Stretches of the line as rows of one padded attention call."""

    queries: Tensor
    """[K, L] index in the line of each token of a stretch; 0 for padding."""
    keys: Tensor
    """[K, S + L] index in the line of each key: first the prompt that the stretch continues, then its own tokens."""
    seen: Tensor | None
    """[K, 1, L, S + L] bool: True for the keys that a query attends to; None: causal (no prompts, S = 0)."""

    def to(self, device: torch.device) -> Block:
        """Return the block on a device."""
        seen = None if self.seen is None else self.seen.to(device)
        return Block(self.queries.to(device), self.keys.to(device), seen)


class Spread(NamedTuple):
    """Attention blocks of a line without padding, and where each token's result is found."""

    blocks: tuple[Block, ...]
    place_T: Tensor
    """[T] index of each token's query among the queries of all blocks, flattened and concatenated."""

    def to(self, device: torch.device) -> Spread:
        """Return the spread on a device."""
        return Spread(tuple(block.to(device) for block in self.blocks), self.place_T.to(device))


class Forward(NamedTuple):
    """Inputs of one forward pass, and the positions whose outputs are read."""

    input_ids: Tensor
    """[K, L] int64; [1, T] without padding."""
    position_ids: Tensor | None
    """Shaped like input_ids, restarting at 0 with each row of a pack; None: one row per line, from 0."""
    flat_positions_N: Tensor
    """[N] index into [K * L] of the position that predicts each completion token."""
    targets_N: Tensor
    """[N] completion tokens."""
    ends_B: Tensor
    """[B] index into [K * L] of the last token of each row that is run."""
    spread: Spread | None = None
    """Set if the line has no padding."""

    def to(self, device: torch.device) -> Forward:
        """Return the forward inputs on a device."""
        positions = None if self.position_ids is None else self.position_ids.to(device)
        spread = None if self.spread is None else self.spread.to(device)
        flat_N, targets_N, ends_B = (part.to(device) for part in (self.flat_positions_N, self.targets_N, self.ends_B))
        return Forward(self.input_ids.to(device), positions, flat_N, targets_N, ends_B, spread)


def hidden_states(decoder: nn.Module, forward: Forward, places: Tensor) -> Tensor:
    """Run a decoder and return its last hidden states [M, D] at [M] indices into the K * L positions."""
    options: dict[str, object] = {}
    if forward.spread is not None:
        # a 4-d mask is passed on unchanged; attention that uses it instead of the spread fails
        nothing = torch.zeros(1, 1, 0, 0, dtype=torch.bool, device=forward.input_ids.device)
        options = {"attention_mask": nothing, "spread": forward.spread}
    output = decoder(input_ids=forward.input_ids, position_ids=forward.position_ids, use_cache=False, **options)
    # the gradient of indexing adds element by element on a CPU, that of index_select does not
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
    """Implement transformers' attention interface: sdpa, applied block by block if there is a spread.

    With a spread, query, key and value are [1, heads, T, D] and the result is [1, T, heads, D].

    Raises:
        ConfigError: the model's layers do not pass the spread on.
    """
    if spread is None and attention_mask is not None and not attention_mask.numel():
        raise ConfigError(
            "bad-value",
            f"batch.layout must be padded for this model: {type(module).__name__} does not receive row positions.",
        )
    if spread is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    outputs: list[Tensor] = []
    for block in spread.blocks:
        states = _gather(query, block.queries), _gather(key, block.keys), _gather(value, block.keys)
        outputs.append(sdpa_attention_forward(module, *states, block.seen, **options)[0].flatten(0, 1))
    return torch.cat(outputs).index_select(0, spread.place_T)[None], None


def _gather(states: Tensor, places: Tensor) -> Tensor:
    """Gather [K, heads, L, D] from [1, heads, T, D] at [K, L] indices."""
    return states[0].transpose(0, 1).index_select(0, places.flatten()).unflatten(0, places.shape).transpose(1, 2)


def allow_unpadded(model: PreTrainedModel) -> None:
    """Allow passes without padding for a model with sdpa, if it uses transformers' attention interface."""
    if attention_of(model) == "sdpa" and model.is_backend_compatible():
        AttentionInterface.register(UNPADDED, _attend)
        AttentionMaskInterface.register(UNPADDED, sdpa_mask)
        model.set_attn_implementation(UNPADDED)


def takes_unpadded(model: PreTrainedModel, positions: int) -> bool:
    """Return True if the model's attention supports passes without padding, with rows of up to `positions` tokens."""
    return (
        attention_of(model) == UNPADDED and full_attention(model.config, positions) and family_of(model.config).unpads
    )
