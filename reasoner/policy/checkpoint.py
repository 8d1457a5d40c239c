"""Atomic checkpoints with everything that decides the next token."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from reasoner import processes
from reasoner.errors import ReasonerError
from reasoner.model.load import ModelError
from reasoner.model.random_state import random_state, set_random_state
from reasoner.model.sharding import load_whole_optimizer_state
from reasoner.policy.progress import Progress
from reasoner.storage.find_model import checkpoint_name, latest_checkpoint, list_checkpoints

if TYPE_CHECKING:
    from reasoner.policy.policy import Policy


class CheckpointError(ReasonerError, RuntimeError):
    """A checkpoint could not be written or read; older ones are untouched."""


def save_checkpoint(root: Path, policy: Policy, progress: Progress, *, keep: int) -> Path:
    """Write aside, force to disk, rename; then remove all but the newest `keep`. The main process writes.

    Raises:
        CheckpointError: the disk is full or not writable; what was there before still is.
    """
    target = root / checkpoint_name(progress.step)
    with policy.collected(trained=True):
        processes.on_main(lambda: _write_checkpoint(target, policy, progress, keep=keep))
    return target


def _write_checkpoint(target: Path, policy: Policy, progress: Progress, *, keep: int) -> None:
    root = target.parent
    aside = root / f".writing-{target.name}"
    try:
        if aside.exists():
            shutil.rmtree(aside)
        aside.mkdir(parents=True)
        policy.save_trained(aside)
        torch.save(training_state(policy), aside / "training.pt")
        (aside / "progress.json").write_text(json.dumps(progress.to_json(), indent=1))
        _sync_tree(aside)
        if target.exists():
            shutil.rmtree(target)
        aside.rename(target)
        _sync(root)
    except Exception as error:
        if not _is_disk_error(error):
            raise
        shutil.rmtree(aside, ignore_errors=True)
        last = latest_checkpoint(root)
        kept = f"the last good one is {last}" if last else "there is none yet"
        free = shutil.disk_usage(root).free >> 20 if root.exists() else 0
        raise CheckpointError(
            f"checkpoint {target} could not be written ({error}; {free} MiB free); {kept}."
            " Free disk space, then go on with --resume."
        ) from error
    for old in list_checkpoints(root)[:-keep]:
        shutil.rmtree(old)


def save_model(target: Path, policy: Policy) -> None:
    """Write a plain model folder atomically, replacing an older one. The main process writes.

    Raises:
        CheckpointError: the disk is full or not writable.
    """
    with policy.collected(trained=False):
        processes.on_main(lambda: _write_model(target, policy))


def _write_model(target: Path, policy: Policy) -> None:
    aside = target.with_name(f".writing-{target.name}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        policy.save(aside)
        _sync_tree(aside)
    except Exception as error:
        shutil.rmtree(aside, ignore_errors=True)
        if not _is_disk_error(error):
            raise
        raise CheckpointError(
            f"model {target} could not be written ({error}). Free disk space, then go on with --resume."
        ) from error
    if target.exists():
        shutil.rmtree(target)
    aside.rename(target)


def copy_model(source: Path, target: Path) -> None:
    """Copy a model folder aside, then rename it: `target` appears whole or not at all."""
    aside = target.with_name(f".writing-{target.name}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        shutil.copytree(source, aside)
        _sync_tree(aside)
        aside.rename(target)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise CheckpointError(f"{target} could not be written: {error}.") from error


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
    """Turn what a damaged checkpoint raises into a CheckpointError: of a model's errors, those that name it."""
    try:
        yield
    except kinds as error:
        elsewhere = str(folder) not in str(error) or isinstance(error.__cause__, ImportError)
        if isinstance(error, ModelError) and elsewhere:
            raise
        raise CheckpointError(
            f"checkpoint {folder} cannot be read ({type(error).__name__}: {str(error)[:200]}). Remove that folder, then"
            " go on with --resume from the checkpoint before it."
        ) from error


def training_state(policy: Policy) -> dict[str, object]:
    """Optimizer, schedule, version and random states."""
    return {
        "optimizer": policy.optimizer_state(),
        "scheduler": policy.scheduler.state_dict(),
        "version": policy.version,
        "random": random_state(),
    }


def restore_training_state(policy: Policy, folder: Path) -> None:
    """Put back what `training_state` took. The weights are loaded with the policy itself."""
    with damage_told(folder):
        # our own file, holding numpy and python random states that the weights-only loader refuses
        state = torch.load(folder / "training.pt", map_location="cpu", weights_only=False)
    # outside: a device without memory for it is no damage
    load_whole_optimizer_state(policy.optimizer, state["optimizer"])
    policy.scheduler.load_state_dict(state["scheduler"])
    policy.version = state["version"]
    set_random_state(state["random"])


def _is_disk_error(error: Exception) -> bool:
    """Safetensors and torch wrap the operating system's error in their own types."""
    text = str(error).lower()
    return isinstance(error, OSError) or "no space left" in text or "file write failed" in text or "os error 28" in text


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
