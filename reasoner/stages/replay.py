"""Replay: repeat a run's updates from its recorded rollouts, without an engine."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from reasoner.config.errors import ConfigError
from reasoner.config.load import load_config
from reasoner.config.methods import METHODS
from reasoner.config.stage import RunConfig, StageConfig
from reasoner.rollout.ahead import RecordedRound
from reasoner.storage.files import RunError
from reasoner.storage.history import lines, stage_folders
from reasoner.storage.rows import recorded_groups

NOT_COMPARED = ("time/", "throughput/", "memory/", "data/", "gap/probe", "judge/", "turns/", "calls/", "reply/")
NOT_COMPARED += ("environment/",)
"""Metrics that depend on the machine, on the engine, or on what lines of rollouts.jsonl do not keep."""
NO_EFFECT = {"output", "name", "label", "steps", "model", "task", "prompt", "engine", "eval", "checkpoint", "logging"}
"""Config sections that do not change how recorded rollouts are trained on."""
NO_EFFECT |= {"grading", "reward", "watch"}


class Recorded:
    """The groups of a stage's rollouts.jsonl, read step by step in the order of the file."""

    def __init__(self, folder: Path) -> None:
        """Open the records of a stage's folder."""
        self.folder = folder
        self._steps = itertools.groupby(_rows(folder / "rollouts.jsonl"), key=lambda row: row["step"])
        self.last = last_step(folder)

    def __call__(self, step: int) -> RecordedRound:
        """Return the groups of a step; steps must be asked for in ascending order.

        Raises:
            RunError: the file has no such step, or a line is damaged.
        """
        for found, rows in self._steps:
            if found == step:
                try:
                    return RecordedRound(recorded_groups(rows))
                except (KeyError, TypeError, ValueError) as error:
                    raise RunError(
                        f"{self.folder / 'rollouts.jsonl'} has a rollout of step {step} that cannot be read"
                        f" ({type(error).__name__}: {error}). Restore the file."
                    ) from error
            if found > step:
                break
        raise RunError(f"{self.folder / 'rollouts.jsonl'} must have the rollouts of step {step}; it has none.")


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    def as_row(record: Mapping[str, Any]) -> dict[str, Any]:
        return {**record, "step": int(record["step"])}

    return lines(file, like=as_row)


def last_step(folder: Path) -> int:
    """Return the last step with metrics: its rollouts are complete."""
    return max((row["step"] for row in _rows(folder / "metrics.jsonl")), default=0)


def stage_with_rewards(run: Path) -> Path:
    """Return the folder of the last stage of a run that learned from rewards.

    Raises:
        RunError: there is none, or it has no finished step.
    """
    for folder in reversed(stage_folders(run)):
        config = load_config(str(folder / "config.yaml")).stages[0]
        if METHODS[config.method].learns_from == "rewards":
            if not last_step(folder):
                raise RunError(f"{folder} must have a finished step to replay; it has none.")
            return folder
    raise RunError(f"{run} must have a stage that learns from rewards (grpo, ppo) to replay; it has none.")


def replay_config(config: RunConfig, folder: Path) -> RunConfig:
    """Return the config of a replay: the last stage that learns from rewards, on the model that the run started from.

    Args:
        config: the run's own config, or one with another loss, estimator or optimizer.
        folder: stage whose rollouts are replayed.
    Raises:
        ConfigError: the config has no such stage, or samples in another way than the recorded run.
    """
    stages = [stage for stage in config.stages if METHODS[stage.method].learns_from == "rewards"]
    if not stages:
        raise ConfigError("bad-value", "--replay needs a config with a stage that learns from rewards (grpo, ppo).")
    before = load_config(str(folder / "config.yaml")).stages[0]
    further = {"model": before.model, "task": before.task, "prompt": before.prompt, "output": config.output}
    stage = stages[-1].model_copy(update=further)
    if len(config.stages) > 1 and stage.steps != before.steps:
        stage = stage.model_copy(update={"steps": before.steps})
    return config.model_copy(update={"stages": (stage,), "starts_fresh": (True,)})


class Difference(NamedTuple):
    """The first value in which a replay differs from its run."""

    step: int
    what: str
    then: object
    now: object


def changed_settings(before: StageConfig, now: StageConfig) -> list[str]:
    """Return the settings of a replay that train differently from the recorded stage."""
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    found: list[str] = []
    for section in old.keys() - NO_EFFECT:
        if isinstance(old[section], dict):
            keys = old[section].keys() | new[section].keys()
            found += [f"{section}.{key}" for key in keys if old[section].get(key) != new[section].get(key)]
        elif old[section] != new[section]:
            found.append(section)
    return sorted(found)


def first_difference(folder: Path, replayed: Path) -> Difference | None:
    """Compare updates.jsonl and metrics.jsonl of a replay with those of the recorded stage, number by number.

    Metrics of time, memory and grading are left out. Steps that the replay did not reach are not compared.
    """
    last = last_step(replayed)
    found: list[Difference] = []
    for name in ("updates.jsonl", "metrics.jsonl"):
        then, now = ([row for row in _rows(at / name) if row["step"] <= last] for at in (folder, replayed))
        for old, new in itertools.zip_longest(then, now):
            if difference := _in_line(name, old, new):
                found.append(difference)
                break
    return min(found, key=lambda one: one.step, default=None)


def _in_line(name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Difference | None:
    if old is None or new is None:
        row = old or new or {}
        return Difference(int(row["step"]), f"{name}: number of lines", old and "a line", new and "a line")
    place = name if "group" not in old else f"{name} group {old['group']} sample {old['sample']}"
    for key in old.keys() & new.keys() if name == "metrics.jsonl" else old.keys() | new.keys():
        if not key.startswith(NOT_COMPARED) and old.get(key) != new.get(key):
            return Difference(int(old["step"]), f"{place}: {key}", old.get(key), new.get(key))
    return None


def closing_sentence(folder: Path, config: RunConfig) -> tuple[str, bool]:
    """Say how a finished replay compares with its run.

    Returns:
        The sentence, and False if the same settings gave other numbers.
    """
    replayed = config.stage_folder(0)
    steps = last_step(replayed)
    changed = changed_settings(load_config(str(folder / "config.yaml")).stages[0], config.stages[0])
    if changed:
        return f"replayed {steps} steps of {folder} with other settings ({', '.join(changed)})", True
    difference = first_difference(folder, replayed)
    if difference is None:
        return f"replayed {steps} steps of {folder}: every update and metric is equal bit for bit", True
    return (
        f"the replay differs from {folder} from step {difference.step} on: {difference.what} was"
        f" {_short(difference.then)}, is {_short(difference.now)}. Were its rollouts edited? Other versions of torch,"
        " or another number of threads or processes, change the last bits too (environment.json names them).",
        False,
    )


def _short(value: object) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:80] + "..."
