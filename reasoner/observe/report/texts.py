"""Searchable text of rollouts, in a temporary file."""

from __future__ import annotations

import os
import re
import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from multiprocessing import get_context
from typing import Any, BinaryIO

SEARCHED_ROWS = 2000
"""Rows whose text is searched at a time."""
END_OF_TEXT = b"\0"
REGEX_SECONDS = 10.0
"""Time after which a search by regular expression is killed; some expressions never end."""


class SearchError(ValueError):
    """A regular expression is not valid, or takes too long."""


class Texts:
    """Searchable text of rows, in a temporary file that has no name."""

    def __init__(self) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(prefix="reasoner-view-")
        self.ends = array("Q")
        """End of each row's text in the file."""

    def add(self, texts: Iterable[str]) -> None:
        """Append the text of further rows."""
        parts = [text.replace("\0", " ").encode("utf-8", "replace") + END_OF_TEXT for text in texts]
        self._file.write(b"".join(parts))
        self._file.flush()
        end = self.ends[-1] if self.ends else 0
        for part in parts:
            end += len(part)
            self.ends.append(end)

    def _blocks(self, rows: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield (first row, place in the file, bytes) of SEARCHED_ROWS rows at a time."""
        for first in range(0, rows, SEARCHED_ROWS):
            start = self.ends[first - 1] if first else 0
            end = self.ends[min(rows, first + SEARCHED_ROWS) - 1]
            yield first, start, os.pread(self._file.fileno(), end - start, start)

    def containing(self, text: str) -> list[int]:
        """Return the rows that contain a text; upper and lower case of ASCII letters are the same."""
        wanted, found, rows = text.replace("\0", " ").encode("utf-8", "replace").lower(), list[int](), len(self.ends)
        for _, base, block in self._blocks(rows):
            lower = block.lower()
            place = lower.find(wanted)
            while place >= 0:
                row = bisect_right(self.ends, base + place, 0, rows)
                found.append(row)
                place = lower.find(wanted, self.ends[row] - base)
        return found

    def matching(self, pattern: str, *, seconds: float = REGEX_SECONDS) -> list[int]:
        """Return the rows in which a regular expression (of `re`) is found, searched by a child that can be killed.

        Raises:
            SearchError: it is not valid, or takes longer than `seconds`.
        """
        try:
            compiled = re.compile(pattern, re.MULTILINE)
        except (re.error, RecursionError, OverflowError) as error:
            raise SearchError(f"the regular expression is not valid: {error}") from error
        context = get_context("fork")  # the child shares the open file and the rows' places
        receives, sends = context.Pipe(duplex=False)
        child = context.Process(target=self._match, args=(compiled, sends), daemon=True)
        child.start()
        sends.close()
        try:
            if not receives.poll(seconds):
                raise SearchError(f"the regular expression took more than {seconds:g} s; make it simpler")
            return [*array("I", receives.recv_bytes())]
        except EOFError as error:
            raise SearchError("the search ended without an answer; make the regular expression simpler") from error
        finally:
            receives.close()
            child.kill()
            child.join()

    def _match(self, compiled: re.Pattern[str], sends: Any) -> None:
        found = array("I")
        for first, _, block in self._blocks(len(self.ends)):
            rows = block.decode("utf-8", "replace").split("\0")[:-1]
            found.extend(first + at for at, text in enumerate(rows) if compiled.search(text))
        sends.send_bytes(found.tobytes())

    def close(self) -> None:
        """Delete the file."""
        self._file.close()
