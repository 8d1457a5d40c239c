"""Command lines that continue a stopped run, as a user would type them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from reasoner.config.stage import StageConfig
from verifiers.terminal.program import program, started_as


def resume_command(stage: StageConfig, folder: Path, changes: Sequence[str] = ()) -> str:
    """Return the command that continues a stage: the command that was typed, or one that reads the stage's config.

    Args:
        stage: config of the stage.
        folder: folder of the stage.
        changes: settings to change, as `key=value`.

    Example:
        >>> from reasoner.config.load import resolve
        >>> resume_command(resolve({"task": "gsm8k"}).stages[0], Path("runs/r"), ["optim.lr=1e-07"])
        'reasoner train runs/r/config.yaml output=runs/r optim.lr=1e-07 --resume'
    """
    part = re.fullmatch(r"(\d+)-\w+", folder.name)
    typed = [word for word in started_as()[1:] if word not in ("--resume", "--dry-run")]
    if typed[:1] == ["train"] and len(typed) > 1:
        command = [*program(), *typed]
    elif part is None:
        command = [*program(), "train", str(folder / "config.yaml"), f"output={folder}"]
    else:
        command = [*program(), "train", "CONFIG"]
    prefix = f"stages.{part[1]}." if part is not None and part[0].endswith(stage.method) else ""
    return shlex.join([*command, *(f"{prefix}{change}" for change in changes), "--resume"])


def after_divergence(stage: StageConfig, folder: Path, *, lr: float) -> str:
    """Return the command that continues a diverged stage from its newest checkpoint with a tenth of its rate."""
    return resume_command(stage, folder, [f"optim.lr={lr / 10:g}"])
