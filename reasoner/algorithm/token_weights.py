"""Weight of each token in the loss of an optimizer step. Letters: B rows, N completion tokens of all rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from reasoner.config.by_name import named


def token_weights(
    loss_mask_N: Tensor, row_N: Tensor, *, rows: int, mode: str, max_tokens: int, tokens: int | None = None
) -> Tensor:
    """Return [N] float32 weights of the tokens in the loss of a whole optimizer step; 0 where masked.

    | mode       | weight of a trained token            | source                                         |
    |------------|--------------------------------------|------------------------------------------------|
    | "token"    | 1 / trained tokens of the step       | DAPO, arXiv:2503.14476, equation 12            |
    | "sequence" | 1 / (rows * trained tokens of its row) | GRPO, arXiv:2402.03300, equation 3           |
    | "constant" | 1 / (rows * max_tokens)              | Dr. GRPO, arXiv:2503.20783, section 3.2        |

    Args:
        loss_mask_N: [N] bool.
        row_N: [N] row of each token, ascending.
        rows: number of rows in the whole step, over all processes; rows without a trained token count.
        mode: one of the above.
        max_tokens: token limit of a completion; used only by "constant".
        tokens: number of trained tokens in the whole step, over all processes; None: those of loss_mask_N.
    Returns:
        [N] weights.
    Raises:
        ConfigError: there is no such mode.

    Example:
        >>> mask, row = torch.tensor([True, True, True, True]), torch.tensor([0, 0, 0, 1])
        >>> token_weights(mask, row, rows=2, mode="token", max_tokens=5).tolist()
        [0.25, 0.25, 0.25, 0.25]
        >>> token_weights(mask, row, rows=2, mode="constant", max_tokens=5)[0].item()
        0.10000000149011612
    """
    mask_N = loss_mask_N.double()
    weight = named(AGGREGATIONS, mode, "aggregation")
    step_tokens = int(loss_mask_N.sum()) if tokens is None else tokens
    return (mask_N * weight(mask_N, row_N, rows, step_tokens, max_tokens)).float()


def _over_tokens(mask_N: Tensor, row_N: Tensor, rows: int, tokens: int, max_tokens: int) -> Tensor:
    return torch.full_like(mask_N, 1 / max(1, tokens))


def _over_rows(mask_N: Tensor, row_N: Tensor, rows: int, tokens: int, max_tokens: int) -> Tensor:
    tokens_B = torch.zeros(rows, dtype=mask_N.dtype, device=mask_N.device).index_add(0, row_N, mask_N)
    return 1 / (tokens_B.clamp(min=1)[row_N] * rows)


def _over_constant(mask_N: Tensor, row_N: Tensor, rows: int, tokens: int, max_tokens: int) -> Tensor:
    return torch.full_like(mask_N, 1 / max(1, rows * max_tokens))


AGGREGATIONS: Mapping[str, Callable[[Tensor, Tensor, int, int, int], Tensor]] = {
    "token": _over_tokens,
    "sequence": _over_rows,
    "constant": _over_constant,
}
