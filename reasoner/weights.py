"""Each token's share in the loss of an optimizer step. Letters: B rows, N completion tokens of all rows."""

from __future__ import annotations

import torch
from torch import Tensor


def token_weights(loss_mask_N: Tensor, row_N: Tensor, *, rows: int, mode: str, max_tokens: int) -> Tensor:
    """[N] each token's share in the loss of a whole optimizer step; 0 where masked.

    Args:
        loss_mask_N: [N] bool.
        row_N: [N] the row of each token.
        rows: rows of the whole step.
        mode: "token": 1 / trained tokens of the step (DAPO, arXiv:2503.14476, equation 8);
            "sequence": 1 / (rows * trained tokens of the row) (GRPO, arXiv:2402.03300, equation 3);
            "constant": 1 / (rows * max_tokens) (Dr. GRPO, arXiv:2503.20783, section 3.2).
        max_tokens: of a completion; used by "constant" alone.
    """
    mask_N = loss_mask_N.double()
    if mode == "token":
        weights_N = mask_N / mask_N.sum().clamp(min=1)
    elif mode == "sequence":
        tokens_B = torch.zeros(rows, dtype=torch.float64).index_add_(0, row_N, mask_N)
        weights_N = mask_N / (tokens_B.clamp(min=1)[row_N] * rows)
    else:
        weights_N = mask_N / (rows * max_tokens)
    return weights_N.float()
