"""A policy with a value model, for PPO's estimator. Letters: B rows, N completion tokens, D hidden.

A token's value is the expected reward from that token on, read at the position that predicts the token. The value model
is a head on the policy's trunk (one forward pass for both), or a separate model, or, with LoRA, a second adapter on
the policy's base, so that both share one set of frozen weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, cast

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from reasoner import processes
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.loss import LossTerms, explained_variance, token_means, value_loss
from reasoner.algorithm.objective import Objective, TokenScores
from reasoner.model.forward import Forward, hidden_states
from reasoner.model.logprobs import logprobs_and_entropy, output_layer
from reasoner.model.lora import (
    adapter_weights,
    another_adapter,
    is_adapter,
    load_adapter,
    plain_weights,
    save_adapter,
    using_adapter,
)
from reasoner.model.reward_head import RewardCard
from reasoner.model.sharding import whole_state
from reasoner.policy.optimizer import make_optimizer, parameter_groups
from reasoner.policy.policy import Policy, TokenScorer, TrainingError

ADAPTER = "value"
HEAD_FILE = "value_head.safetensors"


class ActorCriticScorer(TokenScorer):
    """Module that returns log-probabilities and values, in one pass over a shared trunk or in two."""

    def __init__(
        self,
        model: PreTrainedModel,
        head: nn.Linear,
        *,
        trunk: PreTrainedModel | None,
        logit_bytes: int,
        entropy_gradient: bool,
    ) -> None:
        super().__init__(model, logit_bytes=logit_bytes, entropy_gradient=entropy_gradient)
        self.head = head
        self.trunk = trunk
        """Separate model of the value; None: the policy's model."""

    def forward(self, forward: Forward, temperature: float, part: str = "logprobs") -> TokenScores:
        """Run the requested part: logprobs, values, both (in one pass), or head (values, gradient only in the head).

        Tensors that were not requested are empty (or None for values).
        """
        model = self.trunk if part == "values" and self.trunk is not None else self.model
        with torch.set_grad_enabled(torch.is_grad_enabled() and part != "head"):
            hidden_ND = hidden_states(model.get_decoder(), forward, forward.flat_positions_N)
        values_N = None if part == "logprobs" else self.values(hidden_ND)
        if part in ("values", "head"):
            nothing = hidden_ND.new_zeros(0)
            return TokenScores(nothing, nothing, values_N=values_N)
        found = logprobs_and_entropy(
            hidden_ND,
            output_layer(self.model),
            forward.targets_N,
            temperature=temperature,
            max_bytes=self.logit_bytes,
            entropy_gradient=self.entropy_gradient,
            config=self.model.config,
        )
        return TokenScores(*found, values_N=values_N)

    def values(self, hidden_ND: Tensor) -> Tensor:
        """Return [N] values of the head, in float32 (float64 for float64 weights)."""
        values_N = self.head(hidden_ND)[:, 0]
        return values_N if values_N.dtype == torch.float64 else values_N.float()


