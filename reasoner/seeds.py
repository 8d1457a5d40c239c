"""Seeds of requests, derived from the run's seed."""

from __future__ import annotations

import hashlib


def request_seed(*parts: int | str) -> int:
    """Return a seed in [0, 2^31) that depends on all parts and is the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (1 << 31)
