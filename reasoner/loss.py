"""Policy losses. Letters: B rows, N completion tokens of all rows.

Every loss is a sum of `weights_N * loss_N`. The weights are set once for the whole optimizer step by `reasoner.weights.token_weights`,
so a micro-batch only adds its part: nothing is divided twice. `POLICY_LOSSES`, `KL` and `IMPORTANCE` map config
names to functions; docs/papers.md maps papers to names.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from reasoner.batch import Batch
from verifiers import JSON

# ---------------------------------------------------------------------------------------------- policy losses


class TokenLoss(NamedTuple):
    """A loss a token, and figures a token to be averaged over trained tokens."""

    loss_N: Tensor
    metrics: Mapping[str, Tensor]


PolicyLoss = Callable[..., TokenLoss]


def clip(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    row_N: Tensor,
    loss_mask_N: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> TokenLoss:
    """Clipped surrogate: -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A).

    PPO, arXiv:1707.06347, equation 7; clip_high > clip_low is DAPO's clip-higher (arXiv:2503.14476, equation 10).
    """
    log_ratio_N = logprobs_N - old_logprobs_N
    return _clipped(log_ratio_N, advantages_N, clip_low=clip_low, clip_high=clip_high)


def gspo(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    row_N: Tensor,
    loss_mask_N: Tensor,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> TokenLoss:
    """GSPO: one ratio a sequence, the geometric mean of its token ratios (arXiv:2507.18071, equations 5 to 7).

    Use with aggregation "sequence". Default clip range: section 5.1 of the paper.
    """
    log_ratio_N = _row_mean(logprobs_N - old_logprobs_N, row_N, loss_mask_N)
    return _clipped(log_ratio_N, advantages_N, clip_low=clip_low, clip_high=clip_high)


def gspo_token(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    row_N: Tensor,
    loss_mask_N: Tensor,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> TokenLoss:
    """GSPO-token: the sequence's ratio in value, each token's own gradient (arXiv:2507.18071, equations 13 and 14)."""
    sequence_N = _row_mean(logprobs_N - old_logprobs_N, row_N, loss_mask_N).detach()
    log_ratio_N = sequence_N + logprobs_N - logprobs_N.detach()
    return _clipped(log_ratio_N, advantages_N, clip_low=clip_low, clip_high=clip_high)


def cispo(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    row_N: Tensor,
    loss_mask_N: Tensor,
    *,
    clip_high: float = 5.0,
) -> TokenLoss:
    """CISPO: -sg(min(r, clip_high)) A log pi; every token keeps a gradient (arXiv:2506.13585, equations 4 and 5).

    Only the upper bound is used, as in the paper; its default here follows ScaleRL (arXiv:2510.13786).
    """
    ratio_N = torch.exp(logprobs_N - old_logprobs_N).detach()
    weight_N = ratio_N.clamp(max=clip_high)
    return TokenLoss(
        -weight_N * advantages_N * logprobs_N,
        {"policy/ratio": ratio_N, "policy/clip_fraction": (ratio_N > clip_high).float()},
    )


def reinforce(
    logprobs_N: Tensor, old_logprobs_N: Tensor, advantages_N: Tensor, row_N: Tensor, loss_mask_N: Tensor
) -> TokenLoss:
    """REINFORCE: -A log pi (Williams 1992); no ratio, so one update a batch."""
    ratio_N = torch.exp(logprobs_N - old_logprobs_N).detach()
    return TokenLoss(-advantages_N * logprobs_N, {"policy/ratio": ratio_N})


def _clipped(log_ratio_N: Tensor, advantages_N: Tensor, *, clip_low: float, clip_high: float) -> TokenLoss:
    ratio_N = torch.exp(log_ratio_N)
    clipped_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    plain_N, bounded_N = ratio_N * advantages_N, clipped_N * advantages_N
    return TokenLoss(
        -torch.minimum(plain_N, bounded_N),
        {
            "policy/ratio": ratio_N.detach(),
            "policy/clip_fraction": (bounded_N < plain_N).float(),
            "policy/approx_kl": kl_k3(log_ratio_N.detach(), torch.zeros_like(log_ratio_N)),
        },
    )


def _row_mean(values_N: Tensor, row_N: Tensor, loss_mask_N: Tensor) -> Tensor:
    """[N] each token's row mean over trained tokens, with gradient."""
    rows = int(row_N.max()) + 1 if len(row_N) else 0
    mask_N = loss_mask_N.to(values_N.dtype)
    sums_B = torch.zeros(rows, dtype=values_N.dtype, device=values_N.device).index_add(0, row_N, values_N * mask_N)
    counts_B = torch.zeros(rows, dtype=values_N.dtype, device=values_N.device).index_add(0, row_N, mask_N)
    return (sums_B / counts_B.clamp(min=1))[row_N]


