"""Check that the engine has the trainer's weights: a checksum of the received bytes, and a probe scored by both."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from reasoner.config.tolerances import TOLERANCES
from reasoner.engine.base import EngineError, NamedTensors

PIECE = 1 << 22
"""Number of values of a tensor that are summed at a time."""

PROBE_TOKENS = 160
"""Length of the probe. Longer than one KV block: 16 tokens on CUDA, 128 on vLLM's CPU build."""


def checksum(weights: NamedTensors) -> str:
    """Return a digest of the names, shapes, dtypes and contents of tensors, independent of their order."""
    total = Checksum()
    for name, tensor in weights:
        total.add(name, tensor)
    return total.digest()


class Checksum:
    """Checksum of a stream of weights. No tensor is kept; sums are computed on the tensor's own device."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Add one tensor to the checksum."""
        self._parts.append(f"{name} {tuple(tensor.shape)} {tensor.dtype} {_sums(tensor)}")

    def over(self, weights: NamedTensors) -> Iterator[tuple[str, Tensor]]:
        """Yield the same weights; each is added to the checksum as it is yielded."""
        for name, tensor in weights:
            self.add(name, tensor)
            yield name, tensor

    def digest(self) -> str:
        """Return the digest of all tensors added so far."""
        return hashlib.blake2b("\n".join(sorted(self._parts)).encode(), digest_size=16).hexdigest()


def _sums(tensor: Tensor) -> str:
    """Compute two sums over the bits, the second weighted by position, so that a changed or moved value is detected.

    The idea is Fletcher's checksum, here modulo 2^64. Sums run over pieces, to keep the 64-bit copy small.
    """
    flat = tensor.detach().contiguous().view(-1)
    bits = flat.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[flat.element_size()])
    plain = weighted = 0
    for start in range(0, len(bits), PIECE):
        piece = bits[start : start + PIECE].long()
        places = torch.arange(start + 1, start + 1 + len(piece), device=piece.device)
        plain += int(piece.sum())
        weighted += int((piece * places).sum())
    return f"{plain % (1 << 64):x} {weighted % (1 << 64):x}"


def probe_ids(vocabulary: int, *, forbidden: Sequence[int] = (), limit: int = PROBE_TOKENS) -> list[int]:
    """Return the probe: at most `limit` ordinary token ids, the same for every sync of a run."""
    allowed = [token for token in range(min(vocabulary, 1000)) if token not in set(forbidden)]
    return [allowed[(7 * i * i + 3 * i + 1) % len(allowed)] for i in range(min(limit, PROBE_TOKENS))]


def check_checksum(sent: str, arrived: str) -> None:
    """Check that the engine received the bytes that the trainer sent.

    Raises:
        EngineError: the checksums differ.
    """
    if sent != arrived:
        raise EngineError(
            f"weights must arrive at the engine as they were sent; checksum {sent} sent, {arrived} arrived."
            " The transport corrupted or dropped a tensor. The run stops here instead of sampling from other weights."
        )


def check_probe(engine_logprobs: Sequence[float], trainer_logprobs: Sequence[float], dtype: torch.dtype) -> float:
    """Return the mean |difference| between the two sides' log-probabilities of the probe, in nats per token.

    Raises:
        EngineError: it is above the tolerance of the dtype; the message names the usual causes.
    """
    if len(engine_logprobs) != len(trainer_logprobs):
        raise EngineError(f"probe: engine scored {len(engine_logprobs)} tokens, trainer {len(trainer_logprobs)}.")
    lost = sum(not math.isfinite(value) for value in engine_logprobs)
    if lost and all(map(math.isfinite, trainer_logprobs)):
        raise EngineError(
            f"the engine's log-probabilities must be finite; {lost} of {len(engine_logprobs)} on the probe are not,"
            " while the trainer's are: its forward pass overflows in the engine's dtype. Set engine.dtype=float32."
        )
    pairs = zip(engine_logprobs, trainer_logprobs, strict=True)
    gap = sum(abs(a - b) for a, b in pairs) / max(1, len(trainer_logprobs))
    allowed = TOLERANCES[str(dtype).removeprefix("torch.")].probe
    if not gap <= allowed:
        raise EngineError(
            f"after a weight sync engine and trainer must score the probe alike; they differ by {gap:.3g} nats per"
            f" token on average (at most {allowed:.3g} in {dtype}). The engine does not sample from the trainer's"
            " weights. Possible causes: a tied head that was not repacked, a stale KV cache, an adapter that was not"
            " merged, or another model or dtype on one side."
        )
    return gap
