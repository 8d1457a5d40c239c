"""Advantage estimators. Letters: P problems, G group, B rows, N completion tokens of all rows.

An estimator takes a Batch and sets its `advantages_N` (and `returns_N`). The mathematics is in pure functions on
lists and tensors. `ESTIMATORS` maps config names to estimators; docs/papers.md maps papers to names.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reasoner.algorithm.batch import Batch, listed
from reasoner.algorithm.group_baselines import GROUP_ADVANTAGES, gae_row
from reasoner.config.by_name import named
from reasoner.config.estimators import ESTIMATOR_TRAITS, REJECTION_THRESHOLD


def token_rewards(batch: Batch, *, kl_coef: float) -> Tensor:
    """Return [N] token rewards: the row's reward on its last trained token, minus kl_coef * (log pi - log ref).

    The per-token penalty is the k1 estimate of the KL (Ziegler et al., arXiv:1909.08593, equation 2). Masked tokens
    get neither. In a row without any trained token the last token gets the reward.

    Raises:
        ValueError: kl_coef > 0 without ref_logprobs_N.
    """
    rewards_N = torch.zeros(len(batch.row_N), dtype=torch.float64)
    ends = torch.tensor([tokens[-1] for tokens in _acting(batch)], dtype=torch.long)
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
    """A named estimator: its function, the annotations it needs, and what its advantages depend on."""

    function: EstimatorFunction
    needs: frozenset[str] = frozenset()
    """Subset of "values", "ref_logprobs", "old_logprobs", "teacher_logprobs"."""
    group_relative: bool = True
    """True if a group without signal has zero advantages and may leave the batch."""
    by_group: bool = False
    """True if a group's advantages depend only on its own rows, so that groups can be processed one by one."""


def _per_group(batch: Batch, name: str, **options: float) -> Batch:
    """Compute each row's group advantage (`name` in GROUP_ADVANTAGES) and assign it to all of its tokens."""
    rows_of: dict[int, list[int]] = {}
    for row, group in enumerate(listed(batch.group_B, int)):
        rows_of.setdefault(group, []).append(row)
    rewards = listed(batch.reward_B, float)
    advantage_B = torch.zeros(len(batch), dtype=torch.float32)
    for rows in rows_of.values():
        values = GROUP_ADVANTAGES[name]([rewards[row] for row in rows], **options)
        advantage_B[torch.tensor(rows)] = torch.tensor(values, dtype=torch.float32)
    return replace(batch, advantages_N=advantage_B[batch.row_N])


def grpo(batch: Batch) -> Batch:
    """Compute GRPO advantages: centred and divided by the group's std (arXiv:2402.03300, section 4.1.2)."""
    return _per_group(batch, "grpo")


def dr_grpo(batch: Batch) -> Batch:
    """Compute Dr. GRPO advantages: centred only (arXiv:2503.20783, section 3.2)."""
    return _per_group(batch, "dr_grpo")


def rloo(batch: Batch) -> Batch:
    """Compute RLOO advantages: reward minus the mean of the other rewards (arXiv:2402.14740)."""
    return _per_group(batch, "rloo")


def rejection(batch: Batch, *, threshold: float | None = None) -> Batch:
    """Compute advantages of RAFT / rejection sampling: 1 if the reward reaches the threshold, else 0.

    Dong et al., arXiv:2304.06767.

    Args:
        batch: the rows.
        threshold: lowest accepted reward; None: correct answers are accepted, whatever else their reward includes.
    """
    if threshold is not None or batch.quality_B is None:
        return _per_group(batch, "rejection", threshold=REJECTION_THRESHOLD if threshold is None else threshold)
    judged = _per_group(replace(batch, reward_B=batch.quality_B), "rejection", threshold=REJECTION_THRESHOLD)
    return replace(judged, reward_B=batch.reward_B)


def reinforce_pp(batch: Batch, *, kl_coef: float = 0.0, whiten: bool = True) -> Batch:
    """Compute REINFORCE++ advantages: reward-to-go of token rewards (k1 penalty included), whitened over the batch.

    arXiv:2501.03262, equations 7 to 9 (discount 1).
    """
    rewards_N = token_rewards(batch, kl_coef=kl_coef)
    advantages_N = torch.cat([part.flip(0).cumsum(0).flip(0) for part in _rows(batch, rewards_N)])
    return _finished(batch, advantages_N, whiten=whiten)


def reinforce_pp_baseline(batch: Batch, *, whiten: bool = True) -> Batch:
    """Compute REINFORCE++-baseline advantages: the group's mean subtracted, then whitened over the batch.

    arXiv:2501.03262, section 3.3.
    """
    centred = dr_grpo(batch)
    assert centred.advantages_N is not None
    return _finished(batch, centred.advantages_N.double(), whiten=whiten)


def gae(batch: Batch, *, gamma: float = 1.0, lam: float = 0.95, kl_coef: float = 0.0, whiten: bool = True) -> Batch:
    """Compute GAE advantages and returns of `token_rewards` and values (PPO); raises ValueError as `gae_of` does."""
    return gae_of(batch, token_rewards(batch, kl_coef=kl_coef), gamma=gamma, lam=lam, whiten=whiten)


