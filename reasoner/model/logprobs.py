"""Token log-probabilities and entropies without a full [N, V] tensor of logits.

Letters: N tokens, D hidden, V vocabulary.

Logits are computed in parts, and again in the backward pass (recomputation), so that memory is bounded by one
part: at most `max_bytes` of float32 logits, for any vocabulary size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig
from transformers.modeling_utils import PreTrainedModel

from reasoner.model.families import LogitTransform, logit_transform


class LogprobsAndEntropy(NamedTuple):
    """Log-probabilities and entropies under the distribution at the given temperature."""

    logprobs_N: Tensor
    """[N] float32 (float64 for float64 input), with gradient."""
    entropy_N: Tensor
    """[N] nats; has a gradient only if requested."""


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
    """Compute log softmax(head(hidden) / temperature) at the targets, and the entropy of that distribution.

    Args:
        hidden_ND: [N, D] last hidden states of the positions that predict the targets.
        head: output embedding, [D] -> [V].
        targets_N: [N] int64 token ids.
        temperature: sampling temperature; logits are divided by it.
        max_bytes: bound on the float32 logits in memory at once; temporary tensors need about as much again.
        config: config of the model, for the scale and soft cap of its logits.
        entropy_gradient: True if the entropy is part of the loss.
    """
    vocabulary = int(getattr(head, "out_features", 0)) or head.get_parameter("weight").shape[0]
    chunk = max(1, max_bytes // (4 * vocabulary))
    transform = logit_transform(config)

    def one_chunk(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = head_logits(hidden, head, transform)
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
    if type(head) is nn.Linear and head.bias is None and not transform.cap and not entropy_gradient:
        width = max(1, max_bytes // (4 * hidden_ND.shape[0]))
        factor = transform.scale / temperature
        return LogprobsAndEntropy(*_ByVocabulary.apply(hidden_ND, head.weight, targets_N, factor, width))
    parts = [
        checkpoint(one_chunk, hidden, targets, use_reentrant=False, preserve_rng_state=False)
        if torch.is_grad_enabled()
        else one_chunk(hidden, targets)
        for hidden, targets in zip(hidden_ND.split(chunk), targets_N.split(chunk), strict=True)
    ]
    return LogprobsAndEntropy(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))


def output_layer(model: PreTrainedModel) -> nn.Module:
    """Return the layer that maps hidden states to logits."""
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Module), type(model)
    return head


def head_logits(hidden: Tensor, head: nn.Module, transform: LogitTransform) -> Tensor:
    """Compute [..., V] logits of the output layer, scaled and capped, in float32 (float64 for float64 input)."""
    logits = head(hidden) * transform.scale if transform.scale != 1.0 else head(hidden)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return transform.cap * torch.tanh(logits / transform.cap) if transform.cap else logits


class _ByVocabulary(torch.autograd.Function):
    """`logprobs_and_entropy` for a plain linear head: all tokens at once, one part of the vocabulary after the other.

    Sums are updated as in an online softmax (Milakov and Gimelshein, arXiv:1805.02867, algorithm 3). The gradient of
    each part of the weight is written once. Chunks of tokens would read and write the whole gradient for every chunk.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, factor: float, width: int
    ) -> tuple[Tensor, Tensor]:
        kind = hidden_ND.device.type
        ctx.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight_VD.dtype
        ctx.factor, ctx.width = factor, width
        exact = torch.promote_types(ctx.dtype, torch.float32)
        target_N, total_N, expected_N = hidden_ND.new_zeros(3, len(targets_N), dtype=exact)
        highest_N = torch.full_like(total_N, -torch.inf)
        with torch.autocast(kind, enabled=False):
            hidden = hidden_ND.to(ctx.dtype)
            for start, weight in _parts(weight_VD, width):
                logits = _logits(hidden, weight.to(ctx.dtype), factor)
                place_N, here_N = _places(targets_N - start, len(weight))
                target_N += logits.gather(1, place_N[:, None])[:, 0].where(here_N, 0.0)
                before_N, highest_N = highest_N, torch.maximum(highest_N, logits.amax(-1))
                shrunk_N = (before_N - highest_N).exp_()
                shares = (logits - highest_N[:, None]).exp_()
                total_N = total_N * shrunk_N + shares.sum(-1)
                expected_N = expected_N * shrunk_N + shares.mul_(logits).sum(-1)
                del logits, shares  # before those of the next part are allocated
        normalizer_N = highest_N + total_N.log()
        entropy_N = normalizer_N - expected_N / total_N
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N, normalizer_N)
        ctx.mark_non_differentiable(entropy_N)
        return target_N - normalizer_N, entropy_N

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient_N: Tensor, _: Tensor
    ) -> tuple[Tensor, Tensor | None, None, None, None]:
        hidden_ND, weight_VD, targets_N, normalizer_N = ctx.saved_tensors
        to_hidden_ND = torch.zeros_like(hidden_ND, dtype=normalizer_N.dtype)
        to_weight_VD = torch.empty_like(weight_VD) if ctx.needs_input_grad[1] else None
        with torch.autocast(hidden_ND.device.type, enabled=False):
            hidden, gradient_N = hidden_ND.to(ctx.dtype), gradient_N * ctx.factor
            for start, part in _parts(weight_VD, ctx.width):
                weight = part.to(ctx.dtype)
                place_N, here_N = _places(targets_N - start, len(weight))
                # d logprob / d logits = onehot(target) - softmax
                to_logits = _logits(hidden, weight, ctx.factor)
                to_logits.sub_(normalizer_N[:, None]).exp_().mul_(-gradient_N[:, None])
                to_logits.scatter_add_(1, place_N[:, None], gradient_N.where(here_N, 0.0)[:, None])
                to_logits = to_logits.to(ctx.dtype)
                to_hidden_ND += to_logits @ weight
                if to_weight_VD is not None:
                    to_weight_VD[start : start + len(weight)] = to_logits.T @ hidden
                del to_logits  # before those of the next part are allocated
        return to_hidden_ND.to(hidden_ND.dtype), to_weight_VD, None, None, None


def _parts(weight_VD: Tensor, width: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the vocabulary in parts: first token id, and weights."""
    return zip(range(0, len(weight_VD), width), weight_VD.split(width), strict=True)


def _places(targets_N: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return each target's index within a part of the vocabulary (clamped), and True for those that lie in it."""
    return targets_N.clamp(0, width - 1), (targets_N >= 0) & (targets_N < width)


def _logits(hidden: Tensor, weight: Tensor, factor: float) -> Tensor:
    """Compute scaled logits in float32 (float64 for float64 input)."""
    logits = hidden @ weight.T
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits.mul_(factor) if factor != 1.0 else logits
