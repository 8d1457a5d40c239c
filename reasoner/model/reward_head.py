"""A reward model's head, and the card in its folder. Letters: B rows, K heads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from reasoner.config.sections import PromptSection
from reasoner.model.forward import Forward, hidden_states

REWARD_FILE = "reward.json"


REWARD_HEAD_FILE = "reward_head.safetensors"


BASE_FILE = "base.txt"
"""Fingerprint of the base under a reward adapter."""


def last_token_scores(decoder: nn.Module, head: nn.Module, forward: Forward) -> Tensor:
    """[B, K] of a head on each row's last token, in float32 (float64 for float64 weights), with gradient."""
    ends_BD = hidden_states(decoder, forward, forward.ends_B)
    scores = head(ends_BD)
    return scores if scores.dtype == torch.float64 else scores.float()


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardCard:
    """What `reward.json` says of a reward model."""

    prompt: PromptSection
    """How prompts were rendered in training; scoring renders them alike."""
    mean: float = 0.0
    """Of the rewards of the training completions, averaged over heads."""
    std: float = 1.0

    @classmethod
    def read(cls, folder: str) -> RewardCard:
        """Of a folder; a model without the file renders chats by its template and is not rescaled."""
        file = Path(folder) / REWARD_FILE
        if not file.is_file():
            return cls(prompt=PromptSection())
        row = json.loads(file.read_text())
        return cls(prompt=PromptSection(**row["prompt"]), mean=row["mean"], std=row["std"])

    def write(self, folder: Path) -> None:
        """Beside the model's own files."""
        row = {"prompt": self.prompt.model_dump(mode="json"), "mean": self.mean, "std": self.std}
        (folder / REWARD_FILE).write_text(json.dumps(row, indent=1))
