"""Suggestions for misspelled names."""

from __future__ import annotations

from collections.abc import Iterable


def closest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known name most similar to `name`; None if none reaches `cutoff` (difflib's ratio, 0 to 1).

    Example:
        >>> closest("rlo", ["grpo", "rloo"]), closest("x", ["grpo"])
        ('rloo', None)
    """
    import difflib

    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests the closest known name, with a leading space; empty if none is close.

    Example:
        >>> did_you_mean("rlo", ["grpo", "rloo"])
        " Did you mean 'rloo'?"
    """
    meant = closest(name, known)
    return f" Did you mean {meant!r}?" if meant else ""
