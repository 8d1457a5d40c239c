"""RUN/final in a run of several stages: a link to the final model of the last stage that has one."""

from __future__ import annotations

from pathlib import Path

from reasoner.storage.files import HALF_WRITTEN


def link_final(root: Path, model: Path) -> Path:
    """Make RUN/final a link to a model folder within the run, replacing an older link; return the path to use.

    The link is relative, so that a run can be moved. If RUN/final is a real folder, or the file system has no links,
    the model's own path is returned.

    Args:
        root: the run folder.
        model: a model folder within it.
    """
    link, target = root / "final", model.relative_to(root)
    if link.exists() and not link.is_symlink():
        return model
    aside = root / f"{HALF_WRITTEN}final"
    try:
        aside.unlink(missing_ok=True)
        aside.symlink_to(target, target_is_directory=True)
        aside.replace(link)
    except OSError:
        return model
    return link


def behind_link(path: Path) -> Path:
    """Follow a link made by `link_final` to the stage's model folder; return any other path unchanged."""
    if path.name == "final" and path.is_symlink():
        target = path.readlink()
        if not target.is_absolute() and len(target.parts) == 2 and target.name == "final":
            return path.parent / target
    return path


def stage_of_model(model: Path) -> Path | None:
    """Return the folder of the stage that wrote a model (final, best or checkpoint); None if it belongs to no run."""
    found = behind_link(model)
    return next((parent for parent in list(found.parents)[:3] if _is_run(parent)), None)


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and (folder / "metrics.jsonl").is_file()
