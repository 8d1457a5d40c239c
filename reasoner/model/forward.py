"""How rows lie in a forward pass: end to end in packs, side by side, or without any padding.

None of it changes a number. Letters: B rows, N completion tokens, K lines of a forward pass, L tokens of a line. A pass
without padding has one line of T tokens; its blocks have K stretches of at most L tokens, behind prompts of at most S.
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
"""The name of an attention that does what transformers' sdpa does, and takes a `Spread`."""


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
    output = decoder(input_ids=forward.input_ids, position_ids=forward.position_ids, use_cache=False, **options)
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


def allow_unpadded(model: PreTrainedModel) -> None:
    """Let a model with sdpa take passes without padding as well, where its attention is transformers' interface."""
    if attention_of(model) == "sdpa" and model.is_backend_compatible():
        AttentionInterface.register(UNPADDED, _attend)
        AttentionMaskInterface.register(UNPADDED, sdpa_mask)
        model.set_attn_implementation(UNPADDED)


def takes_unpadded(model: PreTrainedModel, positions: int) -> bool:
    """Whether the attention of a model takes passes without padding, of rows of up to so many positions."""
    return (
        attention_of(model) == UNPADDED and full_attention(model.config, positions) and family_of(model.config).unpads
    )
