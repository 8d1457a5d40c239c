"""Packages of others under our names: `tasks.py` of a project, another distribution's `verifiers`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

OURS = ("sandbox", "verifiers", "tasks")
MARK = '__distribution__ = "reasoner-rl"'
"""A line of the `__init__.py` of each of them."""


def leave_working_directory() -> None:
    """Take the working directory off the front of the path, where `python -m` puts it, unless the program is there."""
    here = Path(__file__).resolve().parents[1]
    if sys.path and sys.path[0] in ("", str(Path.cwd())) and Path.cwd().resolve() != here:
        del sys.path[0]


def foreign_package() -> str | None:
    """Say which of our names leads to somebody else's package, and what to do; None where none does."""
    for name in OURS:
        spec = importlib.util.find_spec(name)
        if spec is None:
            return f"the package {name!r} of reasoner is missing: install reasoner-rl anew."
        place = Path(spec.origin) if spec.origin else None
        if place is not None and MARK in place.read_text(encoding="utf-8", errors="replace"):
            continue
        found = place or next(iter(spec.submodule_search_locations or ()), "an unknown place")
        if place is None and (Path(found).parent / "reasoner" / "shadowed.py").is_file():
            return (
                f"the package {name!r} of reasoner is damaged ({found}): another package of that name was installed"
                " over it, and removed. Install reasoner-rl (or its folder) anew:"
                " pip install --force-reinstall --no-deps reasoner-rl."
            )
        if {"site-packages", "dist-packages"} & {*Path(found).parts}:
            return (
                f"another package is installed under the name {name!r} ({found}), which reasoner-rl needs for its own."
                " Keep the two in environments of their own."
            )
        return (
            f"the name {name!r}, which reasoner needs, leads to {found}. Rename it, start from another folder, or take"
            " its folder out of PYTHONPATH."
        )
    return None
