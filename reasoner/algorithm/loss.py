"""Policy and value losses. Letters: B rows, N completion tokens of all rows.

Every loss is a sum of `weights_N * loss_N`. The weights are set once for the whole optimizer step by
`token_weights.token_weights`, so a micro-batch only adds its part and nothing is divided twice. `POLICY_LOSSES` here,
`IMPORTANCE` in importance.py and `KL` in kl.py map config names to functions; docs/papers.md maps papers to names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.importance import IMPORTANCE
from reasoner.algorithm.kl import KL, kl_k3
from reasoner.algorithm.row_sums import row_mean
from reasoner.config.by_name import check_options, named
from verifiers import JSON


class TokenLoss(NamedTuple):
    """Per-token loss, and detached per-token metrics to be averaged over trained tokens."""

    loss_N: Tensor
    metrics: Mapping[str, Tensor]


class LossTerms(NamedTuple):
    """A micro-batch's contribution to the step's loss and metrics."""

    loss: Tensor
    """Scalar; the step's loss is the sum over its micro-batches."""
    metrics: Mapping[str, Tensor]
    """Sums over trained tokens, and their number as `tokens` (see `token_means`). Names ending in `_max` are maxima."""


PolicyLoss = Callable[..., TokenLoss]
"""(logprobs_N, old_logprobs_N, advantages_N, row_N, loss_mask_N, **options) -> TokenLoss."""


# ----------------------------------------------------------------------------------------------- policy losses


