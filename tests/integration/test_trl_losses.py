"""Our losses compared with those of TRL 1.16 on the same tensors: `GRPOTrainer._compute_loss` itself, given
log-probabilities.

Its trainer is not started: the loss is called on an object that holds the settings which it reads.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.loss import policy_loss
from reasoner.config.stage import StageConfig
from tests.unit.reasoner.policy.test_policy import config_with, make_batch

pytestmark = pytest.mark.integration

CASES = {
    "dapo": ({"loss": "clip", "aggregation": "token"}, {"loss_type": "dapo"}),
    "grpo": ({"loss": "clip", "aggregation": "sequence"}, {"loss_type": "grpo"}),
    "dr_grpo": ({"loss": "clip", "aggregation": "constant"}, {"loss_type": "dr_grpo"}),
    "bnpo on one batch": ({"loss": "clip", "aggregation": "token"}, {"loss_type": "bnpo"}),
    "clip-higher": (
        {"loss": "clip", "loss_options": {"clip_low": 0.1, "clip_high": 0.28}},
        {"loss_type": "dapo", "epsilon_low": 0.1, "epsilon_high": 0.28},
    ),
    "two-sided": ({"loss": "clip", "loss_options": {"dual_clip": 1.5}}, {"loss_type": "dapo", "delta": 1.5}),
    "gspo": (
        {"loss": "gspo", "loss_options": {"clip_low": 0.02, "clip_high": 0.03}, "aggregation": "sequence"},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 0.02, "epsilon_high": 0.03},
    ),
    "cispo": ({"loss": "cispo", "loss_options": {"ratio_max": 1.3}}, {"loss_type": "cispo", "epsilon_high": 1.3}),
    "k3": ({"kl": "k3", "kl_coef": 0.1}, {"loss_type": "dapo", "beta": 0.1}),
    "k3 a sequence": ({"kl_coef": 0.1, "aggregation": "sequence"}, {"loss_type": "grpo", "beta": 0.1}),
    "entropy": ({"entropy_coef": 0.01}, {"loss_type": "dapo", "entropy_coef": 0.01}),
    "token_truncate": (
        {"importance": "truncated", "importance_options": {"cap": 1.2}},
        {"loss_type": "dapo", "correction": ("token", lambda ratio: ratio.clamp(max=1.2))},
    ),
    "token_mask": (
        {"importance": "masked", "importance_options": {"low": 0.8, "high": 1.2}},
        {"loss_type": "dapo", "correction": ("token", lambda r: torch.where((r < 0.8) | (r > 1.2), 0.0, r))},
    ),
    "sequence_truncate": (
        {"importance": "truncated_sequence", "importance_options": {"cap": 1.5}},
        {"loss_type": "dapo", "correction": ("sequence", lambda ratio: ratio.clamp(max=1.5))},
    ),
    "sequence_mask": (
        {"importance": "masked_sequence", "importance_options": {"cap": 3.0}},
        {"loss_type": "grpo", "correction": ("sequence", lambda r: torch.where(r > 3.0, 0.0, r)), "rows": True},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_equal_trl(name: str) -> None:
    ours, theirs = CASES[name]
    if theirs.get("rows"):
        ours = ours | {"aggregation": "sequence"}
    config = config_with(**({"importance": "none"} | ours))
    batch, now_N, entropy_N = tensors(config)
    loss = our_loss(config, batch, now_N, entropy_N)
    loss.backward()
    assert now_N.grad is not None
    expected, gradient_N = trl_loss(config, batch, now_N, entropy_N, theirs)
    assert abs(loss.item()) > 1e-4
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert (now_N.grad - gradient_N).abs().max().item() < 1e-5
    assert now_N.grad.abs().max().item() > 1e-4


def tensors(config: StageConfig) -> tuple[Batch, Tensor, Tensor]:
    """A batch with masked tokens, and log-probabilities and entropies as a model would give them."""
    batch = make_batch(config)
    generator = torch.Generator().manual_seed(5)
    assert batch.old_logprobs_N is not None
    count = len(batch.row_N)
    noise = torch.randn(count, generator=generator, dtype=torch.float64)
    now_N = (batch.old_logprobs_N + 0.25 * noise).requires_grad_()
    entropy_N = torch.rand(count, generator=generator, dtype=torch.float64).requires_grad_()
    return batch, now_N, entropy_N


def our_loss(config: StageConfig, batch: Batch, now_N: Tensor, entropy_N: Tensor) -> Tensor:
    section = config.algorithm
    return policy_loss(
        now_N,
        entropy_N,
        batch,
        loss=section.loss,
        loss_options=section.loss_options,
        importance=section.importance,
        importance_options=section.importance_options,
        kl=section.kl,
        kl_coef=section.kl_coef,
        entropy_coef=section.entropy_coef,
    ).loss


def trl_loss(
    config: StageConfig, batch: Batch, now_N: Tensor, entropy_N: Tensor, settings: dict
) -> tuple[float, Tensor]:
    """Return TRL's loss on a batch of rows, and its gradient per token."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    rows, width = len(batch), max(len(ids) for ids in batch.input_ids)
    place_N = torch.cat([torch.arange(int(count)) for count in torch.bincount(batch.row_N)])

    def beside(values_N: Tensor) -> Tensor:
        return torch.zeros(rows, width, dtype=values_N.dtype).index_put((batch.row_N, place_N), values_N)

    leaf_N = now_N.detach().clone().requires_grad_()
    mask = beside(batch.loss_mask_N.double())
    assert batch.old_logprobs_N is not None
    assert batch.ref_logprobs_N is not None
    assert batch.advantages_N is not None
    inputs = {
        "prompt_ids": torch.zeros(rows, 1, dtype=torch.long),
        "prompt_mask": torch.ones(rows, 1, dtype=torch.long),
        "completion_ids": torch.zeros(rows, width, dtype=torch.long),
        "completion_mask": mask,
        "advantages": batch.advantages_N[torch.tensor(batch.row_starts()[:-1])],
        "old_per_token_logps": beside(batch.old_logprobs_N),
        "ref_per_token_logps": beside(batch.ref_logprobs_N),
        "num_items_in_batch": mask.sum(),
    }
    if "correction" in settings:
        level, bounded = settings["correction"]
        gap = beside(batch.old_logprobs_N - batch.rollout_logprobs_N) * mask
        inputs["importance_sampling_ratio"] = bounded(
            torch.exp(gap.sum(1, keepdim=True) if level == "sequence" else gap)
        )
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (beside(leaf_N), beside(entropy_N), None),
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=settings.get("importance_sampling_level", "token"),
        beta=settings.get("beta", 0.0),
        loss_type=settings["loss_type"],
        epsilon_low=settings.get("epsilon_low", 0.2),
        epsilon_high=settings.get("epsilon_high", 0.2),
        args=SimpleNamespace(delta=settings.get("delta"), use_bias_correction_kl=False, steps_per_generation=1),
        use_vllm="correction" in settings,
        vllm_importance_sampling_correction="correction" in settings,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=config.rollout.max_tokens,
        accelerator=SimpleNamespace(
            num_processes=1, sync_gradients=True, gather=lambda x: x, reduce=lambda x, reduction: x
        ),
        _entropy_bonus_enabled="entropy_coef" in settings,
        entropy_coef=settings.get("entropy_coef", 0.0),
        use_adaptive_entropy=False,
        aux_loss_enabled=False,
        _metrics={"train": defaultdict(list)},
    )
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    assert leaf_N.grad is not None
    return loss.item(), leaf_N.grad
