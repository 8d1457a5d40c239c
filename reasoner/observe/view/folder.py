"""All runs and evaluations below a folder: which there are, and their rollouts once somebody opens them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasoner.observe.report.charts import metric_lines
from reasoner.observe.report.data import (
    Words,
    end_of,
    gap_of,
    open_records,
    sample,
    stage_summary,
    transcripts,
)
from reasoner.observe.report.explained import finish, start
from reasoner.observe.report.listing import EVALUATION, evaluated_alone, root_of, sizes, stage_line, state_of
from reasoner.observe.report.records import Records
from reasoner.storage.files import RunError
from reasoner.storage.history import History, evaluation_result, is_evaluation, read_evaluation, read_history

MOST_DEPTH = 6
"""Levels of folders below the given one that are looked through."""
MOST_FOLDERS = 20_000
NOT_RUNS = frozenset({"checkpoints", "final", "tensorboard", "start", "node_modules", "__pycache__"})
LOOK_AGAIN_SECONDS = 2.0
"""Age after which the folder is looked through again when somebody asks."""
FIRST_SECONDS = 0.2
"""Time that an answer waits for rows that are not indexed yet."""
PART_SECONDS = 0.1
"""Time for which one of a stage's files is read before the other."""
KINDS = ("train", "eval")


class NotThere(LookupError):
    """There is no such stage, kind or row."""


def stages_below(folder: Path) -> Iterator[Path]:
    """Yield the folders of all stages below a folder (or the folder itself), at most MOST_DEPTH levels down.

    A stage is a folder with a config.yaml and an environment.json, which a run writes before its first step. A folder
    of `reasoner eval --output` counts as a stage that only has held-out samples. Links are not followed.
    """
    looked = 0
    waiting = [(folder, 0)]
    while waiting and looked < MOST_FOLDERS:
        place, depth = waiting.pop()
        looked += 1
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name, reverse=True)
        except OSError:
            continue
        names = {entry.name for entry in entries}
        if {"config.yaml", "environment.json"} <= names or is_evaluation(names):
            yield place
            continue
        if depth < MOST_DEPTH:
            waiting += [
                (Path(entry.path), depth + 1)
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and entry.name not in NOT_RUNS and not entry.name.startswith(".")
            ]


@dataclass
class Stage:
    """A stage that somebody looks at: its summary and rollouts, read again as its files grow."""

    folder: Path
    lock: threading.Lock = field(default_factory=threading.Lock)
    records: dict[str, Records] = field(default_factory=dict[str, Records])
    reader: threading.Thread | None = None
    closed: bool = False
    _sizes: tuple[tuple[int, float], ...] = ()
    _history: History | None = None
    _words: Words | None = None
    _explained: dict[str, Any] | None = None
    _explaining: threading.Thread | None = None

    def history(self) -> History:
        """Return the stage's records without rollouts, read again if a file changed.

        Raises:
            RunError: a record is damaged.
        """
        with self.lock:
            now = sizes(self.folder)
            if self._history is None or now != self._sizes:
                alone = evaluated_alone(self.folder)
                read = read_evaluation(self.folder) if alone else read_history(self.folder, rollouts=False)
                self._history, self._sizes = read, now
            return self._history

    def summary(self) -> dict[str, Any]:
        """Return what the page shows of the stage before a rollout is opened."""
        history = self.history()
        told = transcripts(history)
        train = self.opened("train")
        with train.lock:
            shown = stage_summary(history, train.columns)
        if evaluated_alone(self.folder):
            said = json.dumps(evaluation_result(self.folder), indent=1, ensure_ascii=False)
            shown |= {"method": EVALUATION, "of": None, "config": said}
        return {**shown, "transcripts": {"count": len(told)}, "findings": None, "audit": []}

    def metrics(self) -> dict[str, Any]:
        """Return every metric: {name: [steps, values]}."""
        return metric_lines(self.history())

    def transcripts(self) -> list[dict[str, Any]]:
        """Return the transcripts of a constitutional stage."""
        return transcripts(self.history())

    def opened(self, kind: str) -> Records:
        """Return the rollouts of training or of evaluations; a thread reads the files while the page waits.

        Raises:
            NotThere: there is no such kind.
        """
        if kind not in KINDS:
            raise NotThere(kind)
        with self.lock:
            if not self.records:
                train, evaluations = open_records(self.folder, searchable=True)
                self.records = {"train": train, "eval": evaluations}
            if self.reader is None or not self.reader.is_alive():
                self.reader = threading.Thread(target=self._read, daemon=True)
                self.reader.start()
        return self.records[kind]

    def close(self) -> None:
        """End reading, and delete the texts of the rollouts."""
        self.closed = True
        if self.reader is not None:
            self.reader.join()
        for records in self.records.values():
            records.close()

    def _read(self) -> None:
        """Read what is new in both files, a part at a time."""
        more = True
        while more and not self.closed:
            more = False
            for records in self.records.values():
                more = records.refresh(seconds=PART_SECONDS) or more

    def columns(self, kind: str, start: int, generation: int) -> dict[str, Any]:
        """Return the columns from a row on; from the first if the file was read anew since `generation`."""
        records = self.opened(kind)
        until = time.monotonic() + FIRST_SECONDS
        while self.reader is not None and self.reader.is_alive() and time.monotonic() < until:
            self.reader.join(0.05)
        with records.lock:
            begin = min(start, len(records.columns)) if generation == records.generation else 0
            read, size = records.progress
            return {
                **records.columns.to_json(begin),
                "settled": records.settled_rows,
                "generation": records.generation,
                "read": read,
                "size": size,
                "damaged": records.damaged,
            }

    def samples(self, kind: str, rows: list[int]) -> list[dict[str, Any]]:
        """Return rollouts to read, with the text of their tokens.

        Raises:
            NotThere: a row is not there.
            RunError: a record is damaged.
        """
        records = self.opened(kind)
        if self._words is None or not self._words.known:
            self._words = Words(self.history())
        found: list[dict[str, Any]] = []
        for number in rows:
            if not 0 <= number < len(records.columns):
                raise NotThere(number)
            row = records.row(number)
            shown = sample(row, self._words)
            ids = set(shown.get("ids", ()))
            words = {str(token): self._words.table[token] for token in ids}
            found.append({**shown, "words": words, "mean_gap": gap_of(row)})
        return found

    def heads(self, kind: str, rows: list[int]) -> list[str]:
        """Return the end of each completion, for the list."""
        records = self.opened(kind)
        if any(not 0 <= number < len(records.columns) for number in rows):
            raise NotThere(str(rows))
        return [end_of(str(records.brief(number)["completion"])) for number in rows]

    def search(self, kind: str, text: str, *, regex: bool) -> list[int]:
        """Return the rows whose prompt, completion, answer or reference contains a text or a regular expression.

        Raises:
            SearchError: the regular expression is not valid or takes too long.
        """
        texts = self.opened(kind).texts
        assert texts is not None
        return texts.matching(text) if regex else texts.containing(text)

    def explain(self, *, again: bool = False) -> dict[str, Any]:
        """Return the findings, or {"state": "running"} while they are looked for."""
        with self.lock:
            if self._explaining is not None and self._explaining.is_alive():
                return {"state": "running"}
            if self._explained is None or again:
                self._explaining = threading.Thread(target=self._explain, daemon=True)
                self._explaining.start()
                return {"state": "running"}
            return {"state": "done", **self._explained}

    def _explain(self) -> None:
        self._explained = finish(start(self.folder))


