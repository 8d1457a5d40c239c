"""A policy whose next-token distributions are compared with a teacher's.

Letters: N completion tokens, D and E hidden sizes of policy and teacher, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed
from transformers.modeling_utils import PreTrainedModel

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.distillation import generalized_jsd
from reasoner.algorithm.objective import TokenScores
from reasoner.config.errors import ConfigError
from reasoner.model.families import logit_transform
from reasoner.model.forward import Forward, hidden_states
from reasoner.model.logprobs import head_logits, output_layer
from reasoner.model.sharding import shards
from reasoner.policy.policy import Policy, TokenScorer

Divergence = Callable[[Tensor, Tensor], Tensor]
"""([N, V] log-probabilities of the student, those of the teacher) -> [N]."""


def divergences(
    hidden_ND: Tensor,
    student: PreTrainedModel,
    teacher_NE: Tensor,
    teacher: PreTrainedModel,
    *,
    divergence: Divergence,
    temperature: float,
    max_bytes: int,
) -> tuple[Tensor, Tensor]:
    """Compute the divergence at each position, and the student's entropy, without the logits of all positions.

    Both distributions are over the ids that both models have, so that padded vocabularies of different size compare.
    Logits are computed in parts, and again in the backward pass; of both models they take at most `max_bytes` in
    float32, and temporary tensors a few times as much.

    Args:
        hidden_ND: [N, D] last hidden states of the student, with gradient.
        student: its output layer is used.
        teacher_NE: [N, E] those of the teacher.
        teacher: its output layer is used.
        divergence: of log-probabilities.
        temperature: logits of both are divided by it.
        max_bytes: see above.
    Returns:
        [N] divergences with gradient, and [N] entropies without.
    """
    heads = [(output_layer(model), logit_transform(model.config)) for model in (student, teacher)]
    common = min(head.get_parameter("weight").shape[0] for head, _ in heads)

    def log_probabilities(hidden: Tensor, which: int) -> Tensor:
        head, transform = heads[which]
        return torch.log_softmax(head_logits(hidden, head, transform)[:, :common] / temperature, dim=-1)

    def one_part(hidden: Tensor, beside: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            taught = log_probabilities(beside, 1)
        own = log_probabilities(hidden, 0)
        entropy = -(own.detach().exp() * own.detach()).sum(-1)
        return divergence(own, taught), entropy

    rows = max(1, max_bytes // (2 * 4 * common))
    found = [
        recomputed(one_part, *part, use_reentrant=False, preserve_rng_state=False)
        if torch.is_grad_enabled()
        else one_part(*part)
        for part in zip(hidden_ND.split(rows), teacher_NE.split(rows), strict=True)
    ]
    return torch.cat([one[0] for one in found]), torch.cat([one[1] for one in found])


class DistillationScorer(TokenScorer):
    """Module that returns log-probabilities, or the divergence from a teacher's distributions."""

    def __init__(
        self, model: PreTrainedModel, teacher: PreTrainedModel, *, divergence: Divergence, logit_bytes: int
    ) -> None:
        super().__init__(model, logit_bytes=logit_bytes)
        self.divergence = divergence
        self._teacher = (teacher,)  # in a tuple it is no submodule: not trained, not wrapped, not saved

    def forward(self, forward: Forward, temperature: float, part: str = "logprobs") -> TokenScores:
        """Run the requested part: logprobs, or divergence (with entropies; its log-probabilities are empty)."""
        if part == "logprobs":
            return super().forward(forward, temperature)
        (teacher,) = self._teacher
        hidden_ND = hidden_states(self.model.get_decoder(), forward, forward.flat_positions_N)
        with torch.no_grad():
            known = teacher.get_input_embeddings().get_parameter("weight").shape[0]
            read = forward._replace(input_ids=forward.input_ids.clamp(max=known - 1))
            teacher_NE = hidden_states(teacher.get_decoder(), read, forward.flat_positions_N)
        divergence_N, entropy_N = divergences(
            hidden_ND,
            self.model,
            teacher_NE,
            teacher,
            divergence=self.divergence,
            temperature=temperature,
            max_bytes=self.logit_bytes,
        )
        return TokenScores(entropy_N.new_zeros(0), entropy_N, divergence_N=divergence_N)


class DistillationPolicy(Policy):
    """A policy trained towards the distributions of a teacher, which is loaded beside it."""

    def _make_scorer(self, checkpoint: Path | None) -> nn.Module:
        if shards(self.accelerator):
            raise ConfigError(
                "bad-value",
                f"method {self.config.method} does not run on sharded models (FSDP2), since it reads the output layers"
                " of policy and teacher together. Use data-parallel processes, or method distill, which does.",
            )
        self._teacher = self._load_teacher()
        self._teacher.to(self.device)
        beta = self.config.gkd.beta
        return DistillationScorer(
            self.model,
            self._teacher.model,
            divergence=lambda student_NV, teacher_NV: generalized_jsd(student_NV, teacher_NV, beta=beta),
            logit_bytes=self.config.batch.logit_bytes(self.device.type),
        )

    def trainer_logprobs(self, micro: Batch) -> TokenScores:
        """Return divergences (with gradient) and entropies of a micro-batch's completion tokens."""
        with self.accelerator.autocast():
            return self.scorer(self.layout(micro), self.temperature, "divergence")

    def divergences(self, batch: Batch) -> Tensor:
        """Return [N] divergences of a batch's completion tokens, without gradient."""

        def read(micro: Batch) -> list[Tensor]:
            found_N = self.trainer_logprobs(micro).divergence_N
            assert found_N is not None
            return [found_N]

        return self._read(batch, read)[0]
