"""The seed of each request, from the run's seed."""

from __future__ import annotations

import hashlib


def request_seed(*parts: int | str) -> int:
    """A seed in [0, 2^31) that depends on every part: the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (1 << 31)