POLICY_LOSSES: Mapping[str, PolicyLoss] = {
    "clip": clip,
    "gspo": gspo,
    "gspo_token": gspo_token,
    "cispo": cispo,
    "reinforce": reinforce,
}


# ---------------------------------------------------------------------------------------------- KL to the reference


def kl_k1(logprobs_N: Tensor, ref_logprobs_N: Tensor) -> Tensor:
    """k1 = log pi - log ref: unbiased for KL(pi || ref), may be negative (Schulman 2020, "Approximating KL").

    As a loss its gradient has expectation 0, not the KL's: put it in the reward, or use k2 or k3 in the loss.
    """
    return logprobs_N - ref_logprobs_N


def kl_k2(logprobs_N: Tensor, ref_logprobs_N: Tensor) -> Tensor:
    """k2 = (log pi - log ref)^2 / 2: >= 0, biased, with the KL's own gradient on-policy (Schulman 2020)."""
    return 0.5 * (logprobs_N - ref_logprobs_N) ** 2


def kl_k3(logprobs_N: Tensor, ref_logprobs_N: Tensor) -> Tensor:
    """k3 = ref/pi - 1 - log(ref/pi): >= 0, unbiased (Schulman 2020; GRPO, arXiv:2402.03300, equation 4)."""
    difference_N = ref_logprobs_N - logprobs_N
    return torch.expm1(difference_N) - difference_N


KL: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


# ---------------------------------------------------------------------------------------------- engine-trainer gap


def importance_none(log_gap_N: Tensor, row_N: Tensor, loss_mask_N: Tensor) -> Tensor:
    """Weight 1: the gap is left uncorrected."""
    return torch.ones_like(log_gap_N)


def importance_truncated(log_gap_N: Tensor, row_N: Tensor, loss_mask_N: Tensor, *, cap: float = 2.0) -> Tensor:
    """Truncated importance sampling: min(pi_trainer / pi_engine, cap) a token.

    Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training" (TIS); the truncation is
    Ionides 2008's.
    """
    return torch.exp(log_gap_N).clamp(max=cap)


def importance_truncated_sequence(log_gap_N: Tensor, row_N: Tensor, loss_mask_N: Tensor, *, cap: float = 2.0) -> Tensor:
    """The same with one weight a sequence: min(product of its token ratios, cap)."""
    return torch.exp(_row_sum(log_gap_N, row_N, loss_mask_N)).clamp(max=cap)


def importance_masked(
    log_gap_N: Tensor, row_N: Tensor, loss_mask_N: Tensor, *, low: float = 0.5, high: float = 5.0
) -> Tensor:
    """IcePop: the ratio where it lies in [low, high], 0 elsewhere (Ling team, arXiv:2510.18855, section 3.3)."""
    ratio_N = torch.exp(log_gap_N)
    return ratio_N * ((ratio_N >= low) & (ratio_N <= high))


def importance_masked_sequence(log_gap_N: Tensor, row_N: Tensor, loss_mask_N: Tensor, *, cap: float = 3.0) -> Tensor:
    """A sequence whose ratio (product over its tokens) exceeds cap is left out; the others keep that ratio."""
    ratio_N = torch.exp(_row_sum(log_gap_N, row_N, loss_mask_N))
    return ratio_N * (ratio_N <= cap)


