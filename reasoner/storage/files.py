"""Writing files and folders whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from reasoner.errors import USAGE, ReasonerError

HALF_WRITTEN = ".writing-"
"""Prefix of a folder that is still being written."""


class RunError(ReasonerError, RuntimeError):
    """A run folder cannot be used; the message says what to do."""

    exit_code = USAGE


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file beside `path`, force it to disk, and put it in the place of `path`."""
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


@contextmanager
def whole_folder(target: Path) -> Generator[Path]:
    """Yield a new folder beside `target` to write to; at the end force it to disk and put it in the target's place.

    After an error inside, the new folder is removed and the target is as it was.
    """
    aside = target.with_name(f"{HALF_WRITTEN}{target.name}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        yield aside
        _sync_tree(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if target.exists():
        shutil.rmtree(target)
    aside.rename(target)
    _sync(target.parent)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write what the user asked for where they said.

    Raises:
        RunError: it cannot be written there.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}. Give --output a file in a folder.") from error
