"""Imports that a dataset's grader adds to every program, so that the program need not contain them."""

from __future__ import annotations

from collections.abc import Mapping

_STARS = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json",
)  # fmt: skip
"""Star imports of LiveCodeBench, lcb_runner/evaluation/testing_util.py, 28fef95, followed by builtins and typing."""
_NAMES: Mapping[str, str] = {
    "itertools": "accumulate, product, permutations, combinations",
    "collections": "Counter, OrderedDict, deque, defaultdict, ChainMap",
    "functools": "lru_cache",
    "math": "sqrt, sin, cos, tan, ceil, fabs, floor, gcd, exp, log, log2",
    "typing": "List, Tuple",
    "heapq": "*",
}
"""Imports of hendrycks/apps, eval/testing_util.py, 362aedc; TACO has the same."""


def _everything(recursion: int) -> str:
    stars = [f"from {module} import *" for module in (*_STARS, "builtins", "typing")]
    return "\n".join([*stars, *(f"import {module}" for module in _STARS), f"sys.setrecursionlimit({recursion})", ""])


def _some() -> str:
    modules = ["sys", "time", "fractions", "random", "itertools", "collections", "math", "heapq"]
    lines = [f"import {module}" for module in modules]
    lines += [f"from {module} import {names}" for module, names in _NAMES.items()]
    lines += ["try:", "    import numpy as np", "except ImportError:", "    pass"]
    return "\n".join([*lines, "stdin, stdout = sys.stdin, sys.stdout", ""])


IMPORTS: Mapping[str, str] = {
    "typing": "from typing import *\n",
    "livecodebench": _everything(50_000),
    "eurus": _everything(600_000),
    "apps": _some(),
}
"""Values of `imports`, in a reference or the verifier's options -> source that runs before the program and prelude."""
