"""Runs from Python: what `import reasoner` offers, imported when it is used."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoner.config.load import load_config, resolve
from reasoner.engine.environment import prepare_process
from reasoner.errors import FAILED, ReasonerError
from reasoner.stages.names import check_run_names
from reasoner.storage.find_model import find_model
from reasoner.storage.history import stage_folders

if TYPE_CHECKING:
    from pandas import DataFrame


class MissingPackage(ReasonerError, ImportError):
    """A package that a call needs is not installed; the message says what brings it."""

    exit_code = FAILED


@dataclass(frozen=True)
class Run:
    """A run folder, finished or not: its records as data frames.

    Example:
        >>> Run("runs/mine").rollouts().groupby("step").reward.mean()                      # doctest: +SKIP
    """

    folder: Path | str
    """The `output` of the run."""

    @property
    def model(self) -> Path:
        """Folder of the final model, else of the newest checkpoint's.

        Raises:
            RunError: there is none.
        """
        return find_model(Path(self.folder))

    def metrics(self) -> DataFrame:
        """One row a step: see docs/metrics.md for the columns."""
        return self._frame("metrics.jsonl")

    def rollouts(self) -> DataFrame:
        """One row a completion that was trained on or left out, with its verdict in columns `verdict.reward`, ..."""
        return self._frame("rollouts.jsonl")

    def evals(self) -> DataFrame:
        """One row an evaluation."""
        return self._frame("evals.jsonl")

    def eval_rollouts(self) -> DataFrame:
        """One row a completion of an evaluation."""
        return self._frame("eval_rollouts.jsonl")

    def _frame(self, name: str) -> DataFrame:
        """A record file of all stages, in order; of several stages with a column `stage`.

        Raises:
            RunError: the folder holds no run.
            MissingPackage: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingPackage("data frames need pandas: pip install pandas.") from error

        stages = stage_folders(Path(self.folder))
        rows: list[dict[str, Any]] = []
        for stage in stages:
            file = stage / name
            text = file.read_text(encoding="utf-8") if file.is_file() else ""
            whole = text[: text.rfind("\n") + 1]  # a run that goes on may be writing the last line
            named = {"stage": stage.name} if len(stages) > 1 else {}
            rows += [{**named, **json.loads(line)} for line in whole.splitlines()]
        return pd.json_normalize(rows, max_level=1)


def run(config: str | Path | Mapping[str, object], *, resume: bool = False, **overrides: object) -> Run:
    """Run a config, whole, and return its folder.

    Call it before anything imports torch where you can: OpenMP and vLLM read their settings then, and vLLM's CPU build
    keeps a process to one core without them.

    Args:
        config: a YAML file, the name of a shipped config, or the settings themselves.
        resume: continue from the last checkpoint in the run folder.
        overrides: settings that win over the config: `steps=20`, `optim={"lr": 1e-5}`, `**{"optim.lr": 1e-5}`.
    Raises:
        ReasonerError, TaskError, VerifierError: what the command would print as one line.

    Example:
        >>> run("quickstart", output="runs/first").metrics()                               # doctest: +SKIP
    """
    given = [f"{key}={json.dumps(value)}" for name, held in overrides.items() for key, value in _keys(name, held)]
    loaded = resolve(config, given) if isinstance(config, Mapping) else load_config(str(config), given)
    prepare_process(late="torch" in sys.modules)
    check_run_names(loaded, resume=resume)
    from reasoner.stages.pipeline import run_pipeline

    run_pipeline(loaded, resume=resume, names_checked=True)
    return Run(Path(loaded.output))


def _keys(name: str, value: object) -> list[tuple[str, object]]:
    """Dotted keys of a setting; those of a mapping are taken one by one, so that its other keys keep their values."""
    if not isinstance(value, Mapping):
        return [(name, str(value) if isinstance(value, Path) else value)]
    return [pair for key, held in value.items() for pair in _keys(f"{name}.{key}", held)]


__all__ = ["MissingPackage", "Run", "run"]
