"""Giving an engine the policy's weights, with proof that they took effect."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from reasoner import processes
from reasoner.engine.base import Engine, NamedTensors
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
) -> float:
    """Send weights, compare the checksum of what arrived, score the probe on both sides.

    Args:
        engine: takes the weights.
        weights: of the policy, in the engine's names.
        version: written into what the engine samples with them.
        probe: token ids that both sides score.
        score: the policy's own log-probabilities of the probe.
        dtype: of the policy; decides how far both may differ.
        check: False: neither checksum nor probe.
    Returns:
        The mean difference on the probe in nats a token; NaN if not checked.
    Raises:
        EngineError: other weights arrived, or both sides score the probe differently.
    """
    expected = score(probe) if check else []
    sent = Checksum()
    arrived = engine.load_weights(sent.over(weights), version)
    if not check:
        return float("nan")
    check_checksum(sent.digest(), arrived)
    processes.wait()  # servers that all processes share are given their weights by one
    return check_probe(engine.score(list(probe)), expected, dtype)
