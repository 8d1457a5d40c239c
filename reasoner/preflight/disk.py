"""Bytes that a run will write: an estimate from shapes and limits, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from reasoner.config.estimators import traits_of
from reasoner.config.methods import METHODS
from reasoner.config.stage import RunConfig, StageConfig
from reasoner.preflight.memory import shape_of
from reasoner.storage.files import DiskError, free_bytes

TOKEN_BYTES, ROW_BYTES, STEP_BYTES = 40, 2000, 6000
"""Bytes of the records per sampled token (id, text, the engine's and the trainer's log-probability), per row without
its tokens (prompt, verdict), and per step (metrics.jsonl, TensorBoard). Measured here on runs."""
EVAL_TOKEN_BYTES = 31
"""Bytes per sampled token of an evaluation, which has no log-probability of the trainer."""
TOKENIZER_BYTES = 12 << 20
"""Bytes of the files other than weights in a model folder, with a large vocabulary."""


class DiskEstimate(NamedTuple):
    """Maximum bytes of a stage on disk, by part."""

    models: Mapping[str, float]
    """Checkpoints and model folders, by part; close to exact."""
    checkpoints: int
    """Maximum number of checkpoints at a time, including the one being written."""
    checkpoint: Mapping[str, float]
    """Bytes of one checkpoint: weights and optimizer."""
    records: float
    """Upper bound: every completion at its token limit."""

    @property
    def total(self) -> float:
        """Bytes of models and records together."""
        return sum(self.models.values()) + self.records


def disk_estimate(stage: StageConfig) -> DiskEstimate | None:
    """Estimate the bytes of a stage on disk; None if the model's size is unknown.

    A checkpoint contains the trained weights in float32 and AdamW's two moments of each (12 bytes per trained
    parameter), also those of a value model. Model folders contain all weights, in 4 bytes, or in 2 for adapters on a
    bfloat16 base.
    """
    shape = shape_of(stage.model)
    if shape is None:
        return None
    lora, method = stage.model.lora, METHODS[stage.method]
    whole = shape.parameters * (2 if lora and stage.model.dtype == "bfloat16" else 4)
    whole += 0 if stage.model.from_scratch else TOKENIZER_BYTES
    trained = shape.parameters if lora is None else lora.rank * shape.linear
    separate = method.learns_from == "rewards" and "values" in traits_of(stage.algorithm.advantage).needs
    trunks = 2 if separate and stage.value.trunk == "separate" else 1
    weights = trunks * (whole if lora is None else 4 * trained)
    checkpoint = {"weights": weights, "optimizer": 8 * trained * trunks if method.learns_from else 0.0}
    written = 1 + stage.steps // stage.checkpoint.every + (stage.steps % stage.checkpoint.every > 0)
    count = min(written, stage.checkpoint.keep + 1)
    patience = {"sft": stage.sft.patience, "reward_model": stage.reward_model.patience}.get(method.sections[0])
    each = sum(checkpoint.values())
    models = {
        "checkpoints": count * each,
        "best": whole if stage.evaluates or patience else 0.0,
        "final": whole if method.learns_from else 0.0,
        "start": whole if stage.needs_engine and stage.model.from_scratch else 0.0,
    }
    return DiskEstimate(models, count, checkpoint, _records(stage))


def _records(stage: StageConfig) -> float:
    found = float(STEP_BYTES * stage.steps)
    if METHODS[stage.method].samples:
        rollout = stage.rollout
        rows = rollout.problems_per_step * rollout.group_size * (1 + rollout.dynamic_sampling_rounds)
        found += stage.steps * rows * (ROW_BYTES + TOKEN_BYTES * rollout.max_tokens)
    if stage.evaluates:
        times = 2 + (stage.steps // stage.eval.every if stage.eval.every else 0)
        rows = stage.eval.problems * stage.eval.samples
        found += times * rows * (ROW_BYTES + EVAL_TOKEN_BYTES * stage.eval_tokens)
    return found


def disk_line(stage: StageConfig) -> str:
    """Describe the estimate in a sentence.

    Example:
        >>> from reasoner.config.load import resolve
        >>> print(disk_line(resolve({"task": "gsm8k", "model": "org/Model-1.5B"}).stages[0])[:57])
        on disk about 62.1 GiB at most: 3 checkpoints of 16.8 GiB
    """
    found = disk_estimate(stage)
    if found is None:
        return "on disk: unknown until the model is available"
    inside = ", ".join(f"{name} {sized(value)}" for name, value in found.checkpoint.items() if value)
    others = "".join(f", {name} {sized(size)}" for name, size in found.models.items() if size and name != "checkpoints")
    return (
        f"on disk about {sized(found.total)} at most: {found.checkpoints} checkpoints of"
        f" {sized(sum(found.checkpoint.values()))} ({inside}), the newest {stage.checkpoint.keep} kept{others}, records"
        f" {sized(found.records)} ({TOKEN_BYTES} bytes a token and {ROW_BYTES:,} a row, every completion at its limit)"
    )


def space_line(run: RunConfig) -> str:
    """Describe what all stages need and the free space, and whether it fits."""
    need, free = _need(run), free_bytes(Path(run.output))
    if need is None:
        return f"disk: {sized(free)} free for {run.output}"
    models, total = need
    fits = "fits" if total <= free else "records may not fit" if models <= free else "DOES NOT FIT"
    return f"disk: {sized(total)} at most, {sized(free)} free for {run.output}: {fits}"


def check_space(run: RunConfig) -> str | None:
    """Return a warning if the records of a run may not fit on its disk; None if everything fits.

    Raises:
        DiskError: its checkpoints and models alone do not fit.
    """
    need, free = _need(run), free_bytes(Path(run.output))
    if need is None or need[1] <= free:
        return None
    models, total = need
    if models > free:
        raise DiskError(
            f"checkpoints and models of this run take about {sized(models)}; {sized(free)} are free for {run.output}."
            " Free disk space, lower checkpoint.keep, or set output to a folder on a larger disk (--dry-run shows the"
            " parts)."
        )
    return (
        f"the run may write {sized(total)} to {run.output}, where {sized(free)} are free: its records fit only if"
        " completions stay below their limit. A full disk stops a run; --resume continues it."
    )


def _need(run: RunConfig) -> tuple[float, float] | None:
    """Return the bytes still to be written: (models, models and records); None if a model's size is unknown."""
    found = [disk_estimate(stage) for stage in run.stages]
    known = [one for one in found if one is not None]
    if len(known) < len(found):
        return None
    root = Path(run.output)
    written = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) if root.is_dir() else 0
    models, total = sum(sum(one.models.values()) for one in known), sum(one.total for one in known)
    return max(0.0, models - written), max(0.0, total - written)


def sized(count: float) -> str:
    """Format a number of bytes in MiB or GiB.

    Example:
        >>> sized(3.2 * 2**30), sized(5e6), sized(20_000)
        ('3.2 GiB', '4.8 MiB', '0.019 MiB')
    """
    if count >= 1 << 30:
        return f"{count / (1 << 30):.1f} GiB"
    mebibytes = count / (1 << 20)
    return (
        f"{mebibytes:.0f} MiB"
        if mebibytes >= 10
        else f"{mebibytes:.1f} MiB"
        if mebibytes >= 1
        else f"{mebibytes:.2g} MiB"
    )
