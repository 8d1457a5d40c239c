"""Child processes that run a function of this project: their command line, and the limits they set on themselves."""

from __future__ import annotations

import json
import resource
import sys


def running(module: str, call: str) -> list[str]:
    """Return the command of a new Python process that has this one's `sys.path`, imports `main` and runs `call`.

    Args:
        module: module that defines `main`.
        call: Python expression that calls it.

    Example:
        >>> running("verifiers.pool.worker_main", "main(1, None)")[1]
        '-c'
    """
    path = json.dumps(sys.path)
    code = f"import sys, json; sys.path[:] = json.loads({path!r}); from {module} import main; {call}"
    return [sys.executable, "-c", code]


def limit(which: int, value: int) -> None:
    """Set a soft resource limit of this process, capped at its hard limit."""
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


__all__ = ["limit", "running"]
