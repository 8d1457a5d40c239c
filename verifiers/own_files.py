"""Writing to regular files only, never through a link in their place.

A folder copied from elsewhere may contain links. The folder itself may be reached through a link.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Literal

from verifiers.errors import FileError

DEVICES = ("/dev/", "/proc/")
"""Folders whose names are links by design: /dev/stdout, /dev/fd/3."""
FLAGS = {
    "write": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "append": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "change": os.O_RDWR,
}
How = Literal["write", "append", "change"]


def open_own(path: Path, how: How, *, mode: int = 0o666) -> int:
    """Open a file for writing and return its descriptor.

    Args:
        path: the file. With "write" a link in its place is removed; the link's target is not changed.
        how: "write" (from the beginning), "append", or "change" (an existing file, in place).
        mode: permissions of a new file, before the umask.
    Raises:
        FileError: the path is a link, and `how` is "append" or "change".
        OSError: the file cannot be opened.
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
    """Write a whole file. It replaces whatever has its name: a symbolic or hard link, a pipe.

    Raises:
        OSError: the file cannot be written.
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
