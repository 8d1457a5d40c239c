"""The trainer: GRPO, PPO and their neighbours over one policy interface; `run` and `Run` for use from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reasoner.shadowed import foreign_package

if TYPE_CHECKING:
    from reasoner.api import Run, run

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "run"]


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for: most commands need none of it.

    Raises:
        ImportError: another package has the name of one that it needs; says which, and what to do.
    """
    if name in ("Run", "run"):
        if said := foreign_package():
            raise ImportError(said)
        from reasoner import api

        return getattr(api, name)
    raise AttributeError(f"module 'reasoner' has no attribute {name!r}")
