"""Advantage estimators. Letters: P problems, G group, B rows, N completion tokens of all rows.

An estimator takes a Batch and gives it `advantages_N` (and `returns_N`); the mathematics is in pure functions on
lists and tensors. `ESTIMATORS` maps config names to estimators; docs/papers.md maps papers to names.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.group_baselines import gae_row, group_advantages, leave_one_out_advantages
from verifiers.registry import load_attribute
from verifiers.suggest import did_you_mean


def token_rewards(batch: Batch, *, kl_coef: float) -> Tensor:
    """[N] rewards a token: the row's reward on its last token, minus kl_coef * (log pi - log ref) on each.

    The per-token penalty is the k1 estimate of the KL (Ziegler et al., arXiv:1909.08593, equation 2). The reward
    lands on the last token whether or not that is trained on; a masked token carries no penalty.
    """
    rewards_N = torch.zeros(len(batch.row_N), dtype=torch.float64)
    ends = torch.tensor(batch.row_starts()[1:], dtype=torch.long) - 1
    rewards_N[ends] = batch.reward_B.double()
    if kl_coef > 0:
        if batch.ref_logprobs_N is None:
            raise ValueError("ref_logprobs_N must be set for a KL in the reward; got None.")
        policy_N = batch.old_logprobs_N if batch.old_logprobs_N is not None else batch.rollout_logprobs_N
        rewards_N -= kl_coef * (policy_N - batch.ref_logprobs_N).double() * batch.loss_mask_N
    return rewards_N


EstimatorFunction = Callable[..., Batch]


@dataclass(frozen=True, slots=True)
class Estimator:
    """A named estimator: what it needs annotated, whether it compares rows of a group, and the function."""

    function: EstimatorFunction
    needs: frozenset[str] = frozenset()
    """Of "values", "ref_logprobs", "old_logprobs"."""
    group_relative: bool = True
    """True: a group without signal has zero advantages and may leave the batch."""
    by_group: bool = False
    """True: the advantages of a group depend on nothing but its own rows, so that groups can be taken one by one."""


def _per_group(batch: Batch, advantages: Callable[[list[float]], list[float]]) -> Batch:
    """Spread each row's group advantage over its tokens."""
    rows_of: dict[int, list[int]] = {}
    for row, group in enumerate(batch.group_B.tolist()):
        rows_of.setdefault(group, []).append(row)
    rewards = batch.reward_B.tolist()
    advantage_B = torch.zeros(len(batch), dtype=torch.float32)
    for rows in rows_of.values():
        values = advantages([rewards[row] for row in rows])
        advantage_B[torch.tensor(rows)] = torch.tensor(values, dtype=torch.float32)
    return replace(batch, advantages_N=advantage_B[batch.row_N])


def grpo(batch: Batch) -> Batch:
    """GRPO: centred and divided by the group's std (arXiv:2402.03300, section 4.1.2)."""
    return _per_group(batch, lambda rewards: group_advantages(rewards, scale_by_std=True))


def dr_grpo(batch: Batch) -> Batch:
    """Dr. GRPO: centred only (arXiv:2503.20783, section 3.2)."""
    return _per_group(batch, group_advantages)


def rloo(batch: Batch) -> Batch:
    """RLOO: against the mean of the others (arXiv:2402.14740)."""
    return _per_group(batch, leave_one_out_advantages)


def rejection(batch: Batch, *, threshold: float = 1.0) -> Batch:
    """RAFT / rejection sampling: 1 where the reward reaches the threshold, else 0 (arXiv:2304.06767)."""
    return _per_group(batch, lambda rewards: [float(reward >= threshold) for reward in rewards])


def reinforce_pp(batch: Batch, *, kl_coef: float = 0.0, whiten: bool = True) -> Batch:
    """REINFORCE++: reward-to-go of token rewards (k1 penalty inside), whitened over the batch.

    arXiv:2501.03262, equations 7 to 9 (discount 1).
    """
    rewards_N = token_rewards(batch, kl_coef=kl_coef)
    advantages_N = torch.cat([part.flip(0).cumsum(0).flip(0) for part in _rows(batch, rewards_N)])
    return _finished(batch, advantages_N, whiten=whiten)


def reinforce_pp_baseline(batch: Batch, *, whiten: bool = True) -> Batch:
    """REINFORCE++-baseline: the group's mean subtracted, then whitened over the batch (arXiv:2501.03262, 3.3)."""
    centred = _per_group(batch, group_advantages)
    assert centred.advantages_N is not None
    return _finished(batch, centred.advantages_N.double(), whiten=whiten)


def gae(batch: Batch, *, gamma: float = 1.0, lam: float = 0.95, kl_coef: float = 0.0, whiten: bool = True) -> Batch:
    """PPO's estimator: token rewards against a value head (arXiv:1506.02438), whitened over the batch."""
    if batch.values_N is None:
        raise ValueError("values_N must be set for GAE; got None. Use a method with a value head (ppo).")
    rewards_N = token_rewards(batch, kl_coef=kl_coef)
    rows = [
        gae_row(cast("list[float]", r.tolist()), cast("list[float]", v.tolist()), gamma=gamma, lam=lam)
        for r, v in zip(_rows(batch, rewards_N), _rows(batch, batch.values_N.double()), strict=True)
    ]
    advantages_N = torch.tensor([a for row in rows for a in row.advantages], dtype=torch.float64)
    returns_N = torch.tensor([a for row in rows for a in row.returns], dtype=torch.float32)
    return _finished(replace(batch, returns_N=returns_N), advantages_N, whiten=whiten)


def _rows(batch: Batch, values_N: Tensor) -> list[Tensor]:
    starts = batch.row_starts()
    return [values_N[start:end] for start, end in itertools.pairwise(starts)]


def _finished(batch: Batch, advantages_N: Tensor, *, whiten: bool) -> Batch:
    """Whitened over the trained tokens (population std + 1e-8, our choice of ddof), as float32."""
    kept = advantages_N[batch.loss_mask_N]
    if whiten and len(kept) > 1:
        advantages_N = (advantages_N - kept.mean()) / (kept.std(correction=0) + 1e-8)
    return replace(batch, advantages_N=advantages_N.float())


ESTIMATORS: Mapping[str, Estimator] = {
    "grpo": Estimator(grpo, by_group=True),
    "dr_grpo": Estimator(dr_grpo, by_group=True),
    "rloo": Estimator(rloo, by_group=True),
    "rejection": Estimator(rejection, group_relative=False, by_group=True),
    "reinforce_pp": Estimator(reinforce_pp, group_relative=False),
    "reinforce_pp_baseline": Estimator(reinforce_pp_baseline),
    "gae": Estimator(gae, frozenset({"values"}), group_relative=False),
}


def get_estimator(name: str) -> Estimator:
    """An estimator by name, or any `module:attribute` (an Estimator, or a function Batch -> Batch).

    Raises:
        ValueError: there is none; suggests the closest.
    """
    if name in ESTIMATORS:
        return ESTIMATORS[name]
    if ":" in name:
        found = load_attribute(name)
        return found if isinstance(found, Estimator) else Estimator(cast("EstimatorFunction", found))
    hint = did_you_mean(name, ESTIMATORS)
    raise ValueError(f"no advantage estimator {name!r}.{hint} Known: {', '.join(ESTIMATORS)}.")
