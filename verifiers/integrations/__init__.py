"""Our verifiers in other trainers, and theirs here: TRL, verl, reasoning-gym. Packages are imported where used."""

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
    """This process's pool with so many workers, opened on first use, closed when the process ends."""
    with _opening:
        if workers not in _pools:
            _pools[workers] = GradingPool(workers=workers)
            atexit.register(_pools[workers].close)
        return _pools[workers]


def load_function(target: str) -> Callable[..., object]:
    """The function at `module:attribute` or `file.py:attribute`.

    Raises:
        UnknownVerifier: it is not there. BadOption: it cannot be called.
    """
    found = load_attribute(target)
    if not callable(found):
        raise BadOption(f"function must name a function; {target} is {type(found).__name__}.")
    return found


def positive(full: float) -> float:
    """The number that a function gives a right answer.

    Raises:
        BadOption: it is not above 0.
    """
    if not full > 0:
        raise BadOption(f"full must be above 0: what the function gives a right answer; got {full}.")
    return full
