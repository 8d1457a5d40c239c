"""What must be set before torch is imported. Importing this module sets nothing."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def prepare_process(*, late: bool = False) -> None:
    """Set, where unset, the variables that OpenMP, torch and vLLM read once at import. Call before importing torch.

    Without a passive OpenMP wait policy two thread pools on the same cores spin against each other, and vLLM's CPU
    build becomes 5 to 15 times slower; but a thread that sleeps at once makes the many small operations of a small
    model a third slower than one that first spins for some 0.2 ms. Half of that cost up to a fifth on one machine;
    twice as much costs a fifth where two runs share the cores. Without OMP_NUM_THREADS vLLM pins torch to one thread
    for the whole process.

    Args:
        late: torch is imported already, as in a notebook: set what is still read, for vLLM above all.

    Raises:
        AssertionError: torch is imported already, and `late` does not say so.
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
    """Set HF_HUB_OFFLINE, where unset, if the hub's name cannot be resolved: its client would retry for half a minute.

    Models and data that are in the cache are then taken from there, and others refused at once. Call before anything
    imports the hub's client. Behind a proxy names need not resolve here: nothing is set.
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
    except (OSError, ValueError):  # whatever else the client itself will say of it
        return


UNUSED = {"sklearn": "is_sklearn_available", "scipy": "is_scipy_available"}
"""Packages that transformers imports where it finds them, by the function that it asks."""


def skip_unused_packages() -> None:
    """Let transformers do without scikit-learn and SciPy: it imports them for assisted generation and object detection.

    Where they are installed they are a fifth of what starting a run imports. Others import them as ever: transformers
    asks once, here, while they cannot be found.
    """
    with without(*UNUSED) as hidden:
        from transformers.utils import import_utils

        for package in hidden:
            getattr(import_utils, UNUSED[package])()


@contextmanager
def without(*packages: str) -> Iterator[list[str]]:
    """Import in this block as if these packages were not installed; hands out those of them that are not there yet."""
    hidden = [package for package in packages if package not in sys.modules]
    for package in hidden:
        sys.modules[package] = None  # pyright: ignore[reportArgumentType]  (how Python says that there is none)
    try:
        yield hidden
    finally:
        for package in hidden:
            del sys.modules[package]


@contextmanager
def imported_for_good() -> Iterator[None]:
    """Import heavy packages in this block, which the garbage collector then leaves alone for as long as they are held.

    Hundreds of thousands of objects that never become garbage would be walked time and again: 0.4 s of CPU at each
    full collection after vLLM's import, and a third of what starting an engine takes. Garbage from before the block
    is collected first; cycles that are in use at its end are not found later (`gc.freeze`).
    """
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # extension modules report what is not freed at the interpreter's end
        if collecting:
            gc.enable()


def available_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _has_nvidia() -> bool:
    return os.path.exists("/dev/nvidia0") or os.path.exists("/proc/driver/nvidia/version")