def clip(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    row_N: Tensor,
    loss_mask_N: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> TokenLoss:
    """Compute the clipped surrogate: -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) with r = policy / old.

    PPO, arXiv:1707.06347, equation 7; clip_high > clip_low is DAPO's clip-higher (arXiv:2503.14476, equation 10).
    dual_clip > 1 bounds the loss of a negative advantage by -dual_clip * A (Ye et al., arXiv:1912.09729). Without it
    the gradient of a token that became much likelier since sampling is unbounded.

    Raises:
        ValueError: a bound is out of range.
    """
    bounds = _Bounds(clip_low, clip_high, dual_clip)
    return _clipped(logprobs_N - old_logprobs_N, advantages_N, bounds)


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
    """Compute GSPO: one ratio per sequence, the geometric mean of its token ratios (arXiv:2507.18071, eq. 5 and 7).

    Every token of a row has the row's loss, so use it with aggregation "sequence". Default range: section 5.1.
    """
    log_ratio_N = row_mean(logprobs_N - old_logprobs_N, row_N, loss_mask_N)
    return _clipped(log_ratio_N, advantages_N, _Bounds(clip_low, clip_high))


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
    """Compute GSPO-token: the sequence's ratio as value, with per-token gradients (arXiv:2507.18071, eq. 13 and 14).

    Equal to GSPO in value and gradient if all advantages of a row are equal; intended for those that differ.
    """
    sequence_N = row_mean(logprobs_N - old_logprobs_N, row_N, loss_mask_N).detach()
    log_ratio_N = sequence_N + logprobs_N - logprobs_N.detach()
    return _clipped(log_ratio_N, advantages_N, _Bounds(clip_low, clip_high))


def cispo(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    row_N: Tensor,
    loss_mask_N: Tensor,
    *,
    ratio_max: float = 5.0,
) -> TokenLoss:
    """Compute CISPO: -sg(min(r, ratio_max)) A log policy; every token keeps a gradient (arXiv:2506.13585, eq. 4 and 5).

    ratio_max bounds the ratio itself (the paper's 1 + epsilon_high); there is no lower bound, as in the paper. The
    default is the largest value of the range studied in ScaleRL (arXiv:2510.13786).
    """
    if not ratio_max > 0:
        raise ValueError(f"ratio_max must be above 0; got {ratio_max}. Fix algorithm.loss_options.")
    ratio_N = torch.exp(logprobs_N - old_logprobs_N).detach()
    bounded_N = (ratio_N > ratio_max).float()
    return TokenLoss(
        -ratio_N.clamp(max=ratio_max) * advantages_N * logprobs_N,
        {"policy/ratio": ratio_N, "policy/clip_fraction": bounded_N},
    )


def reinforce(
    logprobs_N: Tensor, old_logprobs_N: Tensor, advantages_N: Tensor, row_N: Tensor, loss_mask_N: Tensor
) -> TokenLoss:
    """Compute REINFORCE: -A log policy (Williams 1992, equation 11). No ratio, so exact for one update per batch."""
    return TokenLoss(-advantages_N * logprobs_N, {"policy/ratio": torch.exp(logprobs_N - old_logprobs_N).detach()})


class _Bounds(NamedTuple):
    low: float
    high: float
    dual: float | None = None


def _clipped(log_ratio_N: Tensor, advantages_N: Tensor, bounds: _Bounds) -> TokenLoss:
    if bounds.low < 0 or bounds.high < 0 or (bounds.dual is not None and bounds.dual <= 1 + bounds.high):
        raise ValueError(
            "clip_low and clip_high must be >= 0 and dual_clip > 1 + clip_high;"
            f" got {bounds.low}, {bounds.high}, {bounds.dual}. Fix algorithm.loss_options."
        )
    # a token with zero advantage has loss and gradient 0, even if its ratio is infinite
    ratio_N = torch.exp(torch.where(advantages_N == 0, 0.0, log_ratio_N))
    taken_N = ratio_N if bounds.dual is None else ratio_N.clamp(max=bounds.dual)
    inside_N = ratio_N.clamp(1 - bounds.low, 1 + bounds.high)
    low_N = ((ratio_N < 1 - bounds.low) & (advantages_N < 0)).float()
    high_N = ((ratio_N > 1 + bounds.high) & (advantages_N > 0)).float()
    return TokenLoss(
        -torch.minimum(taken_N * advantages_N, inside_N * advantages_N),
        {
            "policy/ratio": torch.exp(log_ratio_N.detach()),
            "policy/clip_fraction": low_N + high_N,
            "policy/clip_fraction_low": low_N,
            "policy/clip_fraction_high": high_N,
        },
    )


POLICY_LOSSES: Mapping[str, PolicyLoss] = {
    "clip": clip,
    "gspo": gspo,
    "gspo_token": gspo_token,
    "cispo": cispo,
    "reinforce": reinforce,
}


# ------------------------------------------------------------------------------------------------- the total loss


def policy_loss(
    logprobs_N: Tensor,
    entropy_N: Tensor,
    batch: Batch,
    *,
    loss: str = "clip",
    loss_options: Mapping[str, JSON] | None = None,
    importance: str = "truncated",
    importance_options: Mapping[str, JSON] | None = None,
    proximal: str = "trainer",
    kl: str = "k3",
    kl_coef: float = 0.0,
    entropy_coef: float = 0.0,
) -> LossTerms:
    """Compute the sum over trained tokens of weight * (importance * surrogate + kl_coef * KL - entropy_coef * entropy).

    If the batch has no old_logprobs, the trainer's own detached log-probabilities are used: with one update per batch
    they are equal by construction. A masked token has no effect: whatever its log-probabilities, advantage or entropy,
    its gradient is exactly 0.

    Args:
        logprobs_N: [N] log-probabilities of the trainer, with gradient.
        entropy_N: [N] entropies in nats; must have a gradient if entropy_coef > 0.
        batch: rows of a whole step or a micro-batch of them, with advantages_N.
        loss: a name of POLICY_LOSSES, or `module:attribute`.
        loss_options: keyword options of the loss.
        importance: a name of IMPORTANCE, or `module:attribute`.
        importance_options: keyword options of the importance correction.
        proximal: trainer takes the surrogate's ratio against old_logprobs; sampler takes it against rollout_logprobs,
            with importance 1 (the two policies of Hilton et al., arXiv:2110.00641, are then one).
        kl: a name of KL.
        kl_coef: coefficient of the KL term; > 0 needs batch.ref_logprobs_N.
        entropy_coef: coefficient of the entropy bonus.
    Raises:
        ValueError: a needed tensor or gradient is missing.
        ConfigError: a name or option is unknown.
    """
    if batch.advantages_N is None:
        raise ValueError("advantages_N must be set before the loss; got None. Run an advantage estimator first.")
    importance_function = named(IMPORTANCE, importance, "importance correction")
    loss_function = named(POLICY_LOSSES, loss, "policy loss")
    check_options(importance_function, importance_options or {}, f"importance correction {importance!r}")
    check_options(loss_function, loss_options or {}, f"policy loss {loss!r}")

    mask_N, row_N = batch.loss_mask_N, batch.row_N
    policy_N = torch.where(mask_N, logprobs_N, 0.0)
    trainer_N = policy_N.detach() if batch.old_logprobs_N is None else torch.where(mask_N, batch.old_logprobs_N, 0.0)
    advantages_N = torch.where(mask_N, batch.advantages_N, 0.0)
    log_gap_N = torch.where(mask_N, trainer_N - batch.rollout_logprobs_N, 0.0)

    if proximal == "sampler":
        old_N, importance_N = torch.where(mask_N, batch.rollout_logprobs_N, 0.0), torch.ones_like(log_gap_N)
    else:
        old_N = trainer_N
        importance_N = importance_function(log_gap_N, row_N, mask_N, **dict(importance_options or {})).detach()
    surrogate = loss_function(policy_N, old_N, advantages_N, row_N, mask_N, **dict(loss_options or {}))
    loss_N = importance_N * surrogate.loss_N
    metrics = {
        **surrogate.metrics,
        "policy/approx_kl": kl_k3(trainer_N, policy_N.detach()),
        "policy/entropy": entropy_N.detach(),
        **_gap_metrics(log_gap_N, importance_N),
    }
    if kl_coef > 0:
        kl_N = named(KL, kl, "KL estimate")(policy_N, torch.where(mask_N, _ref_logprobs(batch), 0.0))
        loss_N = loss_N + kl_coef * kl_N
        metrics["policy/kl_ref"] = kl_N.detach()
    if entropy_coef > 0:
        if logprobs_N.requires_grad and not entropy_N.requires_grad:
            raise ValueError(
                "entropy_N must have a gradient if entropy_coef > 0; it is detached, so the entropy bonus would have no"
                " effect. Call logprobs_and_entropy with entropy_gradient=True."
            )
        loss_N = loss_N - entropy_coef * entropy_N
    total = (batch.weights_N * torch.where(mask_N, loss_N, 0.0)).sum()
    return LossTerms(total, _sums(metrics, mask_N) | {"gap/logprob_max": _largest(log_gap_N)})


def _ref_logprobs(batch: Batch) -> Tensor:
    if batch.ref_logprobs_N is None:
        raise ValueError("ref_logprobs_N must be set if kl_coef > 0; got None. Annotate the batch first.")
    return batch.ref_logprobs_N


def _gap_metrics(log_gap_N: Tensor, importance_N: Tensor) -> dict[str, Tensor]:
    """Compare the engine's log-probabilities with the trainer's for the same weights.

    gap/kl is the k3 estimate of KL(engine || trainer), >= 0.
    """
    return {
        "gap/logprob_abs": log_gap_N.abs(),
        "gap/ratio": torch.exp(log_gap_N),
        "gap/kl": kl_k3(torch.zeros_like(log_gap_N), log_gap_N),
        "gap/importance": importance_N,
        "gap/left_out": (importance_N == 0).float(),
    }


def _sums(metrics: Mapping[str, Tensor], mask_N: Tensor) -> dict[str, Tensor]:
    sums = {name: torch.where(mask_N, value, 0.0).sum() for name, value in metrics.items()}
    return sums | {"tokens": mask_N.sum()}


def _largest(log_gap_N: Tensor) -> Tensor:
    return log_gap_N.abs().max() if len(log_gap_N) else log_gap_N.sum()


def merge_metrics(into: dict[str, float], metrics: Mapping[str, Tensor | float]) -> None:
    """Add a micro-batch's metrics to `into`: sums are added, names that end in `_max` keep the larger value."""
    for name, value in metrics.items():
        if name.endswith("_max"):
            into[name] = max(into.get(name, float("-inf")), float(value))
        else:
            into[name] = into.get(name, 0.0) + float(value)


def token_means(sums: Mapping[str, float]) -> dict[str, float]:
    """Divide merged sums by the number of trained tokens; maxima are unchanged."""
    tokens = max(1.0, sums.get("tokens", 0.0))
    return {
        name: value if name.endswith("_max") else value / tokens for name, value in sums.items() if name != "tokens"
    }


# ---------------------------------------------------------------------------------------------------- value head


def value_loss(values_N: Tensor, batch: Batch, *, clip_range: float | None = 0.2) -> LossTerms:
    """Compute the sum over trained tokens of weight * max((V - R)^2, (clip(V, V_old +- clip_range) - R)^2) / 2.

    The clipping follows the reference implementation of PPO (Engstrom et al., arXiv:2005.12729, section 3).

    Args:
        values_N: [N] predictions of the value head, with gradient.
        batch: rows with returns_N, and with values_N from before the step.
        clip_range: in units of the reward; None: plain squared error.
    Raises:
        ValueError: returns or old values are missing.
    """
    if batch.returns_N is None or batch.values_N is None:
        raise ValueError("returns_N and values_N must be set for the value loss; got None. Use the gae estimator.")
    mask_N = batch.loss_mask_N
    now_N, before_N = torch.where(mask_N, values_N, 0.0), torch.where(mask_N, batch.values_N, 0.0)
    returns_N = torch.where(mask_N, batch.returns_N, 0.0)
    plain_N = (now_N - returns_N) ** 2
    bounded_N = plain_N
    if clip_range is not None:
        bounded_N = (before_N + (now_N - before_N).clamp(-clip_range, clip_range) - returns_N) ** 2
    loss_N = 0.5 * torch.maximum(plain_N, bounded_N)
    metrics = {
        "value/error_squared": plain_N.detach(),
        "value/clip_fraction": (bounded_N > plain_N).float(),
        "value/mean": now_N.detach(),
        "value/return": returns_N,
        "value/return_squared": returns_N**2,
        "value/error": (now_N - returns_N).detach(),
    }
    return LossTerms((batch.weights_N * loss_N).sum(), _sums(metrics, mask_N))


def explained_variance(metrics: Mapping[str, float]) -> float:
    """Return 1 - Var(R - V) / Var(R) from a step's metrics of `value_loss`: 1 perfect, 0 no better than a constant.

    NaN where the returns do not vary.

    Example:
        >>> round(explained_variance({"value/return": 0.5, "value/return_squared": 0.5, "value/error": 0.0,
        ...                           "value/error_squared": 0.05}), 9)
        0.8
    """
    spread = metrics["value/return_squared"] - metrics["value/return"] ** 2
    missed = metrics["value/error_squared"] - metrics["value/error"] ** 2
    return 1 - missed / spread if spread > 1e-12 else float("nan")
