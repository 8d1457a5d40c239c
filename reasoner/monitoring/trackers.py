"""Writing of a run's metrics, under the same names, to trackers that accelerate supports: TensorBoard, wandb, ..."""

from __future__ import annotations

import importlib
import re
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from reasoner.config.errors import ConfigError
from reasoner.config.stage import StageConfig
from reasoner.storage.files import DISK_FULL, disk_fault, write_text
from reasoner.storage.run_folder import Tracker
from verifiers import JSON
from verifiers.jsonl import json_line

ID_FILE = "tracker_run.txt"
"""File in a stage's folder with the id of its run in the trackers."""
WITH_TABLES = ("wandb", "trackio")
"""Trackers that show tables and alerts."""
TABLES = {"rollouts.jsonl": "samples/train", "eval_rollouts.jsonl": "samples/eval"}
"""Record file -> name of its table."""
COLUMNS = ("step", "problem", "prompt", "completion", "reference", "reward", "outcome", "answer")
LONGEST_TITLE = 64
"""Characters of an alert's title (wandb)."""


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
    section = config.logging
    check_trackers(section.trackers)
    names = [*(["tensorboard"] if section.tensorboard else []), *section.trackers]
    same = _run_id(folder, goes_on=purge_step is not None)
    opened: list[Tracker] = []
    for name in names:
        tracker = _started(name, config, folder, purge_step=purge_step, same=same)
        opened.append(RunTracker(name, tracker, note, samples=section.samples, every=section.samples_every))
    return opened


def _run_id(folder: Path, *, goes_on: bool) -> str:
    """Return the id of the trackers' run: that of the folder's run if it goes on, a new one if it begins (anew)."""
    file = folder / ID_FILE
    if goes_on and file.is_file():
        return file.read_text().strip()
    same = secrets.token_hex(8)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, same)
    return same


def _started(name: str, config: StageConfig, folder: Path, *, purge_step: int | None, same: str) -> GeneralTracker:
    """Start accelerate's tracker of that name with a run for this stage; all but tensorboard store the config."""
    project, group = config.logging.project, config.logging.group
    run = config.logging.run or (f"{config.name}-{folder.name}" if folder.name != config.name else config.name)
    goes_on = purge_step is not None
    about: dict[str, object] = {"group": group} if group else {}
    tags: dict[str, object] = {"tags": list(config.logging.tags)} if config.logging.tags else {}
    options: Mapping[str, Mapping[str, object]] = {
        "tensorboard": {"run_name": "tensorboard", "logging_dir": str(folder), "purge_step": purge_step},
        "wandb": {"run_name": project, "name": run, "dir": str(folder), "id": same, "resume": "allow", **about, **tags},
        "trackio": {"run_name": project, "name": run, "resume": "allow" if goes_on else "never", **about},
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

    def __init__(
        self, name: str, tracker: GeneralTracker, note: Callable[[str], None], *, samples: int = 0, every: int = 1
    ) -> None:
        """Wrap accelerate's tracker.

        Args:
            name: of the tracker.
            tracker: accelerate's, started.
            note: displays a line to the user.
            samples: rows of a step or an evaluation that become a table, if the tracker has tables; 0: none.
            every: steps between two tables.
        """
        self.name, self._tracker, self._note = name, tracker, note
        self._samples, self._every = samples if name in WITH_TABLES else 0, every
        self._shown: dict[str, JSON] = {}
        """Record file -> the step whose rows were sent last."""
        self._failed = False
        self._hook = threading.excepthook
        threading.excepthook = self._full_disk_is_quiet

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one step's metrics."""
        # MLflow refuses names like avg@1 (mlflow.utils.validation)
        values = {re.sub(r"[^\w\-./ :]", "_", k) if self.name == "mlflow" else k: v for k, v in metrics.items()}
        self._guarded(lambda: self._tracker.log(values, step=step), f"take step {step}")

    def rows(self, name: str, rows: Sequence[Mapping[str, JSON]]) -> None:
        """Send a table of samples from new lines of a record file, and an alert for each alarm."""
        for row in rows if name == "alarms.jsonl" else ():
            self.alert(str(row["alarm"]), str(row["sentence"]), is_fault=True)
        key = TABLES.get(name)
        if not rows or key is None or not self._samples or self._shown.get(name) == rows[0]["step"]:
            return
        step = self._shown[name] = rows[0]["step"]
        if not isinstance(step, int) or (name == "rollouts.jsonl" and step % self._every):
            return
        chosen = [rows[len(rows) * place // self._samples] for place in range(min(self._samples, len(rows)))]
        table = [[_cell(row, column) for column in COLUMNS] for row in chosen]
        self._guarded(lambda: self._log_table(key, table, step), f"take the samples of step {step}")

    def _log_table(self, key: str, table: list[list[str | float | None]], step: int) -> None:
        module = importlib.import_module(self.name)
        self._tracker.log({key: module.Table(columns=[*COLUMNS], data=table)}, step=step)

    def alert(self, title: str, text: str, *, is_fault: bool) -> None:
        """Send an alert, if the tracker has alerts (wandb and trackio)."""
        if self.name not in WITH_TABLES:
            return
        module = importlib.import_module(self.name)
        level = module.AlertLevel.ERROR if is_fault else module.AlertLevel.WARN
        short = title if len(title) < LONGEST_TITLE else f"{title[: LONGEST_TITLE - 4]}..."
        self._guarded(lambda: module.alert(title=short, text=text, level=level), "take an alert")

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


def _cell(row: Mapping[str, JSON], column: str) -> str | float | None:
    """Return a value of a row for a table; the outcome and the answer are those of its verdict."""
    verdict = row.get("verdict")
    source = verdict if column in ("outcome", "answer") and isinstance(verdict, dict) else row
    value = source.get(column)
    return value if value is None or isinstance(value, str | int | float) else json_line(value)
