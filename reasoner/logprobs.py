"""Log-probabilities and entropies of tokens without holding [N, V] logits. Letters: N tokens, D hidden, V vocabulary.

The head is applied to a chunk of tokens at a time, and again in the backward pass (recomputation), so that
memory is bounded by the chunk: at most `max_bytes` of float32 logits, whatever the vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig


class LogprobsAndEntropy(NamedTuple):
    """Of the distribution at the given temperature."""

    logprobs_N: Tensor
    """[N] float32 (float64 for float64 input), with gradient."""
    entropy_N: Tensor
    """[N] nats; with gradient only where asked for."""


def logprobs_and_entropy(
    hidden_ND: Tensor,
    head: nn.Module,
    targets_N: Tensor,
    *,
    temperature: float,
    max_bytes: int = 64 << 20,
    config: PretrainedConfig | None = None,
    entropy_gradient: bool = False,
) -> LogprobsAndEntropy:
    """Log softmax(head(hidden) / temperature) at the targets, and the entropy of that distribution.

    Args:
        hidden_ND: [N, D] last hidden states of the positions that predict the targets.
        head: the output embedding, [D] -> [V].
        targets_N: [N] int64 token ids.
        temperature: the sampling temperature; logits are divided by it.
        max_bytes: bound on the float32 logits of one chunk.
        config: the model's config, read for a final logit soft-cap or scale.
        entropy_gradient: True where the entropy is part of the loss.
    """
    vocabulary = int(getattr(head, "out_features", 0)) or int(cast("Tensor", head.weight).shape[0])
    chunk = max(1, max_bytes // (4 * vocabulary))
    cap = getattr(config, "final_logit_softcapping", None)
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)

    def one_chunk(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(hidden) * scale if scale != 1.0 else head(hidden)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if cap:
            logits = cap * torch.tanh(logits / cap)
        if temperature != 1.0:
            logits = logits / temperature
        normalizer = torch.logsumexp(logits, dim=-1)
        logprobs = logits.gather(1, targets[:, None])[:, 0] - normalizer
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            kept = logits if entropy_gradient else logits.detach()
            norm = normalizer if entropy_gradient else normalizer.detach()
            entropy = norm - (torch.softmax(kept, dim=-1) * kept).sum(-1)
        return logprobs, entropy

    if hidden_ND.shape[0] <= chunk:
        return LogprobsAndEntropy(*one_chunk(hidden_ND, targets_N))
    parts = [
        checkpoint(one_chunk, hidden, targets, use_reentrant=False, preserve_rng_state=False)
        if torch.is_grad_enabled()
        else one_chunk(hidden, targets)
        for hidden, targets in zip(hidden_ND.split(chunk), targets_N.split(chunk), strict=True)
    ]
    return LogprobsAndEntropy(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))
