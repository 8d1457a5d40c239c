"""What sampling ahead would gain: the model of `ahead_model`, with the times and lengths of a run's own steps."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reasoner.config.load import load_config
from reasoner.config.stage import StageConfig
from reasoner.preflight.ahead_model import Setting, drawn_from, fence_seconds, one_batch, simulate
from reasoner.storage.history import lines

FEWEST = 4
"""Steps of a run that are needed, beside the first one, which includes warming up (our choice)."""
STEPS = 24
"""Steps that are simulated."""


@dataclass(frozen=True)
class Measured:
    """Steps of a run whose batches were sampled when their steps began. Medians in seconds."""

    steps: int
    lengths: list[int]
    """Sampled tokens of each completion."""
    sampling: float
    """With the grading that was waited for."""
    setting: Setting
    """Sizes of a step, the seconds of its update and of its new weights, and the speed of its sampler."""

    @property
    def step_seconds(self) -> float:
        """Seconds of a step."""
        return self.sampling + self.setting.update + self.setting.sync


def measured(folder: Path) -> Measured | None:
    """Read the steps of a stage's folder.

    The seconds of a token are scaled so that the model takes as long for each batch as the run did.

    Returns:
        None without a run, or if its batches were sampled ahead, or if it has too few steps.
    Raises:
        RunError: a line is damaged.
    """
    if not (folder / "config.yaml").is_file():
        return None
    stage = load_config(str(folder / "config.yaml")).stages[0]
    taken = {int(row["step"]): row for row in lines(folder / "metrics.jsonl", like=_as_row)}
    lengths: dict[int, list[int]] = {}
    for row in lines(folder / "rollouts.jsonl", like=_as_row):
        lengths.setdefault(int(row["step"]), []).append(int(row["tokens"]))
    steps = [step for step in sorted(taken)[1:] if {"time/rollout", "time/sync"} <= taken[step].keys()]
    steps = [step for step in steps if step in lengths]
    if stage.rollout.ahead or len(steps) < FEWEST:
        return None
    sampler = _sampler(stage)
    scale = statistics.median(taken[step]["time/rollout"] / one_batch(sampler, lengths[step]) for step in steps)
    sync = statistics.median(taken[step]["time/sync"] for step in steps)
    rest = [taken[step]["time/step"] - taken[step]["time/rollout"] - taken[step]["time/sync"] for step in steps]
    setting = replace(
        sampler, base=sampler.base * scale, row=sampler.row * scale, update=statistics.median(rest), sync=sync
    )
    sampling = statistics.median(taken[step]["time/rollout"] for step in steps)
    return Measured(len(steps), [one for step in steps for one in lengths[step]], sampling, setting)


def _as_row(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return record


def _sampler(stage: StageConfig) -> Setting:
    options: dict[str, Any] = dict(stage.engine.options)
    servers = len(options.get("urls") or ()) or int(options.get("servers", 1))
    return Setting(
        rows=stage.rollout.problems_per_step * stage.rollout.group_size,
        replicas=servers if stage.engine.name == "vllm-server" else 1,
        update=0.0,
        most=int(options.get("max_batch", 256)),
    )


def predicted(run: Measured) -> dict[str, float]:
    """Return the seconds of a step by the settings that give it."""
    found = {"ahead=1": fence_seconds(run.setting, run.sampling)}
    for ahead in (1, 2, 4):
        ahead_of = replace(run.setting, ahead=ahead)
        found[f"ahead={ahead} go_on"] = simulate(ahead_of, drawn_from(run.lengths, 0), STEPS)["step_seconds"]
    return found


def ahead_line(folder: Path) -> str | None:
    """Return a sentence on what `rollout.ahead` would gain in a stage that was run in this folder.

    Returns:
        None if the folder has no run to predict from.
    """
    run = measured(folder)
    if run is None:
        return None
    gains = ", ".join(
        f"{name} {seconds:.2g} s ({run.step_seconds / seconds:.2f}x)" for name, seconds in predicted(run).items()
    )
    return (
        f"sampling ahead, as a model predicts it from {run.steps} steps in {folder} ({run.step_seconds:.2g} s each:"
        f" {run.sampling:.2g} sampling, {run.setting.update:.2g} learning, {run.setting.sync:.2g} new weights), if"
        f" sampler and trainer have devices of their own: rollout.{gains}"
    )
