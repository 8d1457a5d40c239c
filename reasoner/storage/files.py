"""Writing files and folders whole or not at all."""

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
"""Prefixes of what is being written, of a folder whose place another is taking, of one that is being removed."""
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
DISK_FAULTS = DISK_FULL | {errno.EIO, errno.EACCES, errno.EPERM}


class RunError(ReasonerError, RuntimeError):
    """A run folder cannot be used; the message says what to do."""

    exit_code = USAGE


class DiskError(ReasonerError, RuntimeError):
    """The operating system refused a write; what was whole before still is."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file beside `path`, force it to disk, and put it in the place of `path`."""
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


@contextmanager
def whole_folder(target: Path) -> Generator[Path]:
    """Yield a new folder beside `target` to write to; at the end force it to disk and put it in the target's place.

    After an error inside, the new folder is removed and the target is as it was. A process that dies between the two
    renames at the end leaves both folders whole, and `tidy` puts the earlier one back.
    """
    aside = target.with_name(f"{HALF_WRITTEN}{target.name}")
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
    """Write a folder, whole or not at all.

    Args:
        target: the folder.
        fill: writes its files into the folder that it is given.
        what: is written, as the user knows it.
        advice: what to do where the disk is full or not writable.
    Raises:
        DiskError: it is.
    """
    with disk_faults_told(what, target.parent, advice, DISK_FAULTS), whole_folder(target) as folder:
        fill(folder)


def copy_files(source: Path, folder: Path) -> None:
    """Copy all that lies in a folder into another one, which is there."""
    for path in sorted(source.rglob("*")):  # shutil.copytree would turn every errno into text
        place = folder / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
        else:
            shutil.copy2(path, place)


def remove_folder(target: Path) -> None:
    """Remove a folder so that whoever lists its parent never sees half of it."""
    _remove(_moved(target, REMOVED))


def _remove(path: Path) -> None:
    """Remove a folder with what is in it, or a file or link; not what a link leads to."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _moved(target: Path, prefix: str) -> Path:
    place = target.with_name(f"{prefix}{target.name}")
    _remove(place)
    return target.rename(place)


def tidy(root: Path) -> None:
    """Clear away what a killed process left half done in a folder: for the one process that writes there."""
    for half in (*root.glob(f"{HALF_WRITTEN}*"), *root.glob(f"{REMOVED}*")):
        _remove(half)
    for before in root.glob(f"{REPLACED}*"):
        place = before.with_name(before.name.removeprefix(REPLACED))
        if place.exists():
            _remove(before)
        else:
            before.rename(place)


def _ordinary_modes(folder: Path) -> None:
    """Give the files the modes of files that were just made here: some writers leave them to their owner alone."""
    mode = folder.stat().st_mode & 0o666  # of a folder that was made under the same umask
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
def disk_faults_told(what: str, place: Path, advice: str, kinds: Collection[int] = DISK_FULL) -> Generator[None]:
    """Raise what the operating system refuses to write as one line with the free space.

    Args:
        what: could not be written.
        place: a path on the disk that it was written to.
        advice: the end of the sentence.
        kinds: of errno that are such a refusal.
    Raises:
        DiskError: in the place of any error that has such an errno, or a cause that has; all others go on their way.
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
    """Bytes that may still be written to the disk that a path lies on, or would lie on."""
    path = path.absolute()
    return shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists())).free


def disk_fault(error: BaseException | None, kinds: Collection[int] = DISK_FAULTS) -> str | None:
    """Return why the operating system refused a write, by the errno of an error or of its causes; None: it did not."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, SafetensorError):
            number = _errno_of_rust(error)
        if number is not None and number in kinds:
            return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


def _errno_of_rust(error: SafetensorError) -> int | None:
    """Return the errno that Rust prints as "(os error 28)": safetensors passes on no errno, only this text."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def write_text(path: Path, text: str) -> None:
    """Write what the user asked for where they said: a file of its own, whatever link lies there.

    Raises:
        RunError: it cannot be written there.
    """
    try:
        write_own(path, whole(text).encode())
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}. Give --output a file in a folder.") from error
