"""Trainer for GRPO, PPO and related methods with a common policy interface. `run` and `Run` are for use from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reasoner.shadowed import foreign_package

if TYPE_CHECKING:
    from reasoner.api import Run, run

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "run"]


def __getattr__(name: str) -> object:
    """Import `run` and `Run` on first access: most commands do not need them.

    Raises:
        ImportError: a foreign package has the name of one of ours; the message names it and says what to do.
    """
    if name in ("Run", "run"):
        if error := foreign_package():
            raise ImportError(error)
        from reasoner import api

        return getattr(api, name)
    raise AttributeError(f"module 'reasoner' has no attribute {name!r}")
