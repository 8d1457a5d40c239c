"""The policy's base model, shared with reward models that are adapters on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from transformers.modeling_utils import PreTrainedModel

from reasoner.model.lora import fingerprint

if TYPE_CHECKING:
    from peft import PeftModel


class LentBase(NamedTuple):
    """A policy's frozen base, on which reward models trained on the same base are adapters."""

    adapter: PeftModel
    model: PreTrainedModel
    device: torch.device


_LENT: dict[str, LentBase] = {}
"""By fingerprint of the base; of the policy that this process trains."""


def lend_base(adapter: PeftModel, model: PreTrainedModel, device: torch.device) -> None:
    """Let reward models of this process live on a policy's base; the last one to lend counts."""
    _LENT.clear()
    _LENT[fingerprint(model)] = LentBase(adapter, model, device)
