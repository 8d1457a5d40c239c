"""Atomic checkpoints with everything that decides the next token."""

from __future__ import annotations

import json
import math
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
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


GO_ON = "Free disk space, then go on with --resume."


class CheckpointError(ReasonerError, RuntimeError):
    """A checkpoint could not be read; older ones are untouched."""


def save_checkpoint(root: Path, policy: Policy, progress: Progress, *, keep: int) -> Path:
    """Write a checkpoint, whole or not at all; then remove all but the newest `keep`. The main process writes.

    Raises:
        DiskError: the disk is full or not writable; what was there before still is.
    """
    target = root / checkpoint_name(progress.step)

    def fill(folder: Path) -> None:
        policy.save_trained(folder)
        with (folder / "training.pt").open("wb") as file:  # given a path, torch hides errno
            torch.save(training_state(policy), file)
        (folder / "progress.json").write_text(json.dumps(progress.to_json(), indent=1))

    def write() -> None:
        last = latest_checkpoint(root)
        kept = f"The last good one is {last}" if last else "There is none yet"
        advice = f"{kept}. Free disk space, then go on with --resume."
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
    """Write a plain model folder, whole or not at all, in the place of an older one. The main process writes.

    Args:
        target: the folder.
        policy: its model and tokenizer.
        companions: writes further files into the folder.
    Raises:
        DiskError: the disk is full or not writable.
    """

    def fill(folder: Path) -> None:
        policy.save(folder)
        companions(folder)

    with policy.collected(trained=False):
        processes.on_main(lambda: write_folder(target, fill, what=f"model {target}", advice=GO_ON))


def copy_model(source: Path, folder: Path, *, dtype: str | None = None) -> None:
    """Copy the files of a model folder into another one, which is there.

    Args:
        source: of a run, or of a checkpoint.
        folder: where its files go.
        dtype: of the copy; None: the base's, which a checkpoint notes, or as it is.
    """
    copy_files(source, folder)
    settle_dtype(folder, dtype)


def load_progress(folder: Path) -> Progress:
    """What `save_checkpoint` wrote beside weights and optimizer.

    Raises:
        CheckpointError: it is damaged; says what to do.
    """
    with damage_told(folder):
        return Progress.from_json(json.loads((folder / "progress.json").read_bytes()))


ARRAY = [np.ndarray, np.dtype, np.dtypes.UInt32DType, np.array(0).__reduce__()[0]]
"""What an array of numpy's is made of, as checkpoints held the random state of numpy before."""
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
    """Optimizer, version and random states."""
    return {
        "optimizer": policy.optimizer_state(),
        "optimizer_name": policy.config.optim.name,
        "version": policy.version,
        "random": random_state(),
    }


def restore_training_state(policy: Policy, folder: Path) -> None:
    """Put back what `training_state` took. The weights are loaded with the policy itself.

    Raises:
        CheckpointError: the file is damaged. ConfigError: the state is that of another kind of optimizer.
    """
    with damage_told(folder):
        state = read_state(folder / "training.pt")
        _check_finite(state["optimizer"])
        version, random = int(state["version"]), state["random"]
    # outside: a device without memory for it is no damage
    written, named = state.get("optimizer_name", "adamw"), policy.config.optim.name
    if written != named:
        raise ConfigError(
            "changed",
            f"optim.name must stay {written}, whose state {folder} holds; got {named}. Set it back, or begin a new run"
            f" from {folder / 'model'}.",
        )
    load_optimizer_state(policy.optimizer, state["optimizer"])
    policy.apply_settings()  # the config's, which a resumed run may be given others of
    policy.version = version
    with damage_told(folder):
        set_random_state(random)


def read_state(file: Path) -> dict[str, Any]:
    """Tensors, numbers and texts of a file: a pickle that would run anything is refused before it does.

    Raises:
        ValueError: it holds anything else.
    """
    with torch.serialization.safe_globals(ARRAY), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a pickle that is not torch's own
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except (*UNREADABLE, AttributeError, IndexError, ImportError, AssertionError) as error:
            if isinstance(error, OSError | RuntimeError):
                raise
            # torch's own text advises to run it
            raise ValueError(f"{file.name} must hold tensors, numbers and text alone; it does not") from error
    if not isinstance(state, dict):
        raise ValueError(f"{file.name} must hold names and values; got {type(state).__name__}")
    return state


def _check_finite(state: object) -> None:
    """Raise ValueError where an optimizer's state holds what is not finite; packed tensors are not looked at."""
    waiting: list[tuple[str, object]] = [("state", state)]
    while waiting:
        name, held = waiting.pop()
        if isinstance(held, Mapping):
            waiting += [(str(key), value) for key, value in cast("Mapping[object, object]", held).items()]
        elif isinstance(held, list):
            waiting += [(name, value) for value in cast("list[object]", held)]
        elif type(held) is torch.Tensor and not math.isfinite(largest([held])):
            raise ValueError(f"{name} of the optimizer's state is not finite")
