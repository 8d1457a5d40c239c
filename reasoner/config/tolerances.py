"""Tolerated difference of log-probabilities of the same weights between two implementations, by dtype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Tolerance(NamedTuple):
    """Largest accepted mean |difference| of log-probabilities, in nats per token, for two kinds of text.

    float32 kernels agree to about 1e-6 on small models, bfloat16 ones to about 1e-2 (more with depth). Weights that are
    one optimizer step old differ by more than 1e-3 wherever the step mattered, and the checksum of a weight sync
    detects tensors that did not arrive at all.
    """

    probe: float
    """For one arbitrary text that the model finds unlikely, where rounding has most effect. A larger difference (a
    failed weight sync, or servers that disagree) stops the run."""
    sampled: float
    """For the sampled tokens of a step, which the model finds likely; `reasoner explain` reports a larger gap."""


TOLERANCES: Mapping[str, Tolerance] = {
    "float32": Tolerance(probe=1e-3, sampled=1e-3),
    "bfloat16": Tolerance(probe=0.15, sampled=0.05),
    "float16": Tolerance(probe=0.05, sampled=0.05),
}
