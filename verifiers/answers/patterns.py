"""Regular expressions that are compiled on first use, which keeps imports fast."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property


class Pattern:
    """A regular expression, compiled on first use.

    Example:
        >>> Pattern(r"\\d+").search("a 12").group()
        '12'
    """

    def __init__(self, source: str, flags: int = 0) -> None:
        self._source, self._flags = source, flags

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self._source, self._flags)

    def search(self, text: str, start: int = 0, end: int | None = None) -> re.Match[str] | None:
        """Search as `re.Pattern.search` does."""
        return self._compiled.search(text, start, len(text) if end is None else end)

    def match(self, text: str, start: int = 0) -> re.Match[str] | None:
        """Match as `re.Pattern.match` does."""
        return self._compiled.match(text, start)

    def fullmatch(self, text: str, start: int = 0) -> re.Match[str] | None:
        """Match as `re.Pattern.fullmatch` does."""
        return self._compiled.fullmatch(text, start)

    def finditer(self, text: str, start: int = 0) -> Iterator[re.Match[str]]:
        """Iterate as `re.Pattern.finditer` does."""
        return self._compiled.finditer(text, start)

    def sub(self, replacement: str, text: str) -> str:
        """Substitute as `re.Pattern.sub` does."""
        return self._compiled.sub(replacement, text)
