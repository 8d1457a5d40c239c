"""Token values summed over whole completions. Letters: B rows, N completion tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from reasoner.algorithm.batch import Batch


def row_sums(values_N: Tensor, micro: Batch) -> Tensor:
    """Return [B] sums of token values over the trained tokens of each row."""
    kept_N = torch.where(micro.loss_mask_N, values_N, 0.0)
    return torch.zeros(len(micro), dtype=kept_N.dtype, device=kept_N.device).index_add(0, micro.row_N, kept_N)


def log_ratios(logprobs_N: Tensor, micro: Batch) -> Tensor:
    """Return [B] log policy - log ref of whole completions; the batch must have its reference log-probabilities."""
    assert micro.ref_logprobs_N is not None
    return row_sums(logprobs_N - micro.ref_logprobs_N.to(logprobs_N.dtype), micro)
