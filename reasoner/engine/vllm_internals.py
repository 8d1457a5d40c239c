"""What is used of vLLM 0.32 beyond its documented interface; no other module of `reasoner` touches it.

- `worker.reload_weights`, `worker.model_runner.model`, `layers.utils.dispatch_cpu_unquantized_gemm` and a head's
  `cpu_linear`: new weights in place. vLLM's CPU build packs linear weights and empties the originals, so the model's
  own `load_weights` fails and `reload_weights` works, except for the packed copy behind a tied head, and for experts,
  whose `quant_method` packs them only while it has no `moe_kernel`.
- `LLM.llm_engine.engine_core.shutdown`: an end that does not wait for the collector.
- `CuMemAllocator.allocator_and_pools`, `release_pools`: an end that leaves memory for the next engine.
- `CPUAttentionBackend.get_supported_head_sizes`: a refusal at the start rather than at the first completion.

`tests/unit/test_private_names.py` says what to do where one of them is gone. A server's worker imports this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from reasoner.engine.base import EngineError, NamedTensors
from reasoner.engine.check import Checksum

if TYPE_CHECKING:
    from vllm import LLM


class WeightLoader:
    """vLLM worker extension (`--worker-extension-cls`): loads weights from a file that the trainer wrote."""

    def reasoner_load_weights(self, path: str) -> str:
        """Load a safetensors file in place; returns the checksum of what was read."""
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            return load_into(self, ((name, file.get_tensor(name)) for name in file.keys()))  # noqa: SIM118 (no mapping)


def load_into(worker: Any, weights: NamedTensors) -> str:
    """Replace a worker's weights (Hugging Face names); returns the checksum of what came in."""
    from reasoner.model.internals import checkpoint_names

    arrived, model = Checksum(), worker.model_runner.model
    if next(model.parameters()).device.type == "cpu":
        for layer in model.modules():
            if getattr(getattr(layer, "quant_method", None), "moe_kernel", None) is not None:
                layer.quant_method.moe_kernel = None
    config = worker.model_config.hf_config
    worker.reload_weights(weights_iterator=checkpoint_names(config, arrived.over(weights)))
    repack_tied_head(worker)
    return arrived.digest()


def repack_tied_head(worker: Any) -> None:
    """Pack the tied output head again from the embedding that has just changed (CPU build only)."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    head = getattr(worker.model_runner.model, "lm_head", None)
    if head is not None and hasattr(head, "cpu_linear"):
        dispatch_cpu_unquantized_gemm(head, remove_weight=False)


def check_head_size(size: int) -> None:
    """Refuse at once what would end the first generation with an error of vLLM's kernels on a CPU.

    Raises:
        EngineError: names the sizes that they take.
    """
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    taken = CPUAttentionBackend.get_supported_head_sizes()
    if size not in taken:
        raise EngineError(
            f"vLLM's attention on a CPU takes heads of size {', '.join(map(str, taken))}; this model's are of {size}."
            " Set engine.name=hf, or give a model from scratch fewer heads (hidden_size / heads is their size)."
        )


def stop_core(llm: LLM) -> None:
    """End an engine's workers now, not when the garbage collector finds it."""
    llm.llm_engine.engine_core.shutdown()


@contextmanager
def pools_outlive(used: bool) -> Iterator[None]:
    """Give vLLM's memory pools up only after this, when nothing lies in them any more.

    Its own shutdown does so while its runner still holds a KV cache there, and the next engine of this process refuses
    to start while anything does.
    """
    if not used:
        yield
        return
    from vllm.device_allocator.cumem import CuMemAllocator

    allocator = CuMemAllocator.get_instance()
    pools = dict(allocator.allocator_and_pools)
    yield
    allocator.allocator_and_pools.update(pools)
    pools.clear()
    allocator.release_pools()
