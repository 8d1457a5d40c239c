"""Finding checkpoints and models in a run folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from reasoner.storage.files import RunError
from reasoner.storage.final_link import behind_link

Read = TypeVar("Read")


def checkpoint_name(step: int) -> str:
    """step-000025."""
    return f"step-{step:06d}"


def step_of(checkpoint: Path) -> int | None:
    """The step of a checkpoint folder, by its name; None where it is no checkpoint's.

    Example:
        >>> step_of(Path("step-000025")), step_of(Path("step-000025-backup"))
        (25, None)
    """
    found = re.fullmatch(r"step-(\d{6,})", checkpoint.name)
    return int(found[1]) if found else None


def list_checkpoints(root: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [(step, folder) for folder in root.glob("step-*") if (step := step_of(folder)) is not None]
    return [folder for _, folder in sorted(found)]


def foreign_folders(root: Path) -> list[str]:
    """Names of what lies among the checkpoints and is none, such as a copy of one."""
    return sorted(path.name for path in root.glob("[!.]*") if step_of(path) is None and path.name != "best")


def latest_checkpoint(root: Path) -> Path | None:
    """The newest complete checkpoint, if any."""
    found = list_checkpoints(root)
    return found[-1] if found else None


def find_model(path: Path, *, best: bool = False) -> Path:
    """The model folder of a run, a stage or a checkpoint: final, else the newest checkpoint's; or the best one.

    Of a stage that goes on after it was finished (with more steps) the newest checkpoint counts, not the final model of
    before. The checkpoint of a run with adapters holds the adapter alone (`lora.merge_checkpoint` makes a model of it).

    Raises:
        RunError: there is none.
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
    raise RunError(f"{path} must hold a {what}; it has none. Give a run folder or a checkpoint.")


def _goes_on(stage: Path) -> bool:
    return (stage / "config.yaml").is_file() and not (stage / "done.json").is_file()


def read_model(
    path: Path, read: Callable[[Path], Read], *, best: bool = False, unchanged: bool = False
) -> tuple[Path, Read]:
    """The model folder that `find_model` finds, and what `read` makes of it.

    It is called again, with the newest one, where it failed and a run that goes on had removed that folder meanwhile.

    Args:
        path, best: as of `find_model`.
        read: of the folder.
        unchanged: call it again, too, where the folder was replaced by another without an error: a copy may be mixed.
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
