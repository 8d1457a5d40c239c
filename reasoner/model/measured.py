"""Measurement of models whose family is not in `families.py`, against transformers' own forward pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from reasoner.config.errors import ConfigError
from reasoner.config.tolerances import TOLERANCES
from reasoner.model.families import family_of, is_known
from reasoner.model.forward import Block, Forward, Spread, hidden_states
from reasoner.model.internals import attention_of
from reasoner.model.logprobs import logprobs_and_entropy, output_layer

LENGTH = 9
"""Number of tokens in each of the two rows."""
SHARE = 0.02
"""Tolerance besides the dtype's rounding, as a share of the standard deviation of the plain log-probabilities."""


class Measured(NamedTuple):
    """Comparison of the log-probabilities of two short random rows in one layout with transformers' own, row by row."""

    gap: float
    """Largest absolute difference in nats."""
    allowed: float

    @property
    def agrees(self) -> bool:
        """True if the difference is within the tolerance."""
        return self.gap <= self.allowed


def measure(model: PreTrainedModel, layout: str) -> Measured:
    """Compare one layout with transformers' own forward pass.

    Args:
        model: on any device. Flash attention, which runs only on a GPU, is replaced by eager attention meanwhile.
        layout: padded, packed or unpadded.
    """
    attention = attention_of(model)
    if attention == "flash_attention_2":
        model.set_attn_implementation("eager")
        try:
            return measure(model, layout)
        finally:
            model.set_attn_implementation(attention)
    generator = torch.Generator().manual_seed(0)
    ids_BL = torch.randint(0, model.config.vocab_size, (2, LENGTH), generator=generator).to(model.device)
    targets_N = ids_BL[:, 1:].flatten()
    with torch.no_grad():
        logits = torch.cat([model(input_ids=ids[None], use_cache=False).logits[0, :-1] for ids in ids_BL])
        plain_N = logits.float().log_softmax(-1).gather(1, targets_N[:, None])[:, 0]
        forward = _forward(ids_BL, targets_N, layout)
        try:
            hidden_ND = hidden_states(model.get_decoder(), forward, forward.flat_positions_N)
        except ConfigError:  # this attention does not get the position of the rows
            return Measured(float("inf"), 0.0)
        found = logprobs_and_entropy(hidden_ND, output_layer(model), targets_N, temperature=1.0, config=model.config)
    rounding = TOLERANCES[str(model.dtype).removeprefix("torch.")].probe
    return Measured((found.logprobs_N - plain_N).abs().max().item(), rounding + SHARE * plain_N.std().item())


def packs(model: PreTrainedModel) -> bool:
    """Return True if the model can run packed rows without mixing them: from the table, or measured."""
    return family_of(model.config).packs if is_known(model.config) else measure(model, "packed").agrees


def _forward(ids_BL: Tensor, targets_N: Tensor, layout: str) -> Forward:
    at_BL = torch.arange(ids_BL.numel(), device=ids_BL.device).view_as(ids_BL)
    flat = at_BL[:, :-1].flatten(), targets_N, at_BL[:, -1]
    if layout == "padded":
        return Forward(ids_BL, None, *flat)
    positions = at_BL[0].repeat(len(ids_BL))
    spread = Spread((Block(at_BL, at_BL, None),), at_BL.flatten()) if layout == "unpadded" else None
    return Forward(ids_BL.view(1, -1), positions[None], *flat, spread)
