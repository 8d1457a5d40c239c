"""Log-probabilities and entropies of tokens without holding [N, V] logits. Letters: N tokens, D hidden, V vocabulary.

The head is applied to a chunk of tokens at a time, and again in the backward pass (recomputation), so that
memory is bounded by the chunk: at most `max_bytes` of float32 logits, whatever the vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

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
    if type(head) is nn.Linear and head.bias is None and not cap and not entropy_gradient:
        return LogprobsAndEntropy(*_Chunked.apply(hidden_ND, head.weight, targets_N, scale / temperature, chunk))
    parts = [
        checkpoint(one_chunk, hidden, targets, use_reentrant=False, preserve_rng_state=False)
        if torch.is_grad_enabled()
        else one_chunk(hidden, targets)
        for hidden, targets in zip(hidden_ND.split(chunk), targets_N.split(chunk), strict=True)
    ]
    return LogprobsAndEntropy(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))


class _Chunked(torch.autograd.Function):
    """`logprobs_and_entropy` of a plain head: one gradient of the weight, to which each chunk adds its part in place.

    Autograd would hold a gradient of the weight per chunk and their sum, and compute the entropies again.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, factor: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        kind = hidden_ND.device.type
        ctx.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight_VD.dtype
        ctx.factor, ctx.chunk = factor, chunk
        with torch.autocast(kind, enabled=False):
            weight = weight_VD.to(ctx.dtype)
            found = [
                _read(_logits(hidden.to(ctx.dtype), weight, factor), targets)
                for hidden, targets in zip(hidden_ND.split(chunk), targets_N.split(chunk), strict=True)
            ]
        logprobs_N, entropy_N, normalizer_N = (torch.cat(part) for part in zip(*found, strict=True))
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N, normalizer_N)
        ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient_N: Tensor, _: Tensor
    ) -> tuple[Tensor, Tensor | None, None, None, None]:
        hidden_ND, weight_VD, targets_N, normalizer_N = ctx.saved_tensors
        to_hidden_ND = torch.empty_like(hidden_ND)
        to_weight_VD = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
        with torch.autocast(hidden_ND.device.type, enabled=False):
            weight = weight_VD.to(ctx.dtype)
            for start in range(0, len(targets_N), ctx.chunk):
                part = slice(start, start + ctx.chunk)
                hidden = hidden_ND[part].to(ctx.dtype)
                gradient = gradient_N[part, None] * ctx.factor
                # d logprob / d logits = onehot(target) - softmax
                to_logits = _logits(hidden, weight, ctx.factor)
                to_logits.sub_(normalizer_N[part, None]).exp_().mul_(-gradient)
                to_logits.scatter_add_(1, targets_N[part, None], gradient)
                to_logits = to_logits.to(ctx.dtype)
                to_hidden_ND[part] = to_logits @ weight
                if to_weight_VD is not None and to_weight_VD.dtype == ctx.dtype:
                    to_weight_VD.addmm_(to_logits.T, hidden)
                elif to_weight_VD is not None:
                    to_weight_VD += to_logits.T @ hidden
                del to_logits  # before the next chunk's are made
        return to_hidden_ND, to_weight_VD, None, None, None


def _read(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies and normalizers of one chunk, with one pass of exponentials and one copy."""
    highest = logits.amax(-1, keepdim=True)
    shares = (logits - highest).exp_()
    total = shares.sum(-1)
    normalizer = highest[:, 0] + total.log()
    logprobs = logits.gather(1, targets[:, None])[:, 0] - normalizer
    return logprobs, normalizer - shares.mul_(logits).sum(-1) / total, normalizer


def _logits(hidden: Tensor, weight: Tensor, factor: float) -> Tensor:
    """Scaled, in float32 at least."""
    logits = hidden @ weight.T
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits.mul_(factor) if factor != 1.0 else logits
