"""Rounds of one run on one held-out set: each stage's last evaluation, compared with the policy before the first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from reasoner.config.load import load_config
from reasoner.config.methods import METHODS
from reasoner.observe.analysis.compare import Comparison, compare, problem_values
from reasoner.storage.history import EvalRecord, Row, lines, row_of, stage_folders
from verifiers import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One evaluation of a run: of its start, or at the end of a stage."""

    stage: str
    """Folder of the stage."""
    step: int
    """Step of the stage after which it was evaluated; 0 for the start."""
    metric: str
    """The stage's eval.metric, or avg@ of all samples."""
    estimate: tuple[float, float, float] | None
    """(value, low, high) of the metric in evals.jsonl: Wilson's interval for 0/1 values, otherwise bootstrap.
    None: not recorded, or not finite."""
    against_start: Comparison | None
    """Comparison of the rewards with those of the start on the same problems; None for the start itself."""

    def to_json(self) -> dict[str, JSON]:
        """Return the round as a JSON object."""
        found = self.against_start
        return {
            "stage": self.stage,
            "step": self.step,
            "metric": self.metric,
            "estimate": None if self.estimate is None else [*self.estimate],
            "win_rate": None if found is None else [found.win_rate, found.win_low, found.win_high],
            "problems": None if found is None else found.problems,
        }


def rounds(run: Path) -> list[Round]:
    """Return the start and the end of each stage that trains the policy on rewards or preferences.

    The start is the evaluation before the first of these stages: after a warm start by demonstrations, the policy that
    this left. Stages that were not evaluated, or on other problems than the start, are left out. Empty if fewer than
    two stages are left: of a single one the evaluations before and after say the same.

    Raises:
        RunError: there is no run in that folder, or one of its records is damaged.
    """
    start: dict[str, float] = {}
    found: list[Round] = []
    for folder in stage_folders(run):
        config = load_config(str(folder / "config.yaml")).stages[0]
        method = METHODS[config.method]
        at = _evaluations(folder)
        if not method.passes_on_its_model or method.learns_from == "demonstrations" or not at:
            continue
        first, last, metric = min(at), max(at), config.eval.deciding
        if not found:
            start = problem_values(at[first], "reward")
            found.append(_round(folder, first, metric, None))
        values = problem_values(at[last], "reward")
        if last > first and values and values.keys() == start.keys():
            (comparison,) = compare({"start": start, folder.name: values})
            found.append(_round(folder, last, metric, comparison))
    return found if len(found) > 2 else []


def _evaluations(folder: Path) -> dict[int, list[Row]]:
    """Return the completions of each evaluation of a stage, by step."""
    found: dict[int, list[Row]] = {}
    for row in lines(folder / "eval_rollouts.jsonl", like=row_of):
        found.setdefault(row.step, []).append(row)
    return found


def _round(folder: Path, step: int, metric: str, comparison: Comparison | None) -> Round:
    records = lines(folder / "evals.jsonl", like=EvalRecord.model_validate)
    metrics = next((row.metrics for row in records if row.step == step and row.problems is not None), {})
    estimate = metrics.get(metric, metrics.get(f"pooled/{metric}"))
    return Round(
        stage=folder.name,
        step=step,
        metric=metric,
        estimate=estimate if estimate and all(map(math.isfinite, estimate)) else None,
        against_start=comparison,
    )
