"""A policy's frozen base model, shared with reward models that are adapters on the same base."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from transformers.modeling_utils import PreTrainedModel

from reasoner.model.lora import fingerprint

if TYPE_CHECKING:
    from peft import PeftModel


class SharedBase(NamedTuple):
    """The policy's base and adapter, passed to verifiers of the grading pool as their `context`."""

    adapter: PeftModel
    model: PreTrainedModel
    device: torch.device
    digest: str
    """Fingerprint of the base. A reward adapter trained on another base loads a model of its own."""

    @classmethod
    def of(cls, adapter: PeftModel, model: PreTrainedModel, device: torch.device) -> SharedBase:
        """Build from a policy with an adapter."""
        return cls(adapter, model, device, fingerprint(model))
