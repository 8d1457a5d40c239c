"""The policy with reward heads. Letters: B rows, K heads."""

from __future__ import annotations

import copy
import math
import typing
from collections.abc import Container, Iterator
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner import processes
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.objective import TokenScores
from reasoner.config.errors import ConfigError
from reasoner.model.families import reward_architecture
from reasoner.model.forward import Forward
from reasoner.model.logprobs import output_layer
from reasoner.model.lora import fingerprint, plain_name, save_adapter
from reasoner.model.reward_head import BASE_FILE, RewardCard, last_token_scores
from reasoner.model.reward_head import REWARD_HEAD_FILE as HEAD_FILE
from reasoner.model.save import cast, config_in
from reasoner.model.sharding import whole_state
from reasoner.policy.policy import Policy
from reasoner.seeds import request_seed


class RewardScorer(nn.Module):
    """The model as a module that maps a forward layout to K rewards per row."""

    def __init__(self, model: PreTrainedModel, head: nn.Linear) -> None:
        super().__init__()
        self.model = model
        self.head = head

    def forward(self, forward: Forward, temperature: float) -> TokenScores:
        rewards_BK = last_token_scores(typing.cast("nn.Module", self.model.get_decoder()), self.head, forward)
        nothing = rewards_BK.new_zeros(0)
        return TokenScores(nothing, nothing, rewards_BK)


class RewardPolicy(Policy):
    """A policy whose model has reward heads instead of generating text."""

    unit: ClassVar[int] = 2
    reads_last_token: ClassVar[bool] = True
    reads_base: ClassVar[bool] = True
    card: RewardCard

    def _make_scorer(self, checkpoint: Path | None) -> nn.Module:
        self.card = RewardCard(prompt=self.config.prompt)
        self.head = scalar_head(self.model.config.hidden_size, self.config.reward_model.heads, seed=self.config.seed)
        if checkpoint is not None:
            self.head.load_state_dict(load_file(checkpoint / HEAD_FILE))
        if not self.model.config.tie_word_embeddings:
            output = output_layer(self.model)
            output.requires_grad_(False)  # not used by a reward model
        self._base = fingerprint(self.model) if self.adapter is not None else ""
        return RewardScorer(self.model, self.head)

    @torch.no_grad()
    def rewards(self, batch: Batch) -> Tensor:
        """Return the [B, K] float64 rewards of a batch's rows."""
        found = torch.zeros(len(batch), self.config.reward_model.heads, dtype=torch.float64)
        for rows in self.planner().passes(batch):
            scores = self.trainer_logprobs(batch.select(rows)).rewards_BK
            assert scores is not None
            found[torch.tensor(rows)] = scores.double().cpu()
        return found

    def save(self, folder: Path) -> None:
        """Write a sequence-classification folder. With an adapter, also write the adapter and the head separately.

        The main process writes it alone, also if sharded.
        """
        if not processes.is_main():
            return
        folder.mkdir(parents=True, exist_ok=True)
        config = config_in(self.unwrapped().config, self.saved_dtype)
        architecture = reward_architecture(config)
        if architecture is None:
            raise ConfigError(
                "bad-value",
                f"{type(config).__name__} has no sequence-classification model in transformers, and a reward model is"
                " saved as one. Use another base model.",
            )
        config.architectures = [architecture]
        config.num_labels = self.config.reward_model.heads
        tokenizer = padded_apart(self.tokenizer, self.end_ids)
        config.get_text_config().pad_token_id = config.pad_token_id = tokenizer.pad_token_id
        weights = {name: t for name, t in self._written("model").items() if not name.startswith("lm_head")}
        weights["score.weight"] = self._written("head")["weight"]
        weights = {name: t.cpu().contiguous() for name, t in cast(weights, self.saved_dtype).items()}
        with_row_for(typing.cast("int", tokenizer.pad_token_id), self._embedding(), weights, config)
        config.save_pretrained(folder)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save_pretrained(folder)
        self.card.write(folder)
        if self.adapter is not None:
            save_adapter(self.adapter, self._written("adapter"), folder / "adapter")
            save_file(self._written("head"), folder / "adapter" / HEAD_FILE)
            (folder / "adapter" / BASE_FILE).write_text(self._base + "\n")

    def _embedding(self) -> str:
        """Return the name of the input embedding among the plain weights."""
        model = self.unwrapped()
        held = model.get_input_embeddings().get_parameter("weight")
        return next(plain_name(name) for name, one in model.named_parameters() if one is held)

    def save_trained(self, checkpoint: Path) -> None:
        if self.adapter is None:
            self._save_master(checkpoint / "model")
        if not processes.is_main():
            return
        if self.adapter is not None:
            save_adapter(self.adapter, self._written("adapter"), checkpoint / "adapter")
        save_file({name: t.cpu() for name, t in self._written("head").items()}, checkpoint / HEAD_FILE)

    def _dealt_out(self, part: str, *, trained: bool) -> bool:
        return trained and super()._dealt_out(part, trained=trained)

    def _saved_parts(self) -> list[str]:
        return ["model", "head", *(["adapter"] if self.adapter is not None else [])]

    def _trained_parts(self) -> list[str]:
        return [*super()._trained_parts(), "head"]

    def _weights(self, part: str) -> Iterator[tuple[str, Tensor]]:
        if part == "head":
            return whole_state(self.head)
        return super()._weights(part)


PAD = "<|pad|>"
"""Padding token added to a tokenizer that has no suitable special token."""


def padded_apart(tokenizer: PreTrainedTokenizerBase, ends: Container[int]) -> PreTrainedTokenizerBase:
    """Return a tokenizer whose padding token is not one of the end tokens.

    transformers reads the reward at the last token that is not padding. If padding were an end token, it would read one
    token too early. Another special token becomes the padding token, or a new one if there is none.
    """
    candidates = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, *tokenizer.all_special_ids]
    free = next((token for token in candidates if token is not None and token not in ends), None)
    if free is not None and free == tokenizer.pad_token_id:
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    if free is None:
        tokenizer.add_special_tokens({"pad_token": PAD})
    else:
        tokenizer.pad_token = typing.cast("str", tokenizer.convert_ids_to_tokens(free))
    return tokenizer


def with_row_for(token: int, name: str, weights: dict[str, Tensor], config: PreTrainedConfig) -> None:
    """Extend the embedding `name` with rows of zeros, in weights and config, if it has no row for a token."""
    held = weights[name]
    if token >= len(held):
        weights[name] = torch.cat([held, held.new_zeros(token + 1 - len(held), held.shape[1])])
        config.get_text_config().vocab_size = token + 1


def scalar_head(hidden_size: int, heads: int, *, seed: int) -> nn.Linear:
    """Build linear heads without bias, normal with std 1 / sqrt(hidden + 1) as in Stiennon et al., arXiv:2009.01325."""
    generator = torch.Generator().manual_seed(request_seed(seed, "reward head"))
    head = nn.Linear(hidden_size, heads, bias=False)
    with torch.no_grad():
        head.weight.normal_(std=1 / math.sqrt(hidden_size + 1), generator=generator)
    return head
