"""Atomic checkpoints of everything that the next training step depends on."""

from __future__ import annotations

import json
import math
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from pydantic import ValidationError
from torch.distributed.checkpoint.api import CheckpointException

from reasoner import processes
from reasoner.config.errors import ConfigError
from reasoner.errors import ReasonerError, faults
from reasoner.model.paths import ModelError
from reasoner.model.random_state import random_state, set_random_state
from reasoner.model.save import settle_dtype, write_index
from reasoner.model.sharding import is_sharded, is_sharded_state, load_optimizer_shards, save_optimizer_shards
from reasoner.model.soundness import largest
from reasoner.policy.optimizer import load_optimizer_state
from reasoner.policy.progress import Progress
from reasoner.storage.files import (
    DISK_FAULTS,
    as_disk_error,
    copy_files,
    folder_being_written,
    half_written,
    remove_folder,
    write_folder,
)
from reasoner.storage.find_model import checkpoint_name, latest_checkpoint, list_checkpoints

if TYPE_CHECKING:
    from reasoner.policy.policy import Policy


GO_ON = "Free disk space, then continue with --resume."


class CheckpointError(ReasonerError, RuntimeError):
    """A checkpoint could not be read; older checkpoints are not affected."""


OPTIMIZER_SHARDS = "optimizer"
"""Folder of a sharded optimizer's state, in the format of torch.distributed.checkpoint."""


def save_checkpoint(
    root: Path, policy: Policy, progress: Progress, *, keep: int, further: Sequence[Callable[[Path], None]] = ()
) -> Path:
    """Write a checkpoint atomically, then remove all but the newest `keep`.

    Of a sharded policy every process writes a part of the weights and its shards of the optimizer's state; otherwise
    the main process writes all. The rest is the same, and each kind of checkpoint resumes on any number of processes.

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
        if shards:
            save_optimizer_shards(policy.optimizer, folder / OPTIMIZER_SHARDS, processes.group())
        if processes.is_main():
            with (folder / "training.pt").open("wb") as file:  # given a path, torch hides errno
                torch.save(training_state(policy), file)
            for write_more in further:
                write_more(folder)
            (folder / "progress.json").write_text(json.dumps(progress.to_json(), indent=1))

    shards = is_sharded_state(policy.optimizer.state_dict())
    last = latest_checkpoint(root)
    newest = f"The last good one is {last}" if last else "There is none yet"
    with policy.collected(trained=True):
        _write_together(target, fill, policy, what=f"checkpoint {target}", advice=f"{newest}. {GO_ON}")
    processes.on_main(lambda: prune(root, keep=keep))
    return target


def _write_together(target: Path, fill: Callable[[Path], None], policy: Policy, *, what: str, advice: str) -> None:
    """Write a folder atomically: of a sharded policy every process fills it, otherwise the main process alone.

    It gets its name once every process has written and flushed its files.

    Raises:
        DiskError: the disk is full or not writable, on the process that met it.
        RuntimeError: on the others.
    """
    if not is_sharded(policy.scorer):
        processes.on_main(lambda: write_folder(target, fill, what=what, advice=advice))
        return
    opened = folder_being_written(target, what=what, advice=advice)
    with ExitStack() as stack:
        processes.on_main(lambda: stack.enter_context(opened) and None)
        error: Exception | None = None
        try:
            with as_disk_error(what, target.parent, advice, DISK_FAULTS):
                fill(half_written(target))
        except Exception as caught:  # raised below, after the other processes are informed
            error = caught
        failed = [said for said in processes.gather(repr(error) if error else None) if said]
        if error is not None:
            raise error
        if failed:
            raise RuntimeError(f"another process failed: {failed[0]}")

        def finish() -> None:
            for model in written_together(half_written(target)):
                write_index(model)
            stack.close()

        processes.on_main(finish)


def written_together(folder: Path) -> list[Path]:
    """Return the folders below one in which several processes wrote a model's weights."""
    return sorted({file.parent for file in folder.rglob("model-*-of-*.safetensors")})


def prune(root: Path, *, keep: int) -> None:
    """Remove all checkpoints but the newest `keep`."""
    for old in list_checkpoints(root)[:-keep]:
        remove_folder(old)


def save_model(target: Path, policy: Policy, companions: Callable[[Path], None] = lambda folder: None) -> None:
    """Write a plain model folder atomically, replacing an older one; a sharded model in as many files as processes.

    Args:
        target: the folder.
        policy: policy whose model and tokenizer are written.
        companions: function that writes further files into the folder.
    Raises:
        DiskError: the disk is full or not writable.
    """

    def fill(folder: Path) -> None:
        policy.save(folder)
        if processes.is_main():
            companions(folder)

    with policy.collected(trained=False):
        _write_together(target, fill, policy, what=f"model {target}", advice=GO_ON)


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
def as_checkpoint_error(folder: Path, kinds: tuple[type[BaseException], ...] = UNREADABLE) -> Iterator[None]:
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
        state = read_state(folder / "training.pt", mapped=is_sharded(policy.scorer))
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
    if (shards := folder / OPTIMIZER_SHARDS).is_dir():
        with as_checkpoint_error(folder, (*UNREADABLE, CheckpointException)):
            load_optimizer_shards(policy.optimizer, state["optimizer"]["param_groups"], shards, processes.group())
    else:
        load_optimizer_state(policy.optimizer, state["optimizer"])
    policy.apply_settings()  # a resumed run may have other settings than the saved state
    policy.version = version
    with as_checkpoint_error(folder):
        set_random_state(random)


def read_state(file: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Read tensors, numbers and text from a file. A pickle with anything else is refused before any of it runs.

    Args:
        file: written by torch.save.
        mapped: True leaves the tensors in the file until they are used, for a process that needs a part of them.
    Raises:
        ValueError: it contains anything else.
    """
    with torch.serialization.safe_globals(ARRAY), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickles that torch did not write
        try:
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped or None)
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
