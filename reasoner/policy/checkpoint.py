"""Atomic checkpoints with everything that decides the next token."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError
from safetensors import SafetensorError

from reasoner import processes
from reasoner.config.errors import ConfigError
from reasoner.errors import ReasonerError, faults
from reasoner.model.load import ModelError
from reasoner.model.random_state import random_state, set_random_state
from reasoner.policy.optimizer import load_optimizer_state
from reasoner.policy.progress import Progress
from reasoner.storage.files import whole_folder
from reasoner.storage.find_model import checkpoint_name, latest_checkpoint, list_checkpoints

if TYPE_CHECKING:
    from reasoner.policy.policy import Policy


class CheckpointError(ReasonerError, RuntimeError):
    """A checkpoint could not be written or read; older ones are untouched."""


def save_checkpoint(root: Path, policy: Policy, progress: Progress, *, keep: int) -> Path:
    """Write a checkpoint, whole or not at all; then remove all but the newest `keep`. The main process writes.

    Raises:
        CheckpointError: the disk is full or not writable; what was there before still is.
    """
    target = root / checkpoint_name(progress.step)

    def fill(folder: Path) -> None:
        policy.save_trained(folder)
        with (folder / "training.pt").open("wb") as file:  # given a path, torch hides errno
            torch.save(training_state(policy), file)
        (folder / "progress.json").write_text(json.dumps(progress.to_json(), indent=1))

    def write() -> None:
        last = latest_checkpoint(root)
        kept = f"the last good one is {last}" if last else "there is none yet"
        _write(target, fill, f"checkpoint {target}", advice=f"{kept}. Free disk space, then go on with --resume.")
        for old in list_checkpoints(root)[:-keep]:
            shutil.rmtree(old)

    with policy.collected(trained=True):
        processes.on_main(write)
    return target


def save_model(target: Path, policy: Policy) -> None:
    """Write a plain model folder, whole or not at all, in the place of an older one. The main process writes.

    Raises:
        CheckpointError: the disk is full or not writable.
    """
    advice = "free disk space, then go on with --resume."
    with policy.collected(trained=False):
        processes.on_main(lambda: _write(target, policy.save, f"model {target}", advice=advice))


def copy_model(source: Path, target: Path) -> None:
    """Copy a model folder, whole or not at all.

    Raises:
        CheckpointError: the disk is full or not writable.
    """

    def fill(folder: Path) -> None:  # shutil.copytree would turn every errno into text
        for path in sorted(source.rglob("*")):
            place = folder / path.relative_to(source)
            if path.is_dir():
                place.mkdir()
            else:
                shutil.copy2(path, place)

    _write(target, fill, str(target), advice="free disk space, or name another folder.")


def _write(target: Path, fill: Callable[[Path], object], what: str, *, advice: str) -> None:
    try:
        with whole_folder(target) as folder:
            fill(folder)
    except Exception as error:
        fault = disk_fault(error)
        if fault is None:
            raise
        free = f"; {shutil.disk_usage(target.parent).free >> 20} MiB free" if target.parent.exists() else ""
        raise CheckpointError(f"{what} could not be written ({fault}{free}); {advice}") from error


DISK_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM})


def disk_fault(error: BaseException | None) -> str | None:
    """Return why the operating system refused a write, by the errno of an error or of its causes; None: it did not."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, SafetensorError):
            number = _errno_of_rust(error)
        if number in DISK_FAULTS:
            return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


def _errno_of_rust(error: SafetensorError) -> int | None:
    """Return the errno that Rust prints as "(os error 28)": safetensors passes on no errno, only this text."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def load_progress(folder: Path) -> Progress:
    """What `save_checkpoint` wrote beside weights and optimizer.

    Raises:
        CheckpointError: it is damaged; says what to do.
    """
    with damage_told(folder):
        return Progress.from_json(json.loads((folder / "progress.json").read_bytes()))


UNREADABLE = (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, pickle.UnpicklingError)
"""What json and torch raise over a damaged file."""


@contextmanager
def damage_told(folder: Path, kinds: tuple[type[Exception], ...] = UNREADABLE) -> Iterator[None]:
    """Raise read errors as CheckpointError; of ModelErrors those alone that are about a model inside the folder."""
    try:
        yield
    except kinds as error:
        if isinstance(error, ModelError) and not _is_damage(error, folder):
            raise
        reason = faults(error) if isinstance(error, ValidationError) else str(error)
        raise CheckpointError(
            f"checkpoint {folder} cannot be read ({type(error).__name__}: {reason[:200]}). Remove that folder, then"
            " go on with --resume from the checkpoint before it."
        ) from error


def _is_damage(error: ModelError, folder: Path) -> bool:
    inside = error.path is not None and Path(error.path).is_relative_to(folder)
    return inside and not isinstance(error.__cause__, ImportError)  # a missing package damages nothing


def training_state(policy: Policy) -> dict[str, object]:
    """Optimizer, schedule, version and random states."""
    return {
        "optimizer": policy.optimizer_state(),
        "optimizer_name": policy.config.optim.name,
        "scheduler": policy.scheduler.state_dict(),
        "version": policy.version,
        "random": random_state(),
    }


def restore_training_state(policy: Policy, folder: Path) -> None:
    """Put back what `training_state` took. The weights are loaded with the policy itself.

    Raises:
        CheckpointError: the file is damaged. ConfigError: the state is that of another kind of optimizer.
    """
    with damage_told(folder):
        # our own file, holding numpy and python random states that the weights-only loader refuses
        state = torch.load(folder / "training.pt", map_location="cpu", weights_only=False)
    # outside: a device without memory for it is no damage
    written, named = state.get("optimizer_name", "adamw"), policy.config.optim.name
    if written != named:
        raise ConfigError(
            "changed",
            f"optim.name must stay {written}, whose state {folder} holds; got {named}. Set it back, or begin a new run"
            f" from {folder / 'model'}.",
        )
    load_optimizer_state(policy.optimizer, state["optimizer"])
    policy.scheduler.load_state_dict(state["scheduler"])
    policy.version = state["version"]
    set_random_state(state["random"])
