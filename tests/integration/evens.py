"""A reward that random weights earn in every group: the share of even characters. For tests that need a gradient."""

from __future__ import annotations

from verifiers import verifier


@verifier("evens")
def evens(completion: str) -> float:
    """Return the share of characters with an even code point."""
    return sum(ord(character) % 2 == 0 for character in completion) / max(1, len(completion))
