"""The run folder: config, environment, metrics, every rollout, checkpoints, the final model.

RUN/config.yaml        the resolved stage
RUN/environment.json   versions, device, command
RUN/metrics.jsonl      one line a step; keys under time/, throughput/ and memory/ are measurements of the machine
RUN/rollouts.jsonl     one line a rollout, written before anything is filtered
RUN/updates.jsonl      one line a rollout: its advantage, or why it was left out of the update
RUN/alarms.jsonl       one line an alarm of the watch for reward hacking, with the completions behind it
RUN/evals.jsonl        one line an evaluation; RUN/eval_rollouts.jsonl its completions
RUN/tensorboard/       the same numbers as metrics.jsonl
RUN/checkpoints/       step-000025/ ..., best/
RUN/final/             a plain Hugging Face model folder
RUN/failed.json        what stopped the run, where an error did
RUN/done.json          written last
RUN/run.lock           who writes the run, while it goes on
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
from reasoner.storage.files import DiskError, RunError, disk_faults_told, write_atomic
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
    """Receives the metrics of every step, and the figures of every evaluation under eval/."""

    name: str
    """As the config names it."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take one step's metrics."""

    def close(self) -> None:
        """End the run."""


class RunFolder:
    """Appends records; a checkpoint remembers how long each file was, and resuming cuts them back to that."""

    def __init__(self, path: Path, config: StageConfig, *, writes: bool = True) -> None:
        """`writes` False: in a process that leaves the writing to another one."""
        self.path = path
        self.config = config
        self._writes = writes
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"output {path} cannot be made: {error.strerror}. Set output to a folder.") from error
        self._files: dict[str, FileIO] = {}
        self.trackers: Sequence[Tracker] = ()
        """Given every line of metrics; closed with the folder."""
        self.listener: Callable[[str, Sequence[Mapping[str, JSON]]], None] | None = None
        """Hears of every line: (file, rows)."""

    def begin(self, *, offsets: Mapping[str, int], environment: Mapping[str, object]) -> None:
        """Write config and environment, and cut the records back to a checkpoint (all zero at the start).

        Raises:
            RunError: a record is shorter than it was at the checkpoint.
        """
        if not self._writes:
            return
        (self.path / "done.json").unlink(missing_ok=True)  # a finished run that is given more steps
        write_atomic(self.path / "config.yaml", dump(self.config).encode())
        write_atomic(self.path / "environment.json", json.dumps(environment, indent=1).encode())
        for name in RECORD_FILES:
            file = self._files[name] = FileIO(open_own(self.path / name, "append"), "ab")
            held, kept = file.tell(), offsets.get(name, 0)
            if held < kept:
                raise RunError(
                    f"{self.path / name} must hold the {kept} bytes that it had at the checkpoint; it has {held}."
                    " Restore it, or begin a new run from the checkpoint's model."
                )
            file.truncate(kept)
            file.seek(0, os.SEEK_END)  # truncate leaves the position, which offsets() reads, where it was

    def append(self, name: str, rows: Sequence[Mapping[str, JSON]]) -> None:
        """Append rows to a record file and hand them to the operating system.

        Raises:
            DiskError: the disk is full.
        """
        if not self._writes:
            return
        content = b"".join(json_line(row).encode() + b"\n" for row in rows)
        with self._told(self.path / name):
            while content:
                content = content[self._files[name].write(content) :]
        if self.listener is not None:
            self.listener(name, rows)

    def write_rollouts(self, groups: Sequence[RolloutGroup], *, first_group: int = 0) -> None:
        """One line per rollout of a step, in group and sample order."""
        rows = [rollout_row(group, index) for index, group in enumerate(groups, first_group)]
        self.append("rollouts.jsonl", [row for group_rows in rows for row in group_rows])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line of metrics, also to every tracker. Non-finite numbers are written as null."""
        row: dict[str, JSON] = {"step": step}
        row.update({k: v if v == v and abs(v) != float("inf") else None for k, v in metrics.items()})
        self.append("metrics.jsonl", [row])
        self.track(step, metrics)

    def track(self, step: int, metrics: Mapping[str, float]) -> None:
        """Give numbers to every tracker alone."""
        for tracker in self.trackers:
            with self._told(f"metrics for {tracker.name}"):
                tracker.write(step, metrics)

    def offsets(self) -> dict[str, int]:
        """Bytes of each record file, after forcing them to disk."""
        for name, file in self._files.items():
            with self._told(self.path / name):
                os.fsync(file.fileno())
        return {name: file.tell() for name, file in self._files.items()}

    def finish(self, summary: Mapping[str, JSON]) -> None:
        """Mark the stage as complete; the last thing a stage writes."""
        if self._writes:
            write_atomic(self.path / "done.json", json.dumps(summary, indent=1).encode())

    def _told(self, what: Path | str) -> AbstractContextManager[None]:
        return disk_faults_told(str(what), self.path, "Free disk space, then go on with --resume.")

    def close(self) -> None:
        """Close every file; where a tracker has no room for its last numbers, metrics.jsonl has them."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        for tracker in reversed(self.trackers):  # each gives back what it found when it was opened
            with suppress(DiskError), self._told("metrics"):
                tracker.close()
        self.trackers = ()
