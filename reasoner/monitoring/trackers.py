"""Writing of a run's metrics, under the same names, to trackers that accelerate supports: TensorBoard, wandb, ..."""

from __future__ import annotations

import hashlib
import importlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from reasoner.config.errors import ConfigError
from reasoner.config.stage import StageConfig
from reasoner.storage.files import DISK_FULL, disk_fault
from reasoner.storage.run_folder import Tracker


def check_trackers(names: Sequence[str]) -> None:
    """Check that the trackers are installed; raise ConfigError if one is not."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                "bad-value",
                f"logging.trackers names {name}, which is not installed here ({error}). Run `pip install {name}`, or"
                " remove it; metrics.jsonl and TensorBoard contain the same numbers.",
            ) from error


def open_trackers(
    config: StageConfig, folder: Path, *, purge_step: int | None, note: Callable[[str], None]
) -> list[Tracker]:
    """Open TensorBoard and the trackers that the config names.

    Args:
        config: the stage; its `logging` section is used.
        folder: the run folder.
        purge_step: first step after a resume; TensorBoard discards what was written for this and later steps.
        note: displays a line to the user.
    Raises:
        ConfigError: a tracker is not installed, or does not start.
    """
    check_trackers(config.logging.trackers)
    names = [*(["tensorboard"] if config.logging.tensorboard else []), *config.logging.trackers]
    return [RunTracker(name, _started(name, config, folder, purge_step=purge_step), note) for name in names]


def _started(name: str, config: StageConfig, folder: Path, *, purge_step: int | None) -> GeneralTracker:
    """Start accelerate's tracker of that name with a run for this stage; all but tensorboard store the config."""
    project = config.logging.project
    run = f"{config.name}-{folder.name}" if folder.name != config.name else config.name
    # the same folder is the same run: a resumed stage continues its own curves
    same = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()
    options: Mapping[str, Mapping[str, object]] = {
        "tensorboard": {"run_name": "tensorboard", "logging_dir": str(folder), "purge_step": purge_step},
        "wandb": {"run_name": project, "name": run, "dir": str(folder), "id": same, "resume": "allow"},
        "trackio": {"run_name": project, "name": run, "resume": "allow"},
        "mlflow": {"experiment_name": project, "run_name": run},
        "comet_ml": {"run_name": project, "experiment_key": same * 2},
        "aim": {"run_name": run, "logging_dir": str(folder), "experiment": project},
        "clearml": {"run_name": run, "project_name": project},
        "dvclive": {"run_name": run, "dir": str(folder / "dvclive"), "resume": True},
        "swanlab": {"run_name": project, "experiment_name": run, "logdir": str(folder / "swanlab")},
    }
    PartialState()  # accelerate's loggers need it; usually a stage's accelerator has created it
    try:
        tracker: GeneralTracker = LOGGER_TYPE_TO_CLASS[name](**options[name])
        tracker.start()
        if name != "tensorboard":  # accepts only flat values
            tracker.store_init_configuration(config.model_dump(mode="json"))
    except Exception as error:
        raise ConfigError(
            "bad-value",
            f"logging.trackers names {name}, which does not start: {type(error).__name__}: {error} Fix that, or remove"
            " it; metrics.jsonl contains the same numbers.",
        ) from error
    return tracker


class RunTracker:
    """A tracker with one run. After a failure it is not used any more; the run and its records continue without it.

    Full disks are an exception: that error is raised to the caller.
    """

    def __init__(self, name: str, tracker: GeneralTracker, note: Callable[[str], None]) -> None:
        self.name, self._tracker, self._note = name, tracker, note
        self._failed = False
        self._hook = threading.excepthook
        threading.excepthook = self._full_disk_is_quiet

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one step's metrics."""
        # MLflow refuses names like avg@1 (mlflow.utils.validation)
        values = {re.sub(r"[^\w\-./ :]", "_", k) if self.name == "mlflow" else k: v for k, v in metrics.items()}
        self._guarded(lambda: self._tracker.log(values, step=step), f"take step {step}")

    def close(self) -> None:
        """Finish the run."""
        try:
            self._guarded(self._tracker.finish, "finish")
        finally:
            threading.excepthook = self._hook

    def _full_disk_is_quiet(self, failed: threading.ExceptHookArgs) -> None:
        """Suppress tracebacks of a tracker's thread if the disk is full; the next write raises the error anyway."""
        if disk_fault(failed.exc_value, DISK_FULL) is None:
            self._hook(failed)

    def _guarded(self, act: Callable[[], object], what: str) -> None:
        if self._failed:
            return
        try:
            act()
        except Exception as error:  # trackers raise any kind: network, server, ...
            self._failed = True
            if disk_fault(error, DISK_FULL) is not None:
                raise
            self._note(
                f"the tracker {self.name} did not {what} ({type(error).__name__}: {str(error)[:200]}) and is not used"
                " any more; metrics.jsonl contains all numbers."
            )
