"""The config's loss as a function of a micro-batch. Letters: B rows, K heads, N completion tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from reasoner.algorithm.advantage import get_estimator
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.kl_control import KLControl, KLState
from reasoner.algorithm.loss import LossTerms, policy_loss
from reasoner.config.errors import ConfigError
from reasoner.config.stage import StageConfig


class TokenScores(NamedTuple):
    """Scores of a micro-batch's completion tokens from one forward pass."""

    logprobs_N: Tensor
    """[N] log-probabilities under the sampling temperature, with gradient in training."""
    entropy_N: Tensor
    """[N] entropy of the next-token distribution in nats."""
    rewards_BK: Tensor | None = None
    """[B, heads] rewards of a reward model, read at each row's last token."""
    values_N: Tensor | None = None
    """[N] values of a value model, read at the position that predicts each token."""
    divergence_N: Tensor | None = None
    """[N] divergence of the teacher's next-token distribution from the policy's in nats, with gradient."""


Objective = Callable[[TokenScores, Batch], LossTerms]


def loss_needs(config: StageConfig) -> frozenset[str]:
    """Return the annotations that the loss needs.

    Old log-probabilities are needed only if several updates share a batch, or if a KL (to the reference or the teacher)
    is measured on a batch that older weights sampled: it is the KL of the policy at the start of the step, not of the
    sampler.
    """
    needs: set[str] = set()
    compared = config.algorithm.needs_reference or config.teacher.named
    lagging = config.rollout.ahead > 0 and compared
    if lagging or config.optim.updates_per_step * config.optim.inner_epochs > 1:
        needs.add("old_logprobs")
    if config.algorithm.needs_reference:
        needs.add("ref_logprobs")
    return frozenset(needs)


def make_objective(config: StageConfig, *, kl_coef: float | None = None) -> Objective:
    """Build the config's policy loss as a function of a micro-batch. kl_coef None: the config's coefficient."""
    algorithm = config.algorithm
    coef = algorithm.kl_coef if kl_coef is None else kl_coef

    def objective(scores: TokenScores, micro: Batch) -> LossTerms:
        return policy_loss(
            scores.logprobs_N,
            scores.entropy_N,
            micro,
            loss=algorithm.loss,
            loss_options=algorithm.loss_options,
            importance=algorithm.importance,
            importance_options=algorithm.importance_options,
            proximal=config.proximal,
            kl=algorithm.kl,
            kl_coef=coef,
            entropy_coef=algorithm.entropy_coef,
        )

    return objective


def check_algorithm(config: StageConfig) -> None:
    """Compute the loss of one made-up group, to find wrong names or options before anything is sampled.

    Raises:
        ConfigError: an estimator, loss or correction does not exist or does not accept an option, or the loss has zero
            gradient although the rewards differ.
    """
    rows = max(2, config.rollout.group_size)
    zeros_N = torch.zeros(rows)
    logprobs_N, entropy_N = torch.zeros(2, rows, requires_grad=True)
    batch = Batch(
        input_ids=tuple(torch.zeros(2, dtype=torch.long) for _ in range(rows)),
        prompt_lengths_B=torch.ones(rows, dtype=torch.long),
        row_N=torch.arange(rows),
        loss_mask_N=torch.ones(rows, dtype=torch.bool),
        reward_B=torch.arange(rows, dtype=torch.float64) % 2,
        group_B=torch.zeros(rows, dtype=torch.long),
        weights_N=torch.ones(rows),
        rollout_logprobs_N=zeros_N,
        old_logprobs_N=zeros_N,
        ref_logprobs_N=zeros_N,
        values_N=zeros_N,
        teacher_logprobs_N=-(torch.arange(rows) % 2).float(),
    )
    control, estimator = KLControl(config.algorithm, KLState()), get_estimator(config.algorithm.advantage)
    if fault := config.teacher_fault(estimator.needs):
        raise ConfigError("bad-value", f"{fault}.")
    try:
        batch = control.estimate(batch, estimator)
        loss = make_objective(config, kl_coef=control.loss_coef)(TokenScores(logprobs_N, entropy_N), batch).loss
    except (ValueError, TypeError) as error:
        raise ConfigError("bad-value", f"algorithm: {error}") from error
    gradient_N = torch.autograd.grad(loss, logprobs_N)[0] if loss.requires_grad else zeros_N
    advantages_N = batch.advantages_N
    if advantages_N is not None and advantages_N.any() and not gradient_N.any():
        raise ConfigError(
            "no-effect",
            f"algorithm.loss {config.algorithm.loss!r} must have a gradient where advantages are not 0; on a group with"
            f" rewards 0 and 1 it has none, with loss_options {dict(config.algorithm.loss_options)} and importance"
            f" {config.algorithm.importance!r} {dict(config.algorithm.importance_options)}. Change one of them.",
        )
