"""The part of mpmath that the probes use: a context, whose numbers have no types."""

from typing import Any

class MPContext:
    prec: int
    def __getattr__(self, name: str) -> Any: ...
