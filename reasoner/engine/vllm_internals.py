"""Private parts of vLLM 0.32 that are used here; no other module of `reasoner` touches any.

- `worker.reload_weights`, `worker.model_runner.model`, `layers.utils.dispatch_cpu_unquantized_gemm` and a head's
  `cpu_linear`: load new weights in place. vLLM's CPU build packs linear weights and empties the originals, so the
  model's own `load_weights` fails. `reload_weights` works, with two exceptions: the packed copy behind a tied head, and
  experts, whose `quant_method` packs them only while it has no `moe_kernel`.
- `LLM.llm_engine.engine_core.shutdown`: stop without waiting for the garbage collector.
- `vllm.distributed.parallel_state.destroy_distributed_environment` and `_WORLD`: what that shutdown calls at its end.
  It destroys torch's default process group, which is the trainer's where several processes train.
- `CuMemAllocator.allocator_and_pools`, `release_pools`: leave free memory for the next engine.
- `CPUAttentionBackend.get_supported_head_sizes`: report an unsupported model at the start, not at the first completion.

`tests/unit/test_private_names.py` says what to do if one of them is missing. A server's worker imports this module.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from reasoner.engine.base import EngineError, NamedTensors
from reasoner.engine.check import Checksum, checksum
from reasoner.engine.fetch import Fetch, Source

if TYPE_CHECKING:
    from vllm import LLM


class WeightLoader:
    """vLLM worker extension (`--worker-extension-cls`): gets new weights from files of the trainer.

    Answers are JSON values, for the route /collective_rpc.
    """

    _reasoner_fetch: Fetch | None = None

    def reasoner_sees(self, path: str) -> str:
        """Return the text in a file of the trainer; "" if this machine has no such file."""
        try:
            return Path(path).read_text()
        except OSError:
            return ""

    def reasoner_fetch(self, source: dict[str, Any]) -> None:
        """Begin to fetch files (`Source`) from the trainer. Sampling goes on meanwhile."""
        if self._reasoner_fetch is not None:
            self._reasoner_fetch.stop()
        self._reasoner_fetch = Fetch(Source(**source))

    def reasoner_fetched(self) -> dict[str, Any]:
        """Return whether the fetch has ended, its error, and the bytes received so far."""
        fetch = self._reasoner_fetch
        if fetch is None:
            return {"done": True, "error": "this worker was restarted", "bytes": 0}
        return {"done": fetch.done, "error": fetch.error, "bytes": fetch.bytes}

    def reasoner_load_weights(self, folder: str) -> str:
        """Load the safetensors files of a folder in place; return the checksum of the tensors read."""
        return load_into(self, tensors_of(Path(folder)))

    def reasoner_checksum(self, folder: str) -> str:
        """Return the checksum of the tensors in the files of a folder."""
        return checksum(tensors_of(Path(folder)))

    def reasoner_adapter_room(self) -> list[int]:
        """Return how many adapters fit in a batch, and how many in host memory."""
        found = self.vllm_config.lora_config  # pyright: ignore[reportAttributeAccessIssue]  (of vLLM's worker)
        return [0, 0] if found is None else [found.max_loras, found.max_cpu_loras]

    def reasoner_drop(self, folder: str) -> None:
        """Remove fetched files."""
        shutil.rmtree(folder, ignore_errors=True)


def tensors_of(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in a folder of safetensors files."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                yield name, file.get_tensor(name)


def load_into(worker: Any, weights: NamedTensors) -> str:
    """Replace a worker's weights (Hugging Face names); return the checksum of the received tensors."""
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
    """Pack the tied output head again after its embedding has changed (CPU build only)."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    head = getattr(worker.model_runner.model, "lm_head", None)
    head = getattr(head, "base_layer", head)  # under a LoRA layer, which shows its attributes as its own
    if head is not None and hasattr(head, "cpu_linear"):
        dispatch_cpu_unquantized_gemm(head, remove_weight=False)


def check_head_size(size: int) -> None:
    """Reject a head size that vLLM's CPU kernels do not support, before the first generation fails with their error.

    Raises:
        EngineError: it is not supported; the message lists the supported sizes.
    """
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    supported = CPUAttentionBackend.get_supported_head_sizes()
    if size not in supported:
        raise EngineError(
            f"vLLM's attention on a CPU supports head sizes {', '.join(map(str, supported))}; this model has {size}."
            " Set engine.name=hf, or give a model from scratch fewer heads (the head size is hidden_size / heads)."
        )


def stop_core(llm: LLM, *, shared_group: bool) -> None:
    """Stop an engine's workers now instead of at the next garbage collection.

    Args:
        llm: the engine.
        shared_group: True if torch's default process group is the trainer's: it is kept, only vLLM's own are destroyed.
    """
    from vllm.distributed import parallel_state

    before = parallel_state.destroy_distributed_environment
    if shared_group:
        parallel_state.destroy_distributed_environment = _destroy_own_groups
    try:
        llm.llm_engine.engine_core.shutdown()
    finally:
        parallel_state.destroy_distributed_environment = before


def _destroy_own_groups() -> None:
    from vllm.distributed import parallel_state

    if parallel_state._WORLD is not None:
        parallel_state._WORLD.destroy()
    parallel_state._WORLD = None


@contextmanager
def pools_outlive(used: bool) -> Iterator[None]:
    """Release vLLM's memory pools only after this block, once they are empty.

    vLLM's own shutdown releases them while its runner still has a KV cache there. The next engine in this process would
    then refuse to start.
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
