"""Loss on single completions that are desirable or not. Letters: B rows.

Every function returns one value per row. The caller weighs each loss by 1 / (number of rows in the optimizer step).
"""

from __future__ import annotations

import torch
from torch import Tensor


def kl_baseline(mismatched_B: Tensor) -> float:
    """Estimate KL(policy || reference) from log-ratios of completions of other prompts: max(0, their mean).

    arXiv:2402.01306: z_0, by which KTO measures rewards. It has no gradient.

    Example:
        >>> kl_baseline(torch.tensor([1.0, -0.5])), kl_baseline(torch.tensor([-2.0]))
        (0.25, 0.0)
    """
    return max(0.0, float(mismatched_B.detach().double().mean()))


def kto(
    log_ratio_B: Tensor,
    desirable_B: Tensor,
    *,
    kl: float,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Compute the KTO loss of each row: arXiv:2402.01306, equation 7.

    w (1 - s(beta (r - kl))) if the row is desirable, w (1 - s(beta (kl - r))) if not, where r is its log-ratio, s the
    sigmoid and w the weight of its kind.

    Args:
        log_ratio_B: [B] log policy - log ref of whole completions, with gradient.
        desirable_B: [B] bool.
        kl: the step's `kl_baseline`.
        beta: > 0; how soon the loss is flat.
        desirable_weight: lambda_D in the paper.
        undesirable_weight: lambda_U.
    """
    signed_B = torch.where(desirable_B, log_ratio_B - kl, kl - log_ratio_B)
    weight_B = torch.where(desirable_B, desirable_weight, undesirable_weight).to(log_ratio_B.dtype)
    return weight_B * torch.sigmoid(-beta * signed_B)
