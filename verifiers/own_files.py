"""Files that are written: regular ones of one's own, never what a link in their place leads to.

A folder that was copied from elsewhere may hold links. The folder itself may be reached through one.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Literal

from verifiers.errors import FileError

DEVICES = ("/dev/", "/proc/")
"""Names there are links by design: /dev/stdout, /dev/fd/3."""
FLAGS = {
    "write": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "append": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "change": os.O_RDWR,
}
How = Literal["write", "append", "change"]


def open_own(path: Path, how: How, *, mode: int = 0o666) -> int:
    """Open a file for writing, and return its descriptor.

    Args:
        path: the file; a link in its place is removed by "write", and what it led to stays as it was.
        how: write (from its beginning), append, or change (a file that is there).
        mode: of a file that is made, before the umask.
    Raises:
        FileError: a link is there, and its file would be appended to or changed.
        OSError: it cannot be opened.
    """
    follows = os.path.abspath(path).startswith(DEVICES)
    if how == "write" and not follows and path.is_symlink():
        path.unlink()
    try:
        return os.open(path, FLAGS[how] | os.O_CLOEXEC | (0 if follows else os.O_NOFOLLOW), mode)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise FileError(
            f"{path} must be a file of its own; it is a link to {os.readlink(path)!r}. Remove the link."
        ) from error


def write_own(path: Path, content: bytes) -> None:
    """Write a whole file, in the place of whatever is there: a link of either kind, a pipe.

    Raises:
        OSError: it cannot be written.
    """
    if os.path.abspath(path).startswith(DEVICES):
        with os.fdopen(open_own(path, "write"), "wb") as file:
            file.write(content)
        return
    if path.is_dir() and not path.is_symlink():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(open_own(half, "write"), "wb") as file:
            file.write(content)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


__all__ = ["open_own", "write_own"]
