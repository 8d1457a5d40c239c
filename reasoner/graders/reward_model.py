"""Loading of reward models, scoring, and the verifier `reward-model`. Letters: B rows, K heads, M models."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForSequenceClassification
from transformers.modeling_utils import PreTrainedModel

from reasoner.data.encode import batch_of, encode
from reasoner.data.rows import Encoded
from reasoner.model.load import compute_dtype, default_device, first_line, load_tokenizer, move, own_code
from reasoner.model.lora import exclusive, using_adapter
from reasoner.model.paths import ModelError, check_model
from reasoner.model.reward_head import BASE_FILE, REWARD_HEAD_FILE, RewardCard, last_token_scores
from reasoner.model.shared_base import SharedBase
from reasoner.policy.layout import padded
from tasks import Message, UnusableRow
from verifiers import GradingRow, Outcome, Verdict, Verifier
from verifiers.verdict import fixed


class RewardModel:
    """A loaded reward model, trained here or any other model with a `score` head.

    On an accelerator it stays in host memory between uses, because PPO's policy needs the space. If it was trained as
    an adapter on the policy's own base, it is loaded as a second adapter there.
    """

    def __init__(
        self, path: str, *, dtype: str = "auto", batch_tokens: int = 16384, shared: SharedBase | None = None
    ) -> None:
        """Load the model.

        `shared` is the base of the policy trained in this process; it is used if the model is an adapter on that base.

        Raises:
            ModelError: the model cannot be loaded, or has no `score` head.
        """
        self.path = path
        self.device = default_device()
        self.card = RewardCard.read(path)
        self.batch_tokens = batch_tokens
        written = Path(path) / "adapter" / BASE_FILE
        fits = shared is not None and written.is_file() and written.read_text().strip() == shared.digest
        self.shared = shared if fits else None
        if self.shared is not None:
            self._join(self.shared)
        else:
            self._load(dtype)
        self.tokenizer = load_tokenizer(path)
        self.limit = int(getattr(self.model.config, "max_position_embeddings", None) or 1 << 20)

    def _join(self, shared: SharedBase) -> None:
        """Load the reward adapter next to the policy's."""
        folder = Path(self.path) / "adapter"
        self.name = f"reward-{hashlib.blake2b(self.path.encode(), digest_size=4).hexdigest()}"
        with exclusive(shared.model):
            if self.name not in shared.adapter.peft_config:
                shared.adapter.load_adapter(str(folder), adapter_name=self.name, is_trainable=False)
        weight = load_file(folder / REWARD_HEAD_FILE)["weight"]
        self.head: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.head.load_state_dict({"weight": weight})
        self.head.to(shared.device)
        self.model, self.device = shared.model, shared.device

    def _load(self, dtype: str) -> None:
        path = self.path
        try:
            model, loaded = AutoModelForSequenceClassification.from_pretrained(
                path, dtype=compute_dtype(dtype, self.device), trust_remote_code=False, output_loading_info=True
            )
        except (OSError, ValueError, ImportError, SafetensorError) as error:
            raise ModelError(
                f"reward model {path!r} must be a Hugging Face sequence-classification model, by hub name or folder:"
                f" {own_code(error) or first_line(error)} Train one with method: reward_model, or check the name."
            ) from error
        if not hasattr(model, "score"):
            raise ModelError(f"reward model {path!r} must have a `score` head; {type(model).__name__} has none.")
        if any(name.startswith("score.") for name in loaded["missing_keys"]):
            raise ModelError(
                f"reward model {path!r} must have a trained `score` head; its weights have none: it generates text."
                " Train a reward model with method: reward_model, or check the name."
            )
        self.model: PreTrainedModel = model.eval().requires_grad_(False)
        self.head = self.model.get_submodule("score")

    def score(self, rows: Sequence[Encoded]) -> list[list[float]]:
        """Return K rewards per row, in order, rescaled to mean 0 and std 1 over the training completions."""
        mean, std = self.card.mean, self.card.std
        return [[(value - mean) / std for value in values_K] for values_K in self.outputs(rows)]

    @torch.no_grad()
    def outputs(
        self, rows: Sequence[Encoded], *, on_progress: Callable[[int], object] = lambda done: None
    ) -> list[list[float]]:
        """Return the K outputs of the heads per row, in order, as the model gives them.

        `on_progress` is called with the number of rows of each forward pass.

        On the CPU each row is run in its own forward pass, so that no bit of its reward depends on which rows were
        queued with it: a resumed run reproduces the rewards.
        """
        if not rows:
            return []
        if self.shared is None:
            move(self.model, self.device)
        switched = using_adapter(self.shared.adapter, self.name) if self.shared else nullcontext()
        with exclusive(self.model), switched:
            batch = batch_of(rows)
            scores_BK = [[0.0]] * len(rows)
            decoder = self.model.get_submodule(self.model.base_model_prefix)
            for chosen in batch.micro_rows(1 if self.device.type == "cpu" else self.batch_tokens):
                forward = padded(batch.select(chosen)).to(self.device)
                found = last_token_scores(decoder, self.head, forward)
                for row, scores in zip(chosen, found.double().cpu().tolist(), strict=True):
                    scores_BK[row] = scores
                on_progress(len(chosen))
        if self.shared is None and self.device.type != "cpu":
            move(self.model, "cpu")
        return scores_BK


