"""Effect of one training step on the policy: how far it moved, and if the objective rose.

Letters: B rows, N completion tokens. The trainer's log-probabilities at the start of the step are taken from the
update's own forward pass at no cost. A few rows are scored again after the update.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from reasoner import processes
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.kl import kl_k2
from reasoner.algorithm.loss import LossTerms
from reasoner.algorithm.objective import Objective, TokenScores
from reasoner.policy.policy import Policy

PROBE_ROWS = 16
"""Rows scored again after the update (our choice): with 256 rows per step about 2 % of the update's work."""
PROBE_SHARE = 16
"""At most one row in this many is scored again, for smaller steps."""


class StepProbe:
    """Recorder of the first update of a step, for comparison with the policy after the step."""

    def __init__(self) -> None:
        self._seen: dict[int, Tensor] = {}
        """Log-probabilities by id() of a row's token-id tensor, which its batch keeps alive."""
        self._batch: Batch | None = None
        self._before: list[Tensor | None] = []

    def recording(self, objective: Objective) -> Objective:
        """Wrap the objective to record the first log-probabilities seen for each row."""

        def recorded(scores: TokenScores, micro: Batch) -> LossTerms:
            for ids, logprobs in zip(micro.input_ids, scores.logprobs_N.detach().split(_lengths(micro)), strict=True):
                if id(ids) not in self._seen:
                    self._seen[id(ids)] = logprobs.float().cpu()
            return objective(scores, micro)

        return recorded

    def gather(self, batch: Batch) -> None:
        """Set the step's rows and combine what all processes recorded for them."""
        self._batch = batch
        if batch.old_logprobs_N is not None:
            self._before = list(batch.old_logprobs_N.split(_lengths(batch)))
            return
        self._before = [None] * len(batch)
        lengths = _lengths(batch)
        own = {row: self._seen[id(ids)] for row, ids in enumerate(batch.input_ids) if id(ids) in self._seen}
        for rows, flat in processes.gather((list(own), torch.cat([torch.zeros(0), *own.values()]).numpy())):
            parts = torch.from_numpy(flat).split([lengths[row] for row in rows])
            for row, before in zip(rows, parts, strict=True):
                self._before[row] = before if self._before[row] is None else self._before[row]

    def trainer_logprobs(self, row: int) -> list[float] | None:
        """Return a row's [T] log-probabilities at the start of the step, to five decimals; None if not updated on."""
        before = self._before[row]
        return None if before is None else [round(value, 5) for value in before.tolist()]

    def metrics(self, policy: Policy) -> dict[str, float]:
        """Return policy/step_kl and policy/step_gain: means over the trained tokens of some of the rows.

        step_kl is the k2 estimate of the KL, (log after - log before)^2 / 2 in nats: unlike k3, no single token
        dominates it. step_gain is A * (log after - log before), to first order the step's gain in the objective. In an
        ascent it is above 0, apart from the optimizer's momentum.
        """
        seen = [row for row, before in enumerate(self._before) if before is not None]
        if not seen:  # only the value model was updated
            return {}
        count = min(PROBE_ROWS, max(1, len(seen) // PROBE_SHARE))
        rows = [seen[i * len(seen) // count] for i in range(count)]
        assert self._batch is not None
        part = self._batch.select(rows)
        after_N = policy.annotate(part, needs=frozenset({"old_logprobs"})).old_logprobs_N
        assert after_N is not None
        kept_N = part.loss_mask_N
        before_N = torch.cat([before for row in rows if (before := self._before[row]) is not None])[kept_N]
        after_N = after_N[kept_N]
        if not len(after_N):
            return {}
        found = {"policy/step_kl": kl_k2(before_N, after_N).mean().item()}
        if part.advantages_N is not None:
            found["policy/step_gain"] = (part.advantages_N[kept_N] * (after_N - before_N)).mean().item()
        return found


def _lengths(batch: Batch) -> list[int]:
    starts = batch.row_starts()
    return [end - start for start, end in itertools.pairwise(starts)]
