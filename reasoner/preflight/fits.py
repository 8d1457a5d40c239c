"""Check if a stage fits into the available memory, and which settings would make it fit. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator

from reasoner.config.load import resolve
from reasoner.config.methods import METHODS
from reasoner.config.stage import StageConfig
from reasoner.preflight.memory import GIB, StepTokens, estimate

TIGHT = 0.9
"""Share of the memory above which the estimate is too uncertain: estimates are within a tenth or two of the peak."""
CHECKPOINTED, SMALL_PASSES = "model.gradient_checkpointing=true", "batch.micro_tokens=2048"
OFFLOADED, ADAPTED = "optim.name=adamw_offload", "model.lora.rank=16"
OF_FULL_TRAINING = {OFFLOADED, ADAPTED}
GPU_STEPS = (
    [CHECKPOINTED],
    [CHECKPOINTED, SMALL_PASSES],
    [CHECKPOINTED, SMALL_PASSES, OFFLOADED],
    [CHECKPOINTED, SMALL_PASSES, ADAPTED],
    [CHECKPOINTED, SMALL_PASSES, ADAPTED, "model.quantization=nf4"],
)
CPU_STEPS = ([CHECKPOINTED], [CHECKPOINTED, ADAPTED])
"""Settings that need less memory, in the order of their cost in speed or quality."""


def machine_bytes() -> int:
    """Return the memory of this machine (the host) in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def fits_line(
    stage: StageConfig, *, available: float, on_gpu: bool = True, tokens: StepTokens | None = None
) -> str | None:
    """Describe whether a stage fits, and if not, the settings that would make it fit.

    Args:
        stage: the resolved stage.
        available: bytes of the GPU, or of this machine without one.
        on_gpu: True if `available` is a GPU's memory.
        tokens: token counts of a step; None: unknown.
    Returns:
        a sentence; None if the model's size is unknown.

    Example:
        >>> from reasoner.config.load import resolve
        >>> fits_line(resolve({"task": "gsm8k", "model": "org/Model-0.5B"}).stages[0], available=80 * GIB)[:18]
        'memory: fits in 80'
    """
    needed = _bytes(stage, on_gpu, tokens)
    if needed is None:
        return None
    place = f"{'this card' if on_gpu else 'this machine'} ({needed / GIB:.0f} of {available / GIB:.0f} GiB)"
    if needed <= available:
        tight = "" if needed <= TIGHT * available else ", barely: the estimate is good to a tenth or two"
        return f"memory: fits in {available / GIB:.0f} GiB: {needed / GIB:.0f} of {available / GIB:.0f}{tight}"
    less = ""
    for settings, smaller in _smaller(stage, on_gpu=on_gpu):
        smaller_bytes = _bytes(smaller, on_gpu, tokens) or needed
        if smaller_bytes <= TIGHT * available:
            return f"memory: does not fit in {place}; try {settings} ({smaller_bytes / GIB:.0f} GiB)"
        less = f", nor with {settings} ({smaller_bytes / GIB:.0f} GiB)"
    return f"memory: does not fit in {place}{less}: use a smaller model"


def _bytes(stage: StageConfig, on_gpu: bool, tokens: StepTokens | None) -> float | None:
    found = estimate(stage, on_gpu=on_gpu, tokens=tokens)
    return None if found is None else found.total


def _smaller(stage: StageConfig, *, on_gpu: bool) -> Iterator[tuple[str, StageConfig]]:
    """Yield settings that need less memory, with the stage that has them, in the order of their cost."""
    if METHODS[stage.method].learns_from is None:
        return
    raw = stage.model_dump(mode="json")
    for step in GPU_STEPS if on_gpu else CPU_STEPS:
        adapted = stage.model.lora is not None
        settings = [setting for setting in step if not (adapted and setting in OF_FULL_TRAINING)]
        yield " ".join(settings), resolve(raw, settings).stages[0]
