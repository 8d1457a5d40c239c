"""Proof that the engine holds the trainer's weights: a checksum of what arrived, and a probe scored by both sides."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from reasoner.config.tolerances import TOLERANCES
from reasoner.engine.base import EngineError, NamedTensors

PIECE = 1 << 22
"""Values of a tensor that are summed at a time."""

PROBE_TOKENS = 160
"""Longer than one KV block: 16 tokens on CUDA, 128 on vLLM's CPU build."""


def checksum(weights: NamedTensors) -> str:
    """Digest of names, shapes, dtypes and contents, whatever the order."""
    total = Checksum()
    for name, tensor in weights:
        total.add(name, tensor)
    return total.digest()


class Checksum:
    """A checksum that grows while weights pass by: nothing is held, and the sums run where the tensors lie."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Take in one tensor."""
        self._parts.append(f"{name} {tuple(tensor.shape)} {tensor.dtype} {_sums(tensor)}")

    def over(self, weights: NamedTensors) -> Iterator[tuple[str, Tensor]]:
        """The same weights, taken in one by one as they are drawn."""
        for name, tensor in weights:
            self.add(name, tensor)
            yield name, tensor

    def digest(self) -> str:
        """Of everything taken in so far."""
        return hashlib.blake2b("\n".join(sorted(self._parts)).encode(), digest_size=16).hexdigest()


def _sums(tensor: Tensor) -> str:
    """Two sums over the bits, one weighted by position (Fletcher's idea, modulo 2^64): a changed or moved value shows.

    In pieces, so that the 64-bit copy stays small.
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
            f"after a weight sync engine and trainer must score the probe alike; they differ by {gap:.3g} nats a token"
            f" on average (at most {allowed:.3g} in {dtype}). The engine does not sample from the trainer's"
            " weights: a tied head that was not repacked, a stale KV cache, an adapter that was not merged, or another"
            " model or dtype on one side."
        )
    return gap
