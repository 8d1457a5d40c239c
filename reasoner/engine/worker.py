"""What runs inside vLLM's worker: new weights, loaded in place. vLLM 0.32.

vLLM's CPU build packs linear weights and empties the originals, so the model's own `load_weights` fails and
`reload_weights` works, except for the packed copy behind a tied head, which has to be packed again.
"""

from __future__ import annotations

from typing import Any

from reasoner.engine.base import NamedTensors
from reasoner.engine.check import Checksum


class WeightLoader:
    """vLLM worker extension (`--worker-extension-cls`): loads weights from a file that the trainer wrote."""

    def reasoner_load_weights(self, path: str) -> str:
        """Load a safetensors file in place; returns the checksum of what was read."""
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            return load_into(self, ((name, file.get_tensor(name)) for name in file.keys()))  # noqa: SIM118 (no mapping)


def load_into(worker: Any, weights: NamedTensors) -> str:
    """Replace a worker's weights (Hugging Face names); returns the checksum of what came in."""
    arrived = Checksum()
    worker.reload_weights(weights_iterator=arrived.over(weights))
    repack_tied_head(worker)
    return arrived.digest()


def repack_tied_head(worker: Any) -> None:
    """Pack the tied output head again from the embedding that has just changed (CPU build only)."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    head = getattr(worker.model_runner.model, "lm_head", None)
    if head is not None and hasattr(head, "cpu_linear"):
        dispatch_cpu_unquantized_gemm(head, remove_weight=False)
