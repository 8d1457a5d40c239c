"""Run folder: config, environment, metrics, all rollouts, checkpoints, final model.

RUN/config.yaml        config of the stage with all defaults
RUN/environment.json   versions, device, command
RUN/metrics.jsonl      one line per step; keys under time/, throughput/ and memory/ depend on the machine
RUN/rollouts.jsonl     one line per rollout, written before anything is filtered
RUN/updates.jsonl      one line per rollout: its advantage, or why it was left out of the update
RUN/alarms.jsonl       one line per alarm of the reward-hacking monitor, with example completions
RUN/evals.jsonl        one line per evaluation; their completions are in RUN/eval_rollouts.jsonl
RUN/tensorboard/       the same numbers as metrics.jsonl
RUN/checkpoints/       step-000025/ ..., best/
RUN/final/             a plain Hugging Face model folder
RUN/failed.json        the error that stopped the run, if there was one
RUN/done.json          written last
RUN/run.lock           process that writes the run, while it is active
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from io import FileIO
from pathlib import Path
from typing import Protocol

from reasoner.config.load import dump
from reasoner.config.stage import StageConfig
from reasoner.records import RolloutGroup
from reasoner.storage.files import DiskError, RunError, as_disk_error, write_atomic
from reasoner.storage.rows import rollout_row
from verifiers import JSON
from verifiers.jsonl import json_line
from verifiers.own_files import open_own

RECORD_FILES = (
    "metrics.jsonl",
    "rollouts.jsonl",
    "updates.jsonl",
    "evals.jsonl",
    "eval_rollouts.jsonl",
    "alarms.jsonl",
    "transcripts.jsonl",
)


class Tracker(Protocol):
    """Receiver of the metrics of every step, and of every evaluation's metrics under eval/."""

    name: str
    """Name as in the config."""

    def rows(self, name: str, rows: Sequence[Mapping[str, JSON]]) -> None:
        """Receive lines that were appended to a record file."""
        ...

    def alert(self, title: str, text: str, *, is_fault: bool) -> None:
        """Tell whoever watches the run that something is wrong with it."""
        ...

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one step's metrics."""

    def close(self) -> None:
        """Finish the run."""


class RunFolder:
    """Writer of a run's records. A checkpoint stores the length of each file, and resuming truncates them to it."""

    def __init__(self, path: Path, config: StageConfig, *, writes: bool = True) -> None:
        """Create the folder. `writes` False: a process that leaves all writing to the main process.

        Raises:
            RunError: the folder cannot be created.
        """
        self.path = path
        self.config = config
        self._writes = writes
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"output {path} cannot be created: {error.strerror}. Set output to a folder.") from error
        self._files: dict[str, FileIO] = {}
        self.trackers: Sequence[Tracker] = ()
        """Trackers that receive all metrics; closed with the folder."""
        self.listener: Callable[[str, Sequence[Mapping[str, JSON]]], None] | None = None
        """Function called with (file, rows) for all rows written."""

    def begin(self, *, offsets: Mapping[str, int], environment: Mapping[str, object]) -> None:
        """Write config and environment, and truncate the records to a checkpoint's lengths (0 for a new run).

        Raises:
            RunError: a record is shorter than it was at the checkpoint.
        """
        if not self._writes:
            return
        (self.path / "done.json").unlink(missing_ok=True)  # a finished run may be continued with more steps
        write_atomic(self.path / "config.yaml", dump(self.config).encode())
        write_atomic(self.path / "environment.json", json.dumps(environment, indent=1).encode())
        for name in RECORD_FILES:
            file = self._files[name] = FileIO(open_own(self.path / name, "append"), "ab")
            held, kept = file.tell(), offsets.get(name, 0)
            if held < kept:
                raise RunError(
                    f"{self.path / name} must have at least the {kept} bytes that it had at the checkpoint; it has"
                    f" {held}. Restore it, or start a new run from the checkpoint's model."
                )
            file.truncate(kept)
            file.seek(0, os.SEEK_END)  # truncate does not move the position, which offsets() reads

    def append(self, name: str, rows: Sequence[Mapping[str, JSON]]) -> None:
        """Append rows to a record file and pass them to the operating system.

        Raises:
            DiskError: the disk is full.
        """
        if not self._writes:
            return
        content = b"".join(json_line(row).encode() + b"\n" for row in rows)
        with self._as_disk_error(self.path / name):
            while content:
                content = content[self._files[name].write(content) :]
        if self.listener is not None:
            self.listener(name, rows)
        for tracker in self.trackers:
            with self._as_disk_error(f"rows for {tracker.name}"):
                tracker.rows(name, rows)

    def write_rollouts(self, groups: Sequence[RolloutGroup], *, first_group: int = 0) -> None:
        """Write one line per rollout of a step, in group and sample order."""
        rows = [rollout_row(group, index) for index, group in enumerate(groups, first_group)]
        self.append("rollouts.jsonl", [row for group_rows in rows for row in group_rows])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line of metrics, and pass them to every tracker. Non-finite numbers are written as null."""
        row: dict[str, JSON] = {"step": step}
        row.update({k: v if v == v and abs(v) != float("inf") else None for k, v in metrics.items()})
        self.append("metrics.jsonl", [row])
        self.track(step, metrics)

    def track(self, step: int, metrics: Mapping[str, float]) -> None:
        """Pass metrics to the trackers only."""
        for tracker in self.trackers:
            with self._as_disk_error(f"metrics for {tracker.name}"):
                tracker.write(step, metrics)

    def alert(self, title: str, text: str, *, is_fault: bool) -> None:
        """Pass what is wrong with the run to the trackers."""
        for tracker in self.trackers:
            with self._as_disk_error(f"alerts for {tracker.name}"):
                tracker.alert(title, text, is_fault=is_fault)

    def offsets(self) -> dict[str, int]:
        """Flush the record files to disk, and return the size of each in bytes."""
        for name, file in self._files.items():
            with self._as_disk_error(self.path / name):
                os.fsync(file.fileno())
        return {name: file.tell() for name, file in self._files.items()}

    def finish(self, summary: Mapping[str, JSON]) -> None:
        """Mark the stage as complete. This is the last write of a stage."""
        if self._writes:
            write_atomic(self.path / "done.json", json.dumps(summary, indent=1).encode())

    def _as_disk_error(self, what: Path | str) -> AbstractContextManager[None]:
        return as_disk_error(str(what), self.path, "Free disk space, then continue with --resume.")

    def close(self) -> None:
        """Close all files and trackers. A full disk is ignored for a tracker: metrics.jsonl has its last numbers."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        for tracker in reversed(self.trackers):  # each restores the global state it found when it was opened
            with suppress(DiskError), self._as_disk_error("metrics"):
                tracker.close()
        self.trackers = ()
