"""Search for checkpoints and models in a run folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from reasoner.storage.files import RunError
from reasoner.storage.final_link import behind_link

Read = TypeVar("Read")


def checkpoint_name(step: int) -> str:
    """Return the folder name of a checkpoint, for example step-000025."""
    return f"step-{step:06d}"


def step_of(checkpoint: Path) -> int | None:
    """Return the step of a checkpoint folder, from its name; None if it is not a checkpoint's.

    Example:
        >>> step_of(Path("step-000025")), step_of(Path("step-000025-backup"))
        (25, None)
    """
    found = re.fullmatch(r"step-(\d{6,})", checkpoint.name)
    return int(found[1]) if found else None


def list_checkpoints(root: Path) -> list[Path]:
    """List the complete checkpoints, oldest first."""
    found = [(step, folder) for folder in root.glob("step-*") if (step := step_of(folder)) is not None]
    return [folder for _, folder in sorted(found)]


def foreign_folders(root: Path) -> list[str]:
    """Return the names of other entries in the checkpoint folder, for example copies of a checkpoint."""
    return sorted(path.name for path in root.glob("[!.]*") if step_of(path) is None and path.name != "best")


def latest_checkpoint(root: Path) -> Path | None:
    """Return the newest complete checkpoint; None if there is none."""
    found = list_checkpoints(root)
    return found[-1] if found else None


def find_model(path: Path, *, best: bool = False) -> Path:
    """Return the model folder of a run, stage or checkpoint: `final`, else the newest checkpoint's; or the best one.

    For a stage that was continued after it had finished (with more steps), the newest checkpoint counts, not the
    earlier final model. A checkpoint with adapters contains only the adapter (`lora.merge_checkpoint` makes a model of
    it).

    Raises:
        RunError: there is no model.
    """
    stages = [folder for folder in path.glob("[0-9]*-*") if folder.is_dir() and folder.name.partition("-")[0].isdigit()]
    stages.sort(key=lambda folder: int(folder.name.partition("-")[0]))
    linked = behind_link(path / "final")
    if not best and linked != path / "final" and (linked / "config.json").is_file() and not any(map(_goes_on, stages)):
        return linked  # a last stage that trains nothing has checkpoints too
    for stage in (*reversed(stages), path):
        newest = latest_checkpoint(stage / "checkpoints")
        of_newest = [newest / "model", newest / "adapter"] if newest else []
        wanted = (
            [stage / "checkpoints" / "best"]
            if best
            else [
                *(of_newest if _goes_on(stage) else []),
                stage / "final",
                *of_newest,
                stage / "model",
                stage / "adapter",
                stage,
            ]
        )
        for folder in wanted:
            if (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
                return folder
    what = "best model (evaluate with eval.every to have one)" if best else "model"
    raise RunError(f"{path} must contain a {what}; it has none. Give a run folder or a checkpoint.")


def _goes_on(stage: Path) -> bool:
    return (stage / "config.yaml").is_file() and not (stage / "done.json").is_file()


def read_model(
    path: Path, read: Callable[[Path], Read], *, best: bool = False, unchanged: bool = False
) -> tuple[Path, Read]:
    """Find a model folder with `find_model`, call `read` on it, and return both.

    If `read` fails because an active run removed the folder meanwhile, it is called again with the newest one.

    Args:
        path, best: as in `find_model`.
        read: function of the folder.
        unchanged: True also repeats the call if the folder was replaced without an error, because a copy could be
            mixed.
    Raises:
        RunError: there is no model.
    """
    while True:
        source = find_model(path, best=best)
        before = _identity(source)
        try:
            found = read(source)
        except Exception:
            if _identity(source) == before:
                raise
        else:
            if not unchanged or _identity(source) == before:
                return source, found


def _identity(folder: Path) -> int | None:
    try:
        return folder.stat().st_ino
    except OSError:
        return None
