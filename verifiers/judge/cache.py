"""Cache of replies on disk: the same question gets the same answer in the next run."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from pathlib import Path

from verifiers.errors import VerifierError
from verifiers.judge.chat import Reply

BUSY_SECONDS = 60.0


def default_cache() -> str:
    """Return the path of `reasoner/judge.sqlite3` in the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return str(Path(root) / "reasoner" / "judge.sqlite3")


class CacheError(VerifierError, OSError):
    """The cache cannot be opened, read or written."""


class ReplyCache:
    """An SQLite file of replies, shared by threads and processes. The first answer to a question is kept.

    Args:
        path: of the file; "": replies are kept in memory, for this process alone.
    Raises:
        CacheError: the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            if path:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path or ":memory:", timeout=BUSY_SECONDS, check_same_thread=False)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=NORMAL")
            self._file.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
            self._file.commit()
        except (sqlite3.Error, OSError) as error:
            raise self._fault(error) from error

    def get(self, key: str) -> Reply | None:
        """Return the stored reply, or None.

        Raises:
            CacheError: the file cannot be read.
        """
        try:
            with self._lock:
                row = self._file.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._fault(error) from error
        return None if row is None else Reply.from_json(json.loads(row[0]))

    def put(self, key: str, reply: Reply) -> Reply:
        """Store a reply unless the key has one; return the reply that is stored.

        Raises:
            CacheError: the file cannot be written.
        """
        try:
            with self._lock:
                self._file.execute(
                    "INSERT OR IGNORE INTO replies VALUES (?, ?)",
                    (key, json.dumps(reply.to_json(), sort_keys=True)),
                )
                self._file.commit()
        except sqlite3.Error as error:
            raise self._fault(error) from error
        stored = self.get(key)
        assert stored is not None, key
        return stored

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def _fault(self, error: Exception) -> CacheError:
        return CacheError(
            f"the judge's cache {self._path!r} cannot be used: {error}. Set cache to another file, or to ''."
        )


__all__ = ["CacheError", "ReplyCache", "default_cache"]
