"""Finding checkpoints and models in a run folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from reasoner.storage.files import HALF_WRITTEN, RunError


def checkpoint_name(step: int) -> str:
    """step-000025."""
    return f"step-{step:06d}"


def list_checkpoints(root: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(root.glob("step-*")) if root.is_dir() else []


def latest_checkpoint(root: Path) -> Path | None:
    """The newest complete checkpoint, if any; half-written ones are removed."""
    for half in root.glob(f"{HALF_WRITTEN}*") if root.is_dir() else ():
        shutil.rmtree(half, ignore_errors=True)
    found = list_checkpoints(root)
    return found[-1] if found else None


def find_model(path: Path, *, best: bool = False) -> Path:
    """The model folder of a run, a stage or a checkpoint: final, else the newest checkpoint's; or the best one.

    The checkpoint of a run with adapters holds the adapter alone (`lora.merge_checkpoint` makes a model of it).

    Raises:
        RunError: there is none.
    """
    stages = sorted(folder for folder in path.glob("[0-9]*-*") if folder.is_dir()) if path.is_dir() else []
    for stage in (*reversed(stages), path):
        newest = latest_checkpoint(stage / "checkpoints")
        wanted = (
            [stage / "checkpoints" / "best"]
            if best
            else [
                stage / "final",
                *([newest / "model", newest / "adapter"] if newest else []),
                stage / "model",
                stage / "adapter",
                stage,
            ]
        )
        for folder in wanted:
            if (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
                return folder
    what = "best model (evaluate with eval.every to have one)" if best else "model"
    raise RunError(f"{path} must hold a {what}; it has none. Give a run folder or a checkpoint.")