def _row_sum(values_N: Tensor, row_N: Tensor, loss_mask_N: Tensor) -> Tensor:
    rows = int(row_N.max()) + 1 if len(row_N) else 0
    sums_B = torch.zeros(rows, dtype=values_N.dtype, device=values_N.device)
    return sums_B.index_add(0, row_N, values_N * loss_mask_N.to(values_N.dtype))[row_N]


IMPORTANCE: Mapping[str, Callable[..., Tensor]] = {
    "none": importance_none,
    "truncated": importance_truncated,
    "truncated_sequence": importance_truncated_sequence,
    "masked": importance_masked,
    "masked_sequence": importance_masked_sequence,
}


# ---------------------------------------------------------------------------------------------- all together


class LossTerms(NamedTuple):
    """A micro-batch's share of the step's loss, and sums that add up to the step's figures."""

    loss: Tensor
    metrics: Mapping[str, Tensor]


def policy_loss(
    logprobs_N: Tensor,
    entropy_N: Tensor,
    batch: Batch,
    *,
    loss: str = "clip",
    loss_options: Mapping[str, JSON] | None = None,
    importance: str = "truncated",
    importance_options: Mapping[str, JSON] | None = None,
    kl: str = "k3",
    kl_coef: float = 0.0,
    entropy_coef: float = 0.0,
) -> LossTerms:
    """Sum over tokens of weight * (importance * surrogate + kl_coef * KL - entropy_coef * entropy).

    Where the batch has no old_logprobs, the trainer's own detached log-probabilities stand for them: with one update a
    batch they are equal by construction. Figures are summed with the weight 1 / trained tokens of the step as `tokens`
    lets the caller divide: each is a sum over this micro-batch's trained tokens.
    """
    if batch.advantages_N is None:
        raise ValueError("advantages_N must be set before the loss; got None. Run an advantage estimator first.")
    mask_N = batch.loss_mask_N
    old_N = batch.old_logprobs_N if batch.old_logprobs_N is not None else logprobs_N.detach()
    log_gap_N = torch.where(mask_N, old_N - batch.rollout_logprobs_N, 0.0).detach()
    importance_N = _named(IMPORTANCE, importance, "importance correction")(
        log_gap_N, batch.row_N, mask_N, **dict(importance_options or {})
    )
    token_loss = _named(POLICY_LOSSES, loss, "policy loss")(
        logprobs_N, old_N, batch.advantages_N, batch.row_N, mask_N, **dict(loss_options or {})
    )
    loss_N = importance_N * token_loss.loss_N
    figures = dict(token_loss.metrics)
    if kl_coef > 0:
        if batch.ref_logprobs_N is None:
            raise ValueError("ref_logprobs_N must be set where kl_coef > 0; got None.")
        kl_N = _named(KL, kl, "KL estimate")(logprobs_N, batch.ref_logprobs_N)
        loss_N = loss_N + kl_coef * kl_N
        figures["policy/kl_ref"] = kl_N.detach()
    if entropy_coef > 0:
        loss_N = loss_N - entropy_coef * entropy_N
    figures["policy/entropy"] = entropy_N.detach()
    figures |= _gap_figures(log_gap_N, importance_N)
    total = (batch.weights_N * torch.where(mask_N, loss_N, 0.0)).sum()
    sums = {name: torch.where(mask_N, value, 0.0).sum() for name, value in figures.items()}
    sums["tokens"] = mask_N.sum()
    sums["gap/logprob_max"] = log_gap_N.abs().max() if len(log_gap_N) else log_gap_N.sum()
    return LossTerms(total, sums)


def _gap_figures(log_gap_N: Tensor, importance_N: Tensor) -> dict[str, Tensor]:
    """How far the engine's log-probabilities are from the trainer's at the same weights."""
    return {
        "gap/logprob_abs": log_gap_N.abs(),
        "gap/ratio": torch.exp(log_gap_N),
        "gap/kl": kl_k3(torch.zeros_like(log_gap_N), log_gap_N),
        "gap/importance": importance_N,
    }


Function = TypeVar("Function")


def _named(known: Mapping[str, Function], name: str, kind: str) -> Function:
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"no {kind} {name!r}.{hint} Known: {', '.join(known)}.")
