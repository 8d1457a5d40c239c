"""Python interface: the names that `import reasoner` offers, imported on first use."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoner.config.errors import ConfigError
from reasoner.config.load import load_config, resolve
from reasoner.engine.environment import prepare_process
from reasoner.errors import FAILED, ReasonerError
from reasoner.stages.names import check_run_names
from reasoner.storage.find_model import find_model
from reasoner.storage.history import stage_folders

if TYPE_CHECKING:
    from pandas import DataFrame


class MissingPackage(ReasonerError, ImportError):
    """A package that a call needs is not installed; the message says how to install it."""

    exit_code = FAILED


@dataclass(frozen=True)
class Run:
    """A run folder, finished or not, with its records as data frames.

    Example:
        >>> Run("runs/mine").rollouts().groupby("step").reward.mean()                      # doctest: +SKIP
    """

    folder: Path | str
    """Output folder of the run (`output` in the config)."""

    @property
    def model(self) -> Path:
        """Folder of the final model; without one, of the newest checkpoint's model.

        Raises:
            RunError: the run has neither.
        """
        return find_model(Path(self.folder))

    def metrics(self) -> DataFrame:
        """Return one row per step; docs/metrics.md explains the columns.

        Raises:
            RunError: the folder contains no run.
            MissingPackage: pandas is not installed.
        """
        return self._frame("metrics.jsonl")

    def rollouts(self) -> DataFrame:
        """Return one row per training completion, also those left out of updates. Verdicts are in `verdict.reward`, ...

        Raises: as `metrics`.
        """
        return self._frame("rollouts.jsonl")

    def evals(self) -> DataFrame:
        """Return one row per evaluation. Raises: as `metrics`."""
        return self._frame("evals.jsonl")

    def eval_rollouts(self) -> DataFrame:
        """Return one row per completion of an evaluation. Raises: as `metrics`."""
        return self._frame("eval_rollouts.jsonl")

    def _frame(self, name: str) -> DataFrame:
        """Read a record file of all stages in order; with several stages, add a column `stage`.

        Raises:
            RunError: the folder contains no run.
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
            whole = text[: text.rfind("\n") + 1]  # an active run may still be writing the last line
            named = {"stage": stage.name} if len(stages) > 1 else {}
            rows += [{**named, **json.loads(line)} for line in whole.splitlines()]
        return pd.json_normalize(rows, max_level=1)


def run(config: str | Path | Mapping[str, object], *, resume: bool = False, **overrides: object) -> Run:
    """Run all stages of a config and return the run.

    If possible, call it before anything imports torch: OpenMP and vLLM read their settings at import, and without them
    vLLM's CPU build uses only one core.

    Args:
        config: a YAML file, the name of a shipped config, or the settings as a mapping.
        resume: continue from the last checkpoint in the run folder.
        overrides: settings that replace the config's: `steps=20`, `optim={"lr": 1e-5}`, `**{"optim.lr": 1e-5}`.
    Raises:
        ReasonerError, TaskError, VerifierError: any error that the command prints as one line.

    Example:
        >>> run("quickstart", output="runs/first").metrics()                               # doctest: +SKIP
    """
    given = [f"{key}={json.dumps(value)}" for name, held in overrides.items() for key, value in _keys(name, held)]
    loaded = resolve(config, given) if isinstance(config, Mapping) else load_config(str(config), given)
    prepare_process(late="torch" in sys.modules)
    check_run_names(loaded, resume=resume)
    if any(stage.cluster.starts for stage in loaded.stages):
        raise ConfigError(
            "bad-value",
            "cluster.* starts further processes, which only the command does: `reasoner train CONFIG`. Leave it out.",
        )
    from reasoner.stages.pipeline import run_pipeline

    run_pipeline(loaded, resume=resume, names_checked=True)
    return Run(Path(loaded.output))


def _keys(name: str, value: object) -> list[tuple[str, object]]:
    """Return dotted keys and values of a setting. A mapping is merged key by key, so that its other keys are kept."""
    if not isinstance(value, Mapping):
        return [(name, str(value) if isinstance(value, Path) else value)]
    return [pair for key, held in value.items() for pair in _keys(f"{name}.{key}", held)]


__all__ = ["MissingPackage", "Run", "run"]
