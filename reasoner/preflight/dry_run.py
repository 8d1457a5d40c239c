"""`--dry-run`: the resolved config and its plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reasoner.config.load import dump
from reasoner.config.methods import METHODS
from reasoner.config.no_effect import little_effect, unread_settings
from reasoner.config.sections import DpoSection, KtoSection, RewardModelSection, SftSection
from reasoner.config.stage import RunConfig, StageConfig
from reasoner.preflight.ahead_gain import ahead_line
from reasoner.preflight.disk import disk_line, space_line
from reasoner.preflight.fits import fits_line, machine_bytes
from reasoner.preflight.memory import StepTokens, memory_line
from verifiers.terminal.console import plain_console


def print_plan(
    run: RunConfig,
    *,
    card_bytes: int | None = None,
    full: bool = False,
    tokens: Callable[[StageConfig], StepTokens | None] = lambda stage: None,
) -> None:
    """Print, for every stage, the settings that differ from the defaults, and its plan.

    Args:
        run: the config.
        card_bytes: memory of this machine's GPU; None: it has none, and the memory of the process is shown.
        full: True prints every setting.
        tokens: returns the token counts of a stage's step; None: unknown.
    """
    console = plain_console()
    began = run.stages[0].model
    for index, stage in enumerate(run.stages):
        began = stage.model if run.starts_fresh[index] else began
        console.print(f"# stage {index}: {stage.method} -> {run.stage_folder(index)}")
        console.print(dump(stage, full=full))
        of_size = {"path": began.path, "from_scratch": began.from_scratch, "tokenizer": began.tokenizer}
        sized_stage = stage.model_copy(
            update={"model": stage.model.model_copy(update=of_size)}
        )  # the model's size is known
        for line in plan(sized_stage, card_bytes=card_bytes, tokens=tokens(sized_stage)):
            console.print(f"# {line}")
        if METHODS[stage.method].learns_from == "rewards" and (gain := ahead_line(Path(run.stage_folder(index)))):
            console.print(f"# {gain}")
    for line in (space_line(run), *(f"note: {sentence}" for sentence in unread_settings(run))):
        console.print(f"# {line}")


def plan(stage: StageConfig, *, card_bytes: int | None = None, tokens: StepTokens | None = None) -> list[str]:
    """Return lines on the maximum that a stage samples and trains on, and the approximate memory and disk it needs.

    The memory is that of a GPU; without a GPU it is also that of a process on this machine.
    """
    on_gpu = card_bytes is not None
    places = (True,) if on_gpu else (False, True)
    memory = [memory_line(stage, on_gpu=gpu, tokens=tokens) for gpu in places]
    available = machine_bytes() if card_bytes is None else card_bytes
    if fits := fits_line(stage, available=available, on_gpu=on_gpu, tokens=tokens):
        memory.append(fits)
    return [*_amounts(stage), *memory, disk_line(stage), *(f"note: {sentence}" for sentence in little_effect(stage))]


def _reference(section: SftSection | RewardModelSection | DpoSection | KtoSection) -> str:
    """Return what the reference of a stage costs, as the end of a sentence; "" for stages that never have one."""
    if isinstance(section, DpoSection) and not section.has_reference:
        return f"; {section.loss} has no reference: none is computed or kept"
    if isinstance(section, DpoSection | KtoSection):
        return "; before the first, one pass over all rows for their reference log-probabilities (4 bytes a token kept)"
    return ""


def _amounts(stage: StageConfig) -> list[str]:
    if (data := METHODS[stage.method].learns_from) not in ("rewards", None):
        section: SftSection | RewardModelSection | DpoSection | KtoSection = getattr(
            stage, METHODS[stage.method].sections[0]
        )
        most = "" if isinstance(section, DpoSection | KtoSection) else "at most "  # dpo and kto never end early
        what = "labelled completions" if data == "unpaired" else data
        return [f"{most}{stage.steps} steps of {stage.rows_per_step} {what}{_reference(section)}"]
    rollout = stage.rollout
    rows = rollout.problems_per_step * rollout.group_size * (1 + rollout.dynamic_sampling_rounds)
    return [
        f"{stage.steps} steps of {rollout.problems_per_step} problems x {rollout.group_size} completions",
        f"at most {rows} completions and {rows * rollout.max_tokens:,} sampled tokens a step,"
        f" {rows * rollout.max_tokens * stage.steps:,} in all",
    ]
