"""Log-probabilities in parts against a plain log-softmax: values, gradients, entropies, dtypes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from reasoner.model.logprobs import logprobs_and_entropy

N, D, V = 23, 8, 50
CHUNK_BYTES = 4 * N * 7
"""Seven tokens of the vocabulary, or three of the completions, at a time: the last part of each is short."""


def problem(dtype: torch.dtype = torch.float64, *, bias: bool = False) -> tuple[Tensor, nn.Linear, Tensor, Tensor]:
    torch.manual_seed(3)
    head = nn.Linear(D, V, bias=bias, dtype=dtype)
    hidden_ND = torch.randn(N, D, dtype=dtype, requires_grad=True)
    return hidden_ND, head, torch.randint(0, V, (N,)), torch.randn(N, dtype=dtype)


def plain(
    hidden_ND: Tensor, head: nn.Linear, targets_N: Tensor, temperature: float, scale: float = 1.0, cap: float = 0
):
    logits = head(hidden_ND) * scale
    logits = cap * torch.tanh(logits / cap) if cap else logits
    logprobs = (logits / temperature).log_softmax(-1)
    return logprobs.gather(1, targets_N[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


@pytest.mark.parametrize("max_bytes", [4 * V * N, CHUNK_BYTES, 1], ids=["whole", "chunks", "one by one"])
@pytest.mark.parametrize(
    ("bias", "settings"),
    [
        (False, {}),
        (True, {}),
        (False, {"logits_scaling": 4.0}),
        (False, {"final_logit_softcapping": 2.0}),
    ],
    ids=["plain", "bias", "scale", "cap"],
)
def test_values_and_gradients_are_those_of_a_plain_softmax(
    max_bytes: int, bias: bool, settings: dict[str, Any]
) -> None:
    hidden_ND, head, targets_N, weights_N = problem(bias=bias)
    found = logprobs_and_entropy(
        hidden_ND, head, targets_N, temperature=0.7, max_bytes=max_bytes, config=PretrainedConfig(**settings)
    )
    scale, cap = 1 / settings.get("logits_scaling", 1.0), settings.get("final_logit_softcapping", 0)
    logprobs_N, entropy_N = plain(hidden_ND, head, targets_N, 0.7, scale, cap)
    assert torch.allclose(found.logprobs_N, logprobs_N, atol=1e-12)
    assert torch.allclose(found.entropy_N, entropy_N, atol=1e-12)
    assert not found.entropy_N.requires_grad
    wanted = torch.autograd.grad((logprobs_N * weights_N).sum(), [hidden_ND, *head.parameters()])
    got = torch.autograd.grad((found.logprobs_N * weights_N).sum(), [hidden_ND, *head.parameters()])
    for one, other in zip(got, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_entropy_gradient_in_chunks() -> None:
    hidden_ND, head, targets_N, weights_N = problem()
    found = logprobs_and_entropy(
        hidden_ND, head, targets_N, temperature=0.7, max_bytes=CHUNK_BYTES, entropy_gradient=True
    )
    wanted = torch.autograd.grad(
        (plain(hidden_ND, head, targets_N, 0.7)[1] * weights_N).sum(), [hidden_ND, head.weight]
    )
    got = torch.autograd.grad((found.entropy_N * weights_N).sum(), [hidden_ND, head.weight])
    for one, other in zip(got, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_a_frozen_head_takes_no_gradient() -> None:
    hidden_ND, head, targets_N, _ = problem()
    head.requires_grad_(False)
    logprobs_and_entropy(hidden_ND, head, targets_N, temperature=1.0, max_bytes=CHUNK_BYTES).logprobs_N.sum().backward()
    assert head.weight.grad is None
    assert hidden_ND.grad is not None


def test_bfloat16_autocast_in_chunks_is_that_of_the_whole() -> None:
    hidden_ND, head, targets_N, weights_N = problem(torch.float32)
    gradients: list[list[Tensor]] = []
    for max_bytes in (4 * V * N, CHUNK_BYTES):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = logprobs_and_entropy(hidden_ND, head, targets_N, temperature=1.0, max_bytes=max_bytes)
        assert found.logprobs_N.dtype == torch.float32
        loss = (found.logprobs_N * weights_N).sum()
        gradients.append([found.logprobs_N, *torch.autograd.grad(loss, [hidden_ND, head.weight])])
    for one, other in zip(*gradients, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert torch.allclose(one, other, atol=0.05)
