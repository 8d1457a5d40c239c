"""The same numbers, under the same names, to the trackers that people use: wandb and trackio."""

from __future__ import annotations

import hashlib
import importlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reasoner.config.errors import ConfigError
from reasoner.config.stage import StageConfig
from reasoner.storage.files import DISK_FULL, disk_fault
from reasoner.storage.run_folder import Tracker


def check_trackers(names: Sequence[str]) -> None:
    """Raises ConfigError where a tracker is not installed."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                "bad-value",
                f"logging.trackers names {name}, which is not installed here ({error}). `pip install {name}`, or"
                " take it out; metrics.jsonl and TensorBoard hold the same numbers.",
            ) from error


def open_trackers(config: StageConfig, folder: Path, *, purge_step: int | None) -> list[Tracker]:
    """Open TensorBoard and the trackers that the config names.

    Args:
        config: its `logging` section.
        folder: the run folder.
        purge_step: of a resumed run: TensorBoard drops what was written of this step and those after it.
    Raises:
        ConfigError: a tracker is not installed.
    """
    board = [TensorBoard(folder / "tensorboard", purge_step=purge_step)] if config.logging.tensorboard else []
    return [*board, *(RunTracker(name, config, folder) for name in config.logging.trackers)]


class RunTracker:
    """One run of wandb or trackio; both modules have the same three calls."""

    def __init__(self, name: str, config: StageConfig, path: Path) -> None:
        """Raises ConfigError where the package is not installed."""
        check_trackers([name])
        self._module: Any = importlib.import_module(name)
        options: dict[str, object] = {}
        if name == "wandb":
            # the same folder is the same run: a resumed stage goes on in its own curves
            options = {"dir": str(path), "id": hashlib.blake2b(str(path.resolve()).encode(), digest_size=8).hexdigest()}
        self._module.init(
            project=config.logging.project,
            name=f"{config.name}-{path.name}" if path.name != config.name else config.name,
            config=config.model_dump(mode="json"),
            resume="allow",
            **options,
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One step's numbers."""
        self._module.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._module.finish()


class TensorBoard:
    """The metrics as TensorBoard scalars."""

    def __init__(self, path: Path, *, purge_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._hook = threading.excepthook
        threading.excepthook = self._full_disk_is_quiet
        self._writer = SummaryWriter(str(path), purge_step=purge_step)

    def _full_disk_is_quiet(self, failed: threading.ExceptHookArgs) -> None:
        """Print no traceback of the writer's thread where the disk is full: it raises at the next write as well."""
        if disk_fault(failed.exc_value, DISK_FULL) is None:
            self._hook(failed)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one step's scalars."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        try:
            self._writer.close()
        finally:
            threading.excepthook = self._hook
