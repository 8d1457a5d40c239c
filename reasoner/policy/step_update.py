"""The optimizer steps of one training step."""

from __future__ import annotations

import random
from typing import NamedTuple

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.objective import Objective
from reasoner.policy.policy import Policy, UpdateStats
from reasoner.seeds import request_seed


class Updated(NamedTuple):
    """Result of the optimizer steps on a batch."""

    batch: Batch
    stats: list[UpdateStats]
    stopped_early: bool = False
    """True if the policy moved further than optim.stop_kl, so that the remaining optimizer steps were skipped."""


class StepUpdate:
    """Updater of a policy on the batches of one training step, which are added one by one.

    With one optimizer step per training step, gradients accumulate as batches are added. Otherwise all batches are
    joined first, then optim.inner_epochs passes are made over the shuffled rows, each in optim.updates_per_step parts.
    """

    def __init__(self, policy: Policy, objective: Objective | None, *, step: int) -> None:
        """Start a training step. `objective` None: only the value model is trained."""
        self._policy, self._objective, self._step = policy, objective, step
        optim = policy.config.optim
        self._once = optim.updates_per_step * optim.inner_epochs == 1
        self._batches: list[Batch] = []
        policy.begin_step(step)

    def add(self, batch: Batch) -> None:
        """Add rows of the step."""
        self._batches.append(batch)
        if self._once:
            self._policy.accumulate(batch, self._objective)

    def finish(self) -> Updated | None:
        """Take the optimizer steps and return their results; None if no added row has a trained token."""
        if not any(batch.loss_mask_N.any() for batch in self._batches):
            return None
        batch = Batch.joined(self._batches)
        if self._once:
            return Updated(batch, [self._policy.step(scale=batch.whole_step_scale(self._policy.config))])
        return self._inner_epochs(batch)

    def _inner_epochs(self, batch: Batch) -> Updated:
        config, optim = self._policy.config, self._policy.config.optim
        rows = list(range(len(batch)))
        stats: list[UpdateStats] = []
        for epoch in range(optim.inner_epochs):
            if optim.updates_per_step > 1:
                random.Random(request_seed(config.seed, "rows", self._step, epoch)).shuffle(rows)
            for part in range(optim.updates_per_step):
                chosen = rows[part :: optim.updates_per_step]
                whole = len(chosen) == len(batch)
                taken = batch if whole else batch.select(sorted(chosen)).reweighed(config)
                if not taken.loss_mask_N.any():
                    continue
                stats.append(self._policy.update(taken, self._objective))
                moved = stats[-1].metrics.get("policy/approx_kl", 0.0) / max(1.0, stats[-1].metrics["tokens"])
                if optim.stop_kl is not None and moved > optim.stop_kl:
                    return Updated(batch, stats, stopped_early=True)
        return Updated(batch, stats)
