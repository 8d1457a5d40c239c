"""Atomic checkpoints of everything that the next training step depends on."""

from __future__ import annotations

import json
import math
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from pydantic import ValidationError

from reasoner import processes
from reasoner.config.errors import ConfigError
from reasoner.errors import ReasonerError, faults
from reasoner.model.paths import ModelError
from reasoner.model.random_state import random_state, set_random_state
from reasoner.model.save import settle_dtype
from reasoner.model.soundness import largest
from reasoner.policy.optimizer import load_optimizer_state
from reasoner.policy.progress import Progress
from reasoner.storage.files import copy_files, remove_folder, write_folder
from reasoner.storage.find_model import checkpoint_name, latest_checkpoint, list_checkpoints

if TYPE_CHECKING:
    from reasoner.policy.policy import Policy


GO_ON = "Free disk space, then continue with --resume."


class CheckpointError(ReasonerError, RuntimeError):
    """A checkpoint could not be read; older checkpoints are not affected."""


def save_checkpoint(
    root: Path, policy: Policy, progress: Progress, *, keep: int, further: Sequence[Callable[[Path], None]] = ()
) -> Path:
    """Write a checkpoint atomically, then remove all but the newest `keep`. Only the main process writes.

    Args:
        root: folder of the checkpoints.
        policy: policy whose weights and optimizer state are written.
        progress: state of the stage.
        keep: number of checkpoints to keep.
        further: functions that write more files into the folder.
    Raises:
        DiskError: the disk is full or not writable; earlier files are unchanged.
    """
    target = root / checkpoint_name(progress.step)

    def fill(folder: Path) -> None:
        policy.save_trained(folder)
        with (folder / "training.pt").open("wb") as file:  # given a path, torch hides errno
            torch.save(training_state(policy), file)
        for write_more in further:
            write_more(folder)
        (folder / "progress.json").write_text(json.dumps(progress.to_json(), indent=1))

    def write() -> None:
        last = latest_checkpoint(root)
        newest = f"The last good one is {last}" if last else "There is none yet"
        advice = f"{newest}. {GO_ON}"
        write_folder(target, fill, what=f"checkpoint {target}", advice=advice)
        prune(root, keep=keep)

    with policy.collected(trained=True):
        processes.on_main(write)
    return target


def prune(root: Path, *, keep: int) -> None:
    """Remove all checkpoints but the newest `keep`."""
    for old in list_checkpoints(root)[:-keep]:
        remove_folder(old)


def save_model(target: Path, policy: Policy, companions: Callable[[Path], None] = lambda folder: None) -> None:
    """Write a plain model folder atomically, replacing an older one. Only the main process writes.

    Args:
        target: the folder.
        policy: policy whose model and tokenizer are written.
        companions: function that writes further files into the folder.
    Raises:
        DiskError: the disk is full or not writable.
    """

    def fill(folder: Path) -> None:
        policy.save(folder)
        companions(folder)

    with policy.collected(trained=False):
        processes.on_main(lambda: write_folder(target, fill, what=f"model {target}", advice=GO_ON))


def copy_model(source: Path, folder: Path, *, dtype: str | None = None) -> None:
    """Copy the files of a model folder into another folder, which must exist.

    Args:
        source: model folder of a run or of a checkpoint.
        folder: destination.
        dtype: dtype of the copy; None: the dtype recorded in a checkpoint, otherwise unchanged.
    """
    copy_files(source, folder)
    settle_dtype(folder, dtype)


def load_progress(folder: Path) -> Progress:
    """Read the progress that `save_checkpoint` wrote next to weights and optimizer state.

    Raises:
        CheckpointError: the file is damaged; the message says what to do.
    """
    with as_checkpoint_error(folder):
        return Progress.from_json(json.loads((folder / "progress.json").read_bytes()))


ARRAY = [np.ndarray, np.dtype, np.dtypes.UInt32DType, np.array(0).__reduce__()[0]]
"""Types in a pickled numpy array; older checkpoints stored numpy's random state as one."""
UNREADABLE = (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, pickle.UnpicklingError)
"""Errors that json and torch raise for a damaged file."""


@contextmanager
def as_checkpoint_error(folder: Path, kinds: tuple[type[Exception], ...] = UNREADABLE) -> Iterator[None]:
    """Re-raise read errors as CheckpointError. A ModelError is converted only if its model lies in this folder."""
    try:
        yield
    except kinds as error:
        if isinstance(error, ModelError) and not _is_damage(error, folder):
            raise
        reason = faults(error) if isinstance(error, ValidationError) else str(error)
        raise CheckpointError(
            f"checkpoint {folder} cannot be read ({type(error).__name__}: {reason[:200]}). Remove that folder, then"
            " continue with --resume from the checkpoint before it."
        ) from error


def _is_damage(error: ModelError, folder: Path) -> bool:
    inside = error.path is not None and Path(error.path).is_relative_to(folder)
    return inside and not isinstance(error.__cause__, ImportError)  # a missing package is no damage


def training_state(policy: Policy) -> dict[str, object]:
    """Collect optimizer state, policy version and random states for a checkpoint."""
    return {
        "optimizer": policy.optimizer_state(),
        "optimizer_name": policy.config.optim.name,
        "version": policy.version,
        "random": random_state(),
    }


def restore_training_state(policy: Policy, folder: Path) -> None:
    """Restore what `training_state` collected. The weights themselves are loaded with the policy.

    Raises:
        CheckpointError: the file is damaged.
        ConfigError: the state belongs to another kind of optimizer.
    """
    with as_checkpoint_error(folder):
        state = read_state(folder / "training.pt")
        _check_finite(state["optimizer"])
        version, random = int(state["version"]), state["random"]
    # outside the block: too little device memory is no damage
    written, named = state.get("optimizer_name", "adamw"), policy.config.optim.name
    if written != named:
        raise ConfigError(
            "changed",
            f"optim.name must stay {written}, as in the state of {folder}; got {named}. Set it back, or start a new run"
            f" from {folder / 'model'}.",
        )
    load_optimizer_state(policy.optimizer, state["optimizer"])
    policy.apply_settings()  # a resumed run may have other settings than the saved state
    policy.version = version
    with as_checkpoint_error(folder):
        set_random_state(random)


def read_state(file: Path) -> dict[str, Any]:
    """Read tensors, numbers and text from a file. A pickle with anything else is refused before any of it runs.

    Raises:
        ValueError: it contains anything else.
    """
    with torch.serialization.safe_globals(ARRAY), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickles that torch did not write
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except (*UNREADABLE, AttributeError, IndexError, ImportError, AssertionError) as error:
            if isinstance(error, OSError | RuntimeError):
                raise
            # torch's own message recommends to load the pickle anyway
            raise ValueError(f"{file.name} must contain only tensors, numbers and text; it does not") from error
    if not isinstance(state, dict):
        raise ValueError(f"{file.name} must contain a mapping of names to values; got {type(state).__name__}")
    return state


def _check_finite(state: object) -> None:
    """Raise ValueError if an optimizer's state contains a non-finite tensor; tensor subclasses are not checked."""
    waiting: list[tuple[str, object]] = [("state", state)]
    while waiting:
        name, held = waiting.pop()
        if isinstance(held, Mapping):
            waiting += [(str(key), value) for key, value in cast("Mapping[object, object]", held).items()]
        elif isinstance(held, list):
            waiting += [(name, value) for value in cast("list[object]", held)]
        elif type(held) is torch.Tensor and not math.isfinite(largest([held])):
            raise ValueError(f"{name} of the optimizer's state is not finite")
