"""Weight sync: send the policy's weights to an engine and prove that they took effect."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from reasoner import processes
from reasoner.engine.base import Adapter, Engine, NamedTensors
from reasoner.engine.check import Checksum, check_checksum, check_probe


def sync(
    engine: Engine,
    weights: NamedTensors,
    version: int,
    *,
    probe: Sequence[int],
    score: Callable[[Sequence[int]], list[float]],
    dtype: torch.dtype,
    check: bool = True,
    adapter: Adapter | None = None,
) -> float:
    """Send the weights, compare the checksum of what arrived, and score the probe on both sides.

    Args:
        engine: receives the weights.
        weights: the policy's weights, under the engine's names.
        version: written into all completions sampled with these weights.
        probe: token ids that both sides score.
        score: returns the policy's own log-probabilities of the probe.
        dtype: dtype of the policy; sets the tolerance.
        check: False skips checksum and probe.
        adapter: the policy's adapter; an engine that applies adapters gets it alone, any other gets `weights`.
    Returns:
        The mean absolute difference on the probe in nats per token; NaN if not checked.
    Raises:
        EngineError: other weights arrived, or the two sides score the probe differently.
    """
    expected = score(probe) if check else []
    sent, arrived = Checksum(), None
    if adapter is not None:
        arrived = engine.load_adapter(adapter._replace(tensors=sent.over(adapter.tensors)), version)
    if arrived is None:
        sent = Checksum()
        arrived = engine.load_weights(sent.over(weights), version)
    if not check:
        return float("nan")
    check_checksum(sent.digest(), arrived)
    processes.wait()  # servers shared by all processes get their weights from one of them
    return check_probe(engine.score(list(probe)), expected, dtype)