def gae_of(batch: Batch, rewards_N: Tensor, *, gamma: float = 1.0, lam: float = 0.95, whiten: bool = True) -> Batch:
    """Compute GAE advantages and returns of given token rewards and values, whitened over the batch.

    Schulman et al., arXiv:1506.02438. It runs over the policy's own tokens: the replies of an environment between them
    take no time and have no value. For an estimator of your own that rewards steps (process rewards): docs/rlhf.md.

    Args:
        batch: the rows.
        rewards_N: [N] float64 reward of each completion token; those of masked tokens are ignored.
        gamma: discount per token.
        lam: lambda of GAE.
        whiten: subtract the mean of the advantages and divide by their standard deviation.
    Raises:
        ValueError: values_N is not set.
    """
    if batch.values_N is None:
        raise ValueError("values_N must be set for GAE; got None. Use a method with a value head (ppo).")
    values_N = batch.values_N.double()
    advantages_N = torch.zeros(len(batch.row_N), dtype=torch.float64)
    returns_N = torch.zeros(len(batch.row_N), dtype=torch.float32)
    for tokens in _acting(batch):
        row = gae_row(listed(rewards_N[tokens], float), listed(values_N[tokens], float), gamma=gamma, lam=lam)
        advantages_N[tokens] = torch.tensor(row.advantages, dtype=torch.float64)
        returns_N[tokens] = torch.tensor(row.returns, dtype=torch.float32)
    return _finished(replace(batch, returns_N=returns_N), advantages_N, whiten=whiten)


def reverse_kl(batch: Batch, *, reward_coef: float = 0.0, center: bool = True) -> Batch:
    """Compute advantages of on-policy distillation: log teacher - log student of each token.

    Its mean over the student's own tokens is -KL(student || teacher): Lu and Thinking Machines 2025, "On-Policy
    Distillation" (discount 0; in MiniLLM, arXiv:2306.08543, section 2.2, a token also counts those that follow it).

    Args:
        batch: the rows.
        reward_coef: weight of the row's reward, centred within its group, which is added to each of its tokens (ours).
        center: subtract the mean over all trained tokens of the batch, a baseline as in REINFORCE (Williams 1992). The
            expected gradient stays the same but for each token's own share of the mean, and its variance is smaller:
            far from the teacher nearly every advantage is negative (ours).
    Raises:
        ValueError: teacher_logprobs_N is not set.
    """
    if batch.teacher_logprobs_N is None:
        raise ValueError("teacher_logprobs_N must be set for reverse_kl; got None. Name a teacher.")
    advantages_N = -student_gap(batch)
    if center and bool(batch.loss_mask_N.any()):
        advantages_N = advantages_N - advantages_N[batch.loss_mask_N].mean()
    if reward_coef:
        centred_N = dr_grpo(batch).advantages_N
        assert centred_N is not None
        advantages_N = advantages_N + reward_coef * centred_N.double()
    return replace(batch, advantages_N=advantages_N.float())


def student_gap(batch: Batch) -> Tensor:
    """Return [N] float64 log student - log teacher; the student is the policy at the start of the step, if measured."""
    assert batch.teacher_logprobs_N is not None
    policy_N = batch.old_logprobs_N if batch.old_logprobs_N is not None else batch.rollout_logprobs_N
    return (policy_N - batch.teacher_logprobs_N).double()


def _acting(batch: Batch) -> list[Tensor]:
    """Indices into the _N tensors of each row's trained tokens; all of its tokens where none is trained on."""
    found: list[Tensor] = []
    for start, end in itertools.pairwise(batch.row_starts()):
        tokens = start + torch.nonzero(batch.loss_mask_N[start:end])[:, 0]
        found.append(tokens if len(tokens) else torch.arange(start, end))
    return found


def _rows(batch: Batch, values_N: Tensor) -> list[Tensor]:
    starts = batch.row_starts()
    return [values_N[start:end] for start, end in itertools.pairwise(starts)]


def _finished(batch: Batch, advantages_N: Tensor, *, whiten: bool) -> Batch:
    """Whiten over the trained tokens (population std + 1e-8; ddof is our choice), and store as float32."""
    kept = advantages_N[batch.loss_mask_N]
    if whiten and len(kept) > 1:
        advantages_N = (advantages_N - kept.mean()) / (kept.std(correction=0) + 1e-8)
    return replace(batch, advantages_N=advantages_N.float())


ESTIMATORS: Mapping[str, Estimator] = {
    function.__name__: Estimator(function, traits.needs, group_relative=traits.group_relative, by_group=traits.by_group)
    for function in (grpo, dr_grpo, rloo, rejection, reinforce_pp, reinforce_pp_baseline, gae, reverse_kl)
    for traits in [ESTIMATOR_TRAITS[function.__name__]]
}


def get_estimator(name: str) -> Estimator:
    """Return an estimator by name, or from `module:attribute` (an Estimator, or a function Batch -> Batch).

    Raises:
        ConfigError: there is none of that name; the message suggests the closest one.
    """
    found = named(ESTIMATORS, name, "advantage estimator")
    return Estimator(found) if callable(found) else found
