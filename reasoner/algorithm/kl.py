"""Estimates of the KL divergence from a token's log-probabilities, and a controller for its coefficient.

Letters: N tokens. Schulman 2020 is "Approximating KL Divergence", joschu.net/blog/kl-approx.html. All three estimate
KL(policy || reference) on tokens sampled from the policy. Their gradients as a loss differ from their values as a
metric: the gradient of the KL itself is E[(log policy - log ref) * grad log policy].

| estimate | as a metric            | expected gradient as a loss, on-policy |
|----------|------------------------|----------------------------------------|
| k1       | unbiased, either sign  | 0: no penalty at all; put it in the reward |
| k2       | biased, >= 0           | that of KL(policy || reference)        |
| k3       | unbiased, >= 0         | that of KL(reference || policy), close to the other if the two are close |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def kl_k1(logprobs_N: Tensor, ref_logprobs_N: Tensor) -> Tensor:
    """Return k1 = log policy - log ref; gradient: 1 * grad log policy, whose expectation is 0 (Schulman 2020).

    Example:
        >>> kl_k1(torch.tensor([-1.0]), torch.tensor([-1.5])).tolist()
        [0.5]
    """
    return logprobs_N - ref_logprobs_N


def kl_k2(logprobs_N: Tensor, ref_logprobs_N: Tensor) -> Tensor:
    """Return k2 = (log policy - log ref)^2 / 2; gradient: (log policy - log ref) * grad log policy (Schulman 2020)."""
    return 0.5 * (logprobs_N - ref_logprobs_N) ** 2


def kl_k3(logprobs_N: Tensor, ref_logprobs_N: Tensor) -> Tensor:
    """Return k3 = ref/policy - 1 - log(ref/policy); gradient: (1 - ref/policy) * grad log policy.

    Schulman 2020; the KL term of GRPO, arXiv:2402.03300, equation 4.
    """
    difference_N = ref_logprobs_N - logprobs_N
    return torch.expm1(difference_N) - difference_N


KL: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


def adapted_kl_coef(coef: float, *, kl: float, target: float, rows: int, horizon: int) -> float:
    """Return the next KL coefficient: higher if the measured KL is above its target, lower if it is below.

    coef * (1 + clip(kl / target - 1, -0.2, 0.2) * rows / horizon): Ziegler et al., arXiv:1909.08593, section 2.2.

    Args:
        coef: current coefficient, > 0.
        kl: KL measured over the step, in nats per row.
        target: target KL in nats per row, > 0.
        rows: number of rows of the step.
        horizon: number of rows over which a KL of at least 1.2 times the target multiplies the coefficient by 1.2 (to
            first order).
    Raises:
        ValueError: target or coef is not above 0.

    Example:
        >>> round(adapted_kl_coef(0.1, kl=12.0, target=6.0, rows=256, horizon=2560), 9)
        0.102
    """
    if target <= 0 or coef <= 0:
        raise ValueError(f"coef and target must be > 0; got coef={coef}, target={target}.")
    error = max(-0.2, min(0.2, kl / target - 1))
    return coef * (1 + error * rows / horizon)
