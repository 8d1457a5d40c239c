"""Fetch the files of new weights over HTTP into this machine's memory, beside whatever else this process does.

Runs in each worker of a server. Workers on the same machine share the files: one fetches, the others wait.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

PIECE = 1 << 20
"""Bytes read at a time."""
ATTEMPTS = 6
"""Tries of one file. Each goes on where the last one ended."""
SILENCE_SECONDS = 20.0
"""Seconds without a byte after which a connection counts as broken."""


class FetchError(Exception):
    """The files could not be fetched; the message says why."""


@dataclass(frozen=True)
class Source:
    """Where new weights are, and where to put them. Travels as JSON."""

    url: str
    """Folder of the files, http://HOST:PORT/NAME."""
    key: str
    files: Mapping[str, int]
    """Bytes of each file."""
    into: str
    """Folder on the server's machine; the files go into NAME in it."""

    @property
    def folder(self) -> Path:
        """Folder that the files are fetched into."""
        return Path(self.into) / urlsplit(self.url).path.strip("/")


class Fetch:
    """A running or finished fetch, in a thread of its own."""

    PAUSE = 0.25
    """Seconds before the second try of a file; doubled for each further one."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.bytes = 0
        """Bytes that this worker has received."""
        self.error: str | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reasoner-fetch", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """True if it has ended, well or with an error."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Ask it to end, for a newer one."""
        self._stopped.set()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until it has ended."""
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._fetch()
        except (FetchError, OSError) as error:
            self.error = f"{type(error).__name__}: {error}" if isinstance(error, OSError) else str(error)

    def _fetch(self) -> None:
        source = self._source
        root = Path(source.into)
        private_folder(root)
        with open(root / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for other in root.iterdir():
                if other.is_dir() and other != source.folder:
                    shutil.rmtree(other, ignore_errors=True)
            source.folder.mkdir(exist_ok=True)
            missing = {name: size for name, size in source.files.items() if not (source.folder / name).exists()}
            free = shutil.disk_usage(root).free + sum(
                part.stat().st_size for part in source.folder.iterdir() if part.suffix == ".part"
            )
            if sum(missing.values()) > free:
                raise FetchError(
                    f"{root} must have room for {sum(missing.values()):,} bytes of weights; it has {free:,}. Enlarge it"
                    " (a container: --shm-size), or set engine.options.weights_folder to a folder with room"
                )
            for name, size in missing.items():
                self._fetch_file(name, size)

    def _fetch_file(self, name: str, size: int) -> None:
        part, broken = self._source.folder / f"{name}.part", "nothing was received"
        for attempt in range(ATTEMPTS):
            if self._stopped.wait(self.PAUSE * 2**attempt if attempt else 0):
                raise FetchError("newer weights are to be fetched")
            try:
                self._receive(name, part, size)
            except (OSError, http.client.HTTPException) as error:
                broken = f"{type(error).__name__}: {error}"
                continue
            part.rename(part.with_suffix(""))
            return
        raise FetchError(f"{self._source.url}/{name} broke off {ATTEMPTS} times; the last time: {broken}")

    def _receive(self, name: str, part: Path, size: int) -> None:
        """Append what is missing of a file to `part`.

        Raises:
            OSError, HTTPException: the connection broke; what arrived is kept.
            FetchError: the other side refuses, or has another file.
        """
        at = urlsplit(self._source.url)
        assert at.hostname is not None
        connection = http.client.HTTPConnection(at.hostname, at.port, timeout=SILENCE_SECONDS)
        try:
            with open(part, "ab") as file:
                start = file.tell()
                headers = {"Authorization": f"Bearer {self._source.key}", "Range": f"bytes={start}-"}
                connection.request("GET", f"{at.path}/{name}", headers=headers)
                answer = connection.getresponse()
                if answer.status != 206:
                    raise FetchError(f"{self._source.url}/{name} answered {answer.status}")
                if answer.length != size - start:
                    raise FetchError(f"{self._source.url}/{name} must have {size} bytes; it has another size")
                piece = memoryview(bytearray(PIECE))
                while not self._stopped.is_set() and (got := answer.readinto(piece)):
                    file.write(piece[:got])
                    self.bytes += got
                if file.tell() != size:
                    raise http.client.IncompleteRead(b"", size - file.tell())
        finally:
            connection.close()


def private_folder(folder: Path) -> None:
    """Make a folder that only this user can read, or check that it is one.

    Raises:
        FetchError: somebody else made it.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid():
        raise FetchError(f"{folder} must belong to the user of the server; it belongs to another. Remove it")
