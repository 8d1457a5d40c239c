"""Environment variables and imports to set up before torch is imported. Importing this module changes nothing."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def prepare_process(*, late: bool = False) -> None:
    """Set the variables that OpenMP, torch and vLLM read once at import, if unset. Call before importing torch.

    Without a passive OpenMP wait policy two thread pools on the same cores spin against each other, and vLLM's CPU
    build becomes 5 to 15 times slower. But a thread that sleeps at once makes the many small operations of a small
    model a third slower than a thread that first spins for about 0.2 ms. On one machine half of that spin time cost up
    to a fifth; twice as much costs a fifth when two runs share the cores. Without OMP_NUM_THREADS vLLM pins torch to
    one thread for the whole process.

    Args:
        late: True if torch is already imported, as in a notebook: set the variables that are still read, mainly vLLM's.

    Raises:
        AssertionError: torch is already imported and `late` is False.
    """
    assert late or sys.modules.get("torch") is None, "prepare_process must run before torch is imported"
    defaults = {
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "5000",
        "OMP_NUM_THREADS": str(available_cpus()),
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    }
    if not _has_nvidia():
        # vLLM ranks sampled tokens in a function that inductor would compile for 2 to 20 seconds
        defaults["TORCH_COMPILE_DISABLE"] = "1"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


HUB = "https://huggingface.co"


def go_offline_where_cut_off() -> None:
    """Set HF_HUB_OFFLINE, if unset and the hub's name cannot be resolved: its client would retry for half a minute.

    Cached models and data are then used, and others are refused at once. Call before anything imports the hub's client.
    Nothing is set behind a proxy, where names need not resolve on this machine.
    """
    import socket
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    if "HF_HUB_OFFLINE" in os.environ or {"https", "http", "all"} & getproxies().keys():
        return
    host = urlsplit(os.environ.get("HF_ENDPOINT", HUB)).hostname
    try:
        socket.getaddrinfo(host, 443)
    except socket.gaierror:
        os.environ["HF_HUB_OFFLINE"] = "1"
    except (OSError, ValueError):  # leave any other problem to the client's own error message
        return


UNUSED = {"sklearn": "is_sklearn_available", "scipy": "is_scipy_available"}
"""Packages that transformers imports if they are installed, with the function that checks for each."""


def skip_unused_packages() -> None:
    """Make transformers ignore scikit-learn and SciPy, which it imports for assisted generation and object detection.

    If installed, they take a fifth of the import time of a run. Other code can still import them: transformers checks
    only once, here, while they are hidden.
    """
    with without(*UNUSED) as hidden:
        from transformers.utils import import_utils

        for package in hidden:
            getattr(import_utils, UNUSED[package])()


@contextmanager
def without(*packages: str) -> Iterator[list[str]]:
    """Hide packages within this block, as if they were not installed. Yields those that were not imported before."""
    hidden = [package for package in packages if package not in sys.modules]
    for package in hidden:
        sys.modules[package] = None  # pyright: ignore[reportArgumentType]  (Python's way to block an import)
    try:
        yield hidden
    finally:
        for package in hidden:
            del sys.modules[package]


@contextmanager
def imported_for_good() -> Iterator[None]:
    """Import heavy packages in this block; the garbage collector ignores them from then on.

    Otherwise it would repeatedly walk hundreds of thousands of objects that never become garbage: 0.4 s of CPU at each
    full collection after vLLM's import, and a third of the time to start an engine. Garbage from before the block is
    collected first. Cycles alive at the end of the block are never collected (`gc.freeze`).
    """
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # extension modules report objects that are not freed at interpreter exit
        if collecting:
            gc.enable()


def available_cpus() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _has_nvidia() -> bool:
    return os.path.exists("/dev/nvidia0") or os.path.exists("/proc/driver/nvidia/version")
