"""Detection of foreign packages with our names: a project's `tasks.py`, another distribution's `verifiers`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

OURS = ("sandbox", "verifiers", "tasks")
MARK = '__distribution__ = "reasoner-rl"'
"""Line in the `__init__.py` of each of our packages."""


def leave_working_directory() -> None:
    """Remove the working directory, which `python -m` adds, from the import path, unless reasoner itself is there."""
    here = Path(__file__).resolve().parents[1]
    if sys.path and sys.path[0] in ("", str(Path.cwd())) and Path.cwd().resolve() != here:
        del sys.path[0]


def foreign_package() -> str | None:
    """Check that our package names do not lead to foreign packages.

    Returns:
        A message that names the first foreign, missing or damaged package and says what to do; None if all are ours.
    """
    for name in OURS:
        spec = importlib.util.find_spec(name)
        if spec is None:
            return f"the package {name!r} of reasoner is missing: reinstall reasoner-rl."
        place = Path(spec.origin) if spec.origin else None
        if place is not None and MARK in place.read_text(encoding="utf-8", errors="replace"):
            continue
        found = place or next(iter(spec.submodule_search_locations or ()), "an unknown place")
        if place is None and (Path(found).parent / "reasoner" / "shadowed.py").is_file():
            return (
                f"the package {name!r} of reasoner is damaged ({found}): another package of that name was installed"
                " over it and then removed. Reinstall reasoner-rl (or its folder):"
                " pip install --force-reinstall --no-deps reasoner-rl."
            )
        if {"site-packages", "dist-packages"} & {*Path(found).parts}:
            return (
                f"another package is installed as {name!r} ({found}), a name that reasoner-rl needs for its own"
                " package. Install the two in separate environments."
            )
        return (
            f"the name {name!r}, which reasoner needs, leads to {found}. Rename it, start from another folder, or"
            " remove its folder from PYTHONPATH."
        )
    return None
