"""Integrations with TRL, verl and reasoning-gym, in both directions. Packages are imported on first use."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable

from verifiers.errors import BadOption
from verifiers.pool import GradingPool
from verifiers.registry import load_attribute

_pools: dict[int, GradingPool] = {}
_opening = threading.Lock()


def process_pool(workers: int) -> GradingPool:
    """Return this process's pool with `workers` workers, opened on first use and closed at exit."""
    with _opening:
        if workers not in _pools:
            _pools[workers] = GradingPool(workers=workers)
            atexit.register(_pools[workers].close)
        return _pools[workers]


def load_function(target: str) -> Callable[..., object]:
    """Import the function at `module:attribute` or `file.py:attribute`.

    Raises:
        UnknownVerifier: it does not exist.
        BadOption: it is not callable.
    """
    found = load_attribute(target)
    if not callable(found):
        raise BadOption(f"function must name a function; {target} is {type(found).__name__}.")
    return found


def positive(full: float) -> float:
    """Return `full`, the number that a function returns for a right answer.

    Raises:
        BadOption: it is not above 0.
    """
    if not full > 0:
        raise BadOption(f"full, the function's number for a right answer, must be above 0; got {full}.")
    return full
