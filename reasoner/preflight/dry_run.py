"""`--dry-run`: the resolved config and what it would do."""

from __future__ import annotations

from rich.console import Console

from reasoner.config.load import dump
from reasoner.config.methods import METHODS
from reasoner.config.sections import DpoSection, RewardModelSection, SftSection
from reasoner.config.stage import RunConfig, StageConfig
from reasoner.preflight.disk import disk_line, space_line
from reasoner.preflight.memory import memory_line


def print_plan(run: RunConfig) -> None:
    """Print every stage's resolved config and its plan."""
    console = Console(highlight=False, soft_wrap=True)
    for index, stage in enumerate(run.stages):
        console.print(f"# stage {index}: {stage.method} -> {run.stage_folder(index)}", markup=False)
        console.print(dump(stage), markup=False)
        for line in plan(stage):
            console.print(f"# {line}", markup=False)
    console.print(f"# {space_line(run)}", markup=False)


def plan(stage: StageConfig) -> list[str]:
    """What a stage samples and trains on, at most, and the memory and disk that it takes, about."""
    return [*_amounts(stage), memory_line(stage), disk_line(stage)]


def _amounts(stage: StageConfig) -> list[str]:
    if (data := METHODS[stage.method].learns_from) in ("demonstrations", "pairs"):
        section: SftSection | RewardModelSection | DpoSection = getattr(stage, stage.method)
        rows = section.rows_per_step if isinstance(section, SftSection) else section.pairs_per_step
        most = "" if isinstance(section, DpoSection) else "at most "  # dpo never ends early
        return [f"{most}{stage.steps} steps of {rows} {data}"]
    rollout = stage.rollout
    rows = rollout.problems_per_step * rollout.group_size * (1 + rollout.dynamic_sampling_rounds)
    return [
        f"{stage.steps} steps of {rollout.problems_per_step} problems x {rollout.group_size} completions",
        f"at most {rows} completions and {rows * rollout.max_tokens:,} sampled tokens a step,"
        f" {rows * rollout.max_tokens * stage.steps:,} in all",
    ]