class Folder:
    """Runs and evaluations below a folder."""

    def __init__(self, root: Path) -> None:
        """Look at nothing yet.

        Raises:
            RunError: it is not a folder.
        """
        if not root.is_dir():
            raise RunError(f"{root} must be a folder with runs; there is no such folder. Give the folder of your runs.")
        self.root = root.resolve()
        self._lock = threading.Lock()
        self._stages: dict[str, Stage] = {}
        self._lines: dict[str, tuple[object, dict[str, Any]]] = {}
        self._looked = 0.0

    def stages(self) -> dict[str, Stage]:
        """Return the stages by name: the path below the folder, `.` for the folder itself."""
        with self._lock:
            if time.monotonic() - self._looked > LOOK_AGAIN_SECONDS:
                found = {path.relative_to(self.root).as_posix(): path for path in stages_below(self.root)}
                self._stages = {name: self._stages.get(name) or Stage(path) for name, path in found.items()}
                self._looked = time.monotonic()
            return self._stages

    def stage(self, name: str) -> Stage:
        """Return one stage.

        Raises:
            NotThere: there is no such stage.
        """
        found = self.stages().get(name)
        if found is None:
            raise NotThere(name)
        return found

    def lines(self) -> list[dict[str, Any]]:
        """Return one line per stage, newest run first."""
        found: list[dict[str, Any]] = []
        for name, stage in self.stages().items():
            state = sizes(stage.folder)
            known = self._lines.get(name)
            if known and known[0] == state:
                line = {**known[1], "state": state_of(stage.folder)}  # a process may have ended meanwhile
            else:
                root = root_of(stage.folder)
                shown = root.relative_to(self.root).as_posix() if root.is_relative_to(self.root) else root.name
                run = root.name if shown == "." else shown
                line = {"id": name, "run": run, "name": stage.folder.name, **stage_line(stage.folder)}
                self._lines[name] = (state, line)
            found.append(line)
        newest: dict[str, float] = {}
        for line in found:
            newest[line["run"]] = max(newest.get(line["run"], 0.0), line["updated"] or 0.0)
        return sorted(found, key=lambda line: (-newest[line["run"]], line["run"], _number(line["name"])))

    def close(self) -> None:
        """Delete what is kept of the stages."""
        for stage in self._stages.values():
            stage.close()

    def fingerprint(self) -> dict[str, str]:
        """Return for each stage a text that changes when one of its files does."""
        return {name: str(hash(sizes(stage.folder))) for name, stage in self.stages().items()}


def _number(name: str) -> int:
    first = name.partition("-")[0]
    return int(first) if first.isdecimal() else 0
