"""Proof that the engine holds the trainer's weights: a checksum of what arrived, and a probe scored by both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from reasoner.engine.base import EngineError, NamedTensors

PROBE_TOKENS = 160
"""Longer than one KV block: 16 tokens on CUDA, 128 on vLLM's CPU build."""

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}
"""Largest accepted mean |log-probability difference| on the probe, in nats a token. float32 kernels agree to about
1e-6 on small models and bfloat16 to about 1e-2 (more with depth); weights one optimizer step old differ by more than
1e-3 wherever the step mattered, and the checksum catches what did not arrive at all."""


def checksum(weights: NamedTensors) -> str:
    """Digest of names, shapes and bytes, whatever the order and the dtype's width."""
    digests: list[bytes] = []
    for name, tensor in weights:
        flat = tensor.detach().contiguous().view(-1).view(torch.uint8).cpu()
        digest = hashlib.blake2b(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode(), digest_size=16)
        digest.update(flat.numpy().data)
        digests.append(digest.digest())
    return hashlib.blake2b(b"".join(sorted(digests)), digest_size=16).hexdigest()


def probe_ids(vocabulary: int, *, forbidden: Sequence[int] = (), limit: int = PROBE_TOKENS) -> list[int]:
    """A fixed text of at most `limit` ordinary tokens: the same for every sync of a run."""
    allowed = [token for token in range(min(vocabulary, 1000)) if token not in set(forbidden)]
    return [allowed[(7 * i * i + 3 * i + 1) % len(allowed)] for i in range(min(limit, PROBE_TOKENS))]


def check_checksum(sent: str, arrived: str) -> None:
    """Raise where the engine received other bytes than the trainer sent.

    Raises:
        EngineError: they differ.
    """
    if sent != arrived:
        raise EngineError(
            f"weights must arrive at the engine as they were sent; checksum {sent} sent, {arrived} arrived."
            " The transport corrupted or dropped a tensor: the run stops rather than sample from other weights."
        )


def check_probe(engine_logprobs: Sequence[float], trainer_logprobs: Sequence[float], dtype: torch.dtype) -> float:
    """The mean |difference| between both sides' log-probabilities of the probe.

    Raises:
        EngineError: it is above the tolerance of the dtype; names the usual causes.
    """
    if len(engine_logprobs) != len(trainer_logprobs):
        raise EngineError(f"probe: engine scored {len(engine_logprobs)} tokens, trainer {len(trainer_logprobs)}.")
    pairs = zip(engine_logprobs, trainer_logprobs, strict=True)
    gap = sum(abs(a - b) for a, b in pairs) / max(1, len(trainer_logprobs))
    if not gap <= TOLERANCE[dtype]:
        raise EngineError(
            f"after a weight sync engine and trainer must score the probe alike; they differ by {gap:.3g} nats a token"
            f" on average (at most {TOLERANCE[dtype]:.3g} in {dtype}). The engine does not sample from the trainer's"
            " weights: a tied head that was not repacked, a stale KV cache, an adapter that was not merged, or another"
            " model or dtype on one side."
        )
    return gap