class Spread(NamedTuple):
    """Mean and disagreement of an ensemble's rewards for one completion."""

    mean: float
    std: float
    """Population standard deviation over heads and models."""


def spread(rewards_K: Sequence[float]) -> Spread:
    """Return the mean and the population standard deviation of rewards.

    Example:
        >>> spread([1.0, 3.0])
        Spread(mean=2.0, std=1.0)
    """
    mean = sum(rewards_K) / len(rewards_K)
    return Spread(mean, (sum((reward - mean) ** 2 for reward in rewards_K) / len(rewards_K)) ** 0.5)


class RewardModelVerifier(Verifier):
    """Verifier that scores completions with one or several reward models in the trainer's own process.

    Args:
        model: a folder or hub name, or a list of them (an ensemble).
        disagreement: the reward is mean - disagreement * std over all heads and models (Coste et al.,
            arXiv:2310.02743, their "uncertainty-weighted" objective, with std instead of variance).
        batch_tokens: tokens of one forward pass, including padding.
        dtype: dtype of the weights; auto is bfloat16 on CUDA and float32 on the CPU.
    Raises:
        ValueError: disagreement is negative.
        ModelError: a path leads to no model.
    """

    name = "reward-model"
    in_process = True
    learned = True
    machine_options = frozenset({"model", "batch_tokens", "dtype"})
    reference_schema = {}

    def __init__(
        self,
        *,
        model: str | list[str],
        disagreement: float = 0.0,
        batch_tokens: int = 16384,
        dtype: str = "auto",
    ) -> None:
        if disagreement < 0:
            raise ValueError(f"disagreement must be >= 0; got {disagreement}.")
        self.paths = [model] if isinstance(model, str) else list(model)
        for path in self.paths:
            check_model(path, "a reward model")
        self.disagreement = disagreement
        self._dtype, self._batch_tokens = dtype, batch_tokens
        self._models: list[RewardModel] = []

    @property
    def models(self) -> list[RewardModel]:
        """The reward models, loaded at first use."""
        if not self._models:
            shared = self.context if isinstance(self.context, SharedBase) else None
            self._models = [
                RewardModel(path, dtype=self._dtype, batch_tokens=self._batch_tokens, shared=shared)
                for path in self.paths
            ]
        return self._models

    def grade(self, row: GradingRow) -> Verdict:
        return self.grade_batch([row])[0]

    def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        """Grade rows in batches. A row over a model's context is not graded: cutting it would change its text."""
        rewards_BK: list[list[float]] = [[] for _ in rows]
        faults: dict[int, str] = {}
        for model in self.models:
            encoded: dict[int, Encoded] = {}
            for place, row in enumerate(rows):
                try:
                    encoded[place] = encode(
                        prompt_of(row), row.completion, model.tokenizer, model.card.prompt, name=str(place)
                    )
                except UnusableRow as error:
                    faults[place] = f"{model.path}: {error}"
                    continue
                if len(encoded[place]) > model.limit:
                    tokens = len(encoded[place])
                    faults[place] = f"{tokens} tokens exceed the context of {model.limit} tokens of {model.path}"
            kept = [place for place in range(len(rows)) if place not in faults]
            for place, rewards in zip(kept, model.score([encoded[place] for place in kept]), strict=True):
                rewards_BK[place] += rewards
        return [
            fixed(Outcome.VERIFIER_ERROR, faults[place]) if place in faults else self._verdict(rewards)
            for place, rewards in enumerate(rewards_BK)
        ]

    def _verdict(self, rewards_K: Sequence[float]) -> Verdict:
        mean, std = spread(rewards_K)
        reward = mean - self.disagreement * std
        return Verdict(
            outcome=Outcome.SCORED,
            reward=reward,
            detail={"reason": f"reward {reward:.4g}", "mean": mean, "disagreement": std},
        )


def prompt_of(row: GradingRow) -> str | tuple[Message, ...]:
    """Return the row's prompt: the chat that the trainer attached, else its text."""
    messages = row.info.get("messages")
    if isinstance(messages, list):
        return tuple(cast("list[Message]", messages))
    return row.prompt or ""
