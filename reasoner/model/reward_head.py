"""Head of a reward model, and the card in its folder. Letters: B rows, K heads."""

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
"""File with the fingerprint of the base model under a reward adapter."""


def last_token_scores(decoder: nn.Module, head: nn.Module, forward: Forward) -> Tensor:
    """Return [B, K] outputs of a head at each row's last token, in float32 (float64 for float64 weights)."""
    ends_BD = hidden_states(decoder, forward, forward.ends_B)
    scores = head(ends_BD)
    return scores if scores.dtype == torch.float64 else scores.float()


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardCard:
    """Contents of `reward.json` in the folder of a reward model."""

    prompt: PromptSection
    """Prompt format of training; scoring uses the same."""
    mean: float = 0.0
    """Mean reward of the training completions, averaged over heads. Rescaled rewards are (reward - mean) / std."""
    std: float = 1.0

    @classmethod
    def read(cls, folder: str) -> RewardCard:
        """Read a folder's card. A model without one renders chats with its template and is not rescaled."""
        file = Path(folder) / REWARD_FILE
        if not file.is_file():
            return cls(prompt=PromptSection())
        row = json.loads(file.read_text())
        return cls(prompt=PromptSection(**row["prompt"]), mean=row["mean"], std=row["std"])

    def write(self, folder: Path) -> None:
        """Write the card next to the model's files."""
        row = {"prompt": self.prompt.model_dump(mode="json"), "mean": self.mean, "std": self.std}
        (folder / REWARD_FILE).write_text(json.dumps(row, indent=1))
