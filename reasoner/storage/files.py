"""Atomic writing of files and folders."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from reasoner.errors import USAGE, ReasonerError
from verifiers.own_files import open_own, write_own
from verifiers.text import whole

HALF_WRITTEN, REPLACED, REMOVED = ".writing-", ".replaced-", ".removed-"
"""Name prefixes of a folder that is being written, one that is being replaced, and one that is being removed."""
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
DISK_FAULTS = DISK_FULL | {errno.EIO, errno.EACCES, errno.EPERM}


class RunError(ReasonerError, RuntimeError):
    """A run folder cannot be used; the message says what to do."""

    exit_code = USAGE


class DiskError(ReasonerError, RuntimeError):
    """The operating system refused a write; files that were complete before are unchanged."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write a temporary file next to `path`, flush it to disk, and rename it to `path`."""
    aside = path.with_name(f"{HALF_WRITTEN}{path.name}")
    try:
        with os.fdopen(open_own(aside, "write"), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    aside.replace(path)


def half_written(target: Path) -> Path:
    """Return the folder next to `target` that `whole_folder` yields."""
    return target.with_name(f"{HALF_WRITTEN}{target.name}")


@contextmanager
def folder_being_written(target: Path, *, what: str, advice: str) -> Generator[Path]:
    """Yield a new folder, which takes the place of `target` at the end; arguments and errors as in `write_folder`."""
    with as_disk_error(what, target.parent, advice, DISK_FAULTS), whole_folder(target) as folder:
        yield folder


@contextmanager
def whole_folder(target: Path) -> Generator[Path]:
    """Yield a new folder next to `target` to write to. At the end, flush it to disk and replace `target` by it.

    After an error inside, the new folder is removed and `target` is unchanged. If the process dies between the two
    renames at the end, both folders are complete, and `tidy` restores the earlier one.
    """
    aside = half_written(target)
    _remove(aside)
    try:
        aside.mkdir(parents=True)
        yield aside
        _ordinary_modes(aside)
        _sync_tree(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    before = _moved(target, REPLACED) if target.exists() or target.is_symlink() else None
    aside.rename(target)
    _sync(target.parent)
    if before is not None:
        _remove(before)


def write_folder(target: Path, fill: Callable[[Path], object], *, what: str, advice: str) -> None:
    """Write a folder atomically.

    Args:
        target: the folder.
        fill: function that writes the files into the folder it is given.
        what: description of the folder for the error message.
        advice: what to do if the disk is full or not writable.
    Raises:
        DiskError: the disk is full or not writable.
    """
    with folder_being_written(target, what=what, advice=advice) as folder:
        fill(folder)


def copy_files(source: Path, folder: Path) -> None:
    """Copy all files of a folder, recursively, into another folder, which must exist."""
    for path in sorted(source.rglob("*")):  # shutil.copytree would replace errno by text
        place = folder / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
        else:
            shutil.copy2(path, place)


def remove_folder(target: Path) -> None:
    """Remove a folder atomically: nobody who lists its parent sees it half removed."""
    _remove(_moved(target, REMOVED))


def _remove(path: Path) -> None:
    """Remove a folder with its contents, or a file or link; never the target of a link."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _moved(target: Path, prefix: str) -> Path:
    place = target.with_name(f"{prefix}{target.name}")
    _remove(place)
    return target.rename(place)


def tidy(root: Path) -> None:
    """Clean up what a killed process left unfinished in a folder. Only the process that writes there may call it."""
    for half in (*root.glob(f"{HALF_WRITTEN}*"), *root.glob(f"{REMOVED}*")):
        _remove(half)
    for before in root.glob(f"{REPLACED}*"):
        place = before.with_name(before.name.removeprefix(REPLACED))
        if place.exists():
            _remove(before)
        else:
            before.rename(place)


def _ordinary_modes(folder: Path) -> None:
    """Give all files the usual permissions for new files: some writers make them readable only by their owner."""
    mode = folder.stat().st_mode & 0o666  # the folder was created under the same umask
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def as_disk_error(what: str, place: Path, advice: str, kinds: Collection[int] = DISK_FULL) -> Generator[None]:
    """Raise write errors of the operating system as a one-line DiskError with the free space.

    Args:
        what: description of what is written.
        place: path on the disk that is written to.
        advice: last sentence of the message.
        kinds: errno values to convert.
    Raises:
        DiskError: instead of an error that has, or is caused by one that has, such an errno. Other errors pass
            unchanged.
    """
    try:
        yield
    except ReasonerError:
        raise
    except Exception as error:
        fault = disk_fault(error, kinds)
        if fault is None:
            raise
        free = f"; {free_bytes(place) >> 20} MiB free"
        raise DiskError(f"{what} could not be written ({fault}{free}). {advice}") from error


def free_bytes(path: Path) -> int:
    """Return the free bytes on the disk of a path, which need not exist."""
    path = path.absolute()
    return shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists())).free


def disk_fault(error: BaseException | None, kinds: Collection[int] = DISK_FAULTS) -> str | None:
    """Return the system's reason for a refused write, from the errno of an error or its causes; None if it is none."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, SafetensorError):
            number = _errno_of_rust(error)
        if number is not None and number in kinds:
            return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


def _errno_of_rust(error: SafetensorError) -> int | None:
    """Return the errno that Rust prints as "(os error 28)": safetensors provides no errno, only this text."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def write_text(path: Path, text: str) -> None:
    """Write a file at the path that the user gave; a link there is replaced, not followed.

    Raises:
        RunError: the file cannot be written there.
    """
    try:
        write_own(path, whole(text).encode())
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}. Give --output a file in a folder.") from error
