"""KL control: a penalty in the loss or the reward, an adaptive coefficient, and an optional KL budget.

Letters: B rows, N completion tokens.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reasoner.algorithm.advantage import Estimator
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.kl import adapted_kl_coef
from reasoner.config.sections import AlgorithmSection


@dataclass(kw_only=True)
class KLState:
    """State of KL control from step to step."""

    coef: float | None = None
    """Current coefficient; None: the config's."""
    last_within: int = 0
    """Number of steps done by the newest policy whose KL was measured and within the budget."""
    over_budget: bool = False
    """True once the KL has exceeded the budget."""


class KLControl:
    """Coefficient of the KL penalty from step to step, and the KL budget. Updates its KLState in place."""

    def __init__(self, section: AlgorithmSection, state: KLState) -> None:
        self._section = section
        self.state = state

    @property
    def coef(self) -> float:
        """Current coefficient."""
        return self._section.kl_coef if self.state.coef is None else self.state.coef

    @property
    def loss_coef(self) -> float:
        """Coefficient of the loss term; 0 if the KL is in the reward."""
        return self.coef if self._section.kl_in == "loss" else 0.0

    def estimate(self, batch: Batch, estimator: Estimator) -> Batch:
        """Compute the advantages, with the KL penalty subtracted from the rewards if the config puts it there."""
        options = dict(self._section.advantage_options)
        if self._section.kl_in == "reward" and self.coef > 0:
            if "kl_coef" in inspect.signature(estimator.function).parameters:
                options["kl_coef"] = self.coef
            else:
                batch = replace(batch, reward_B=batch.reward_B - self.coef * row_kl(batch))
        return estimator.function(batch, **options)

    def update(self, batch: Batch, *, step: int) -> dict[str, float]:
        """Measure the batch's KL, adapt the coefficient for the next step, and check the budget.

        The KL is that of the policy that sampled the batch, i.e. after step - 1, averaged over the rows that are
        trained on.

        Returns:
            Metrics kl/ref, kl/coef and kl/penalty; empty without reference log-probabilities.
        """
        if batch.ref_logprobs_N is None:
            return {}
        trained_B = torch.bincount(batch.row_N[batch.loss_mask_N], minlength=len(batch)) > 0
        kl = float(row_kl(batch)[trained_B].mean())
        metrics = {"kl/ref": kl, "kl/coef": self.coef, "kl/penalty": self.coef * kl}
        section = self._section
        if section.kl_target is not None:
            self.state.coef = adapted_kl_coef(
                self.coef, kl=kl, target=section.kl_target, rows=len(batch), horizon=section.kl_horizon
            )
        if section.kl_budget is not None:
            self.state.over_budget = kl > section.kl_budget
            if not self.state.over_budget:
                self.state.last_within = step - 1
        return metrics


def row_kl(batch: Batch) -> Tensor:
    """Return [B] float64 sums over a row's trained tokens of log policy - log ref: the k1 estimate in nats per row."""
    assert batch.ref_logprobs_N is not None
    policy_N = batch.old_logprobs_N if batch.old_logprobs_N is not None else batch.rollout_logprobs_N
    gap_N = torch.where(batch.loss_mask_N, (policy_N - batch.ref_logprobs_N).double(), 0.0)
    return torch.zeros(len(batch), dtype=torch.float64).index_add(0, batch.row_N, gap_N)
