"""Child processes that run a function of ours: how they are started, and limits that they set themselves."""

from __future__ import annotations

import json
import resource
import sys


def running(module: str, call: str) -> list[str]:
    """The command of a fresh Python that imports from where this one does, and runs `call` of a module's `main`.

    Example:
        >>> running("verifiers.pool.worker_main", "main(1, None)")[1]
        '-c'
    """
    path = json.dumps(sys.path)
    code = f"import sys, json; sys.path[:] = json.loads({path!r}); from {module} import main; {call}"
    return [sys.executable, "-c", code]


def limit(which: int, value: int) -> None:
    """Set a soft resource limit of this process, at most its hard one."""
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


__all__ = ["limit", "running"]