class ActorCritic(Policy):
    """A policy and its value model with one common optimizer."""

    passes_leave_out: ClassVar[bool] = True
    scorer: ActorCriticScorer

    @property
    def shared(self) -> bool:
        """True if the value is a head on the policy's own hidden states."""
        return self.config.value.trunk == "shared"

    def _make_scorer(self, checkpoint: Path | None) -> nn.Module:
        section, trunk = self.config.value, None
        head = nn.Linear(self.model.config.hidden_size, 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        if not self.shared and self.adapter is not None:
            another_adapter(self.adapter, ADAPTER, seed=self.config.seed)
            start = Path(section.init) / "adapter" if section.init else None
            folder = checkpoint / ADAPTER if checkpoint else start
            if folder is not None:
                load_adapter(self.adapter, folder, name=ADAPTER)
        elif not self.shared:
            path = str(checkpoint / "value") if checkpoint else section.init
            changed = {"path": path, "from_scratch": None, "tokenizer": None} if path else {}
            trunk = self._load(self.config.model.model_copy(update=changed), torch.float32).model
            output_layer(trunk).requires_grad_(trunk.config.tie_word_embeddings)
        if checkpoint is not None:
            head.load_state_dict(load_file(checkpoint / HEAD_FILE))
        elif section.init and not self.shared:
            _head_of_reward_model(head, Path(section.init))
        return ActorCriticScorer(
            self.model,
            head,
            trunk=trunk,
            logit_bytes=self.config.batch.logit_bytes(self.device.type),
            entropy_gradient=self.config.algorithm.entropy_coef > 0,
        )

    def _make_optimizer(self, scorer: nn.Module) -> torch.optim.Optimizer:
        groups = [*parameter_groups(nn.ParameterList(self._policy_parameters()), self.config)]
        own = nn.ParameterList(self._value_parameters(scorer))
        groups += parameter_groups(own, self.config, lr=self.config.value.lr)
        return make_optimizer(groups, self.config, self.device)

    def _policy_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.model.named_parameters() if p.requires_grad and not is_adapter(name, ADAPTER)]

    def _value_parameters(self, scorer: nn.Module) -> list[nn.Parameter]:
        policy = {id(p) for p in self._policy_parameters()}
        return [p for p in scorer.parameters() if p.requires_grad and id(p) not in policy]

    def _valuing(self) -> AbstractContextManager[object]:
        """Return a context in which the value's adapter is active, if there is one."""
        return nullcontext() if self.shared or self.adapter is None else using_adapter(self.adapter, ADAPTER)

    def annotate(self, batch: Batch, needs: frozenset[str]) -> Batch:
        """Annotate as every policy, and add `values`; a shared trunk gives both kinds of scores in one pass."""
        if "values" in needs and self.shared and "old_logprobs" in needs:
            values_N, logprobs_N = self._read(batch, lambda micro: _tokens(self._pass(micro, "both")))
            batch = replace(batch, values_N=values_N, old_logprobs_N=logprobs_N)
            needs -= {"old_logprobs"}
        elif "values" in needs:
            with self._valuing():
                values_N = self._read(batch, lambda micro: _tokens(self._pass(micro, "values"))[:1])[0]
            batch = replace(batch, values_N=values_N)
        return super().annotate(batch, needs)

    def _pass(self, micro: Batch, part: str) -> TokenScores:
        with self.accelerator.autocast():
            return cast("TokenScores", self.scorer(self.layout(micro), self.temperature, part))

    def _losses(self, micro: Batch, objective: Objective | None) -> Iterator[LossTerms]:
        """Yield the losses of policy and value, or their sum with a shared trunk. No objective: only the value's."""
        here = micro.to(self.device)
        if micro.returns_N is None:
            if objective is None:
                raise TrainingError(
                    "a value model needs returns_N to learn from; got None. Use algorithm.advantage: gae."
                )
            yield objective(self._pass(micro, "logprobs"), here)
            return
        if self.shared and objective is not None:
            scores = self._pass(micro, "both")
            assert scores.values_N is not None
            policy, value = objective(scores, here), self._value_terms(scores.values_N, here, counted=False)
            yield LossTerms(policy.loss + value.loss, {**policy.metrics, **value.metrics})
            return
        if objective is not None:
            yield objective(self._pass(micro, "logprobs"), here)
        with self._valuing():
            # during warm-up the policy must not change, even if it shares its trunk
            values_N = self._pass(micro, "head" if self.shared else "values").values_N
            assert values_N is not None
            yield self._value_terms(values_N, here, counted=objective is None)

    def _value_terms(self, values_N: Tensor, micro: Batch, *, counted: bool) -> LossTerms:
        """Return the value's loss. `counted`: include the token count in its metrics, normally part of the policy's."""
        section = self.config.value
        terms = value_loss(values_N, micro, clip_range=section.clip_range)
        dropped = set() if counted else {"tokens"}
        return LossTerms(section.coef * terms.loss, {k: v for k, v in terms.metrics.items() if k not in dropped})

    def _clip_gradients(self, metrics: dict[str, float]) -> float:
        """Clip policy and value separately to optim.max_grad_norm, so that neither shrinks the other's step.

        With a shared trunk, clip them together.
        """
        if self.shared:
            return super()._clip_gradients(metrics)
        most = self.config.optim.max_grad_norm
        own = self._value_parameters(self._unwrapped_scorer())
        norm = self.accelerator.clip_grad_norm_(own, most)
        metrics["value/grad_norm_max"] = float(norm) if norm is not None else float("nan")
        norm = self.accelerator.clip_grad_norm_(self._policy_parameters(), most)
        return float(norm) if norm is not None else float("nan")

    def save_trained(self, checkpoint: Path) -> None:
        super().save_trained(checkpoint)
        trunk = self._unwrapped_scorer().trunk
        if trunk is not None:
            self._write("trunk", trunk, checkpoint / "value", trunk.dtype)
        if not processes.is_main():
            return
        save_file({name: t.cpu() for name, t in self._written("head").items()}, checkpoint / HEAD_FILE)
        if trunk is None and not self.shared and self.adapter is not None:
            save_adapter(self.adapter, self._written(ADAPTER), checkpoint / ADAPTER, name=ADAPTER)

    def _trained_parts(self) -> list[str]:
        own = [] if self.shared else ["trunk" if self.adapter is None else ADAPTER]
        return [*super()._trained_parts(), "head", *own]

    def _weights(self, part: str) -> Iterator[tuple[str, Tensor]]:
        scorer = self._unwrapped_scorer()
        if part == "head":
            return whole_state(scorer.head)
        if part == "trunk" and scorer.trunk is not None:
            return plain_weights(scorer.trunk)
        if part == ADAPTER and self.adapter is not None:
            return adapter_weights(self.adapter, name=ADAPTER)
        return super()._weights(part)

    def _unwrapped_scorer(self) -> ActorCriticScorer:
        return cast("ActorCriticScorer", self.accelerator.unwrap_model(self.scorer))


def _tokens(scores: TokenScores) -> tuple[Tensor, Tensor]:
    assert scores.values_N is not None
    return scores.values_N, scores.logprobs_N


def _head_of_reward_model(head: nn.Linear, folder: Path) -> None:
    """Initialize a value head as the mean of a reward model's heads, rescaled; does nothing for other models."""
    file = folder / "model.safetensors"
    if not file.is_file():
        return
    with safe_open(file, framework="pt") as tensors:
        if "score.weight" not in tensors.keys():  # noqa: SIM118  (safe_open is no mapping)
            return
        weight_KD = tensors.get_tensor("score.weight").float()
    card = RewardCard.read(str(folder))
    with torch.no_grad():
        head.weight.copy_(weight_KD.mean(0, keepdim=True) / card.std)
        head.bias.fill_(-card.mean / card.std)


def value_metrics(batch: Batch) -> dict[str, float]:
    """Return value/explained_variance of the values before the step, and the means of these values and the returns."""
    if batch.returns_N is None or batch.values_N is None:
        return {}
    metrics = token_means({k: float(v) for k, v in value_loss(batch.values_N, batch).metrics.items()})
    return {
        "value/explained_variance": explained_variance(metrics),
        "value/before": metrics["value/mean"],
        "value/returns": metrics["value/return"],
    }
