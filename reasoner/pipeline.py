"""Runs the stages of a config in order; each goes on from the model of the one before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from reasoner.config import ConfigError, RunConfig, StageConfig, load_config
from reasoner.dpo import dpo
from reasoner.reward_model import reward_model
from reasoner.run import RunError, write_atomic
from reasoner.session import Session, open_session
from reasoner.sft import sft
from reasoner.train import train

METHODS: Mapping[str, Callable[[Session], None]] = {
    "grpo": train,
    "ppo": train,
    "sft": sft,
    "reward_model": reward_model,
    "dpo": dpo,
}


def run_pipeline(config: RunConfig, *, resume: bool) -> Path:
    """Run every stage that is not done yet; returns the folder of the last one.

    Raises:
        RunError: the run folder exists and `resume` was not asked for, or it belongs to another config.
    """
    root = Path(config.output)
    if not resume and root.exists() and any(root.iterdir()):
        raise RunError(f"{root} exists already. Pass --resume to go on with it, or output=... for a new one.")
    previous: Path | None = None
    for index in range(len(config.stages)):
        folder = config.stage_folder(index)
        stage = stage_with_model(config, index, previous)
        if not (folder / "done.json").is_file():
            run_stage(stage, folder, resume=resume)
        previous = folder
    assert previous is not None
    return previous


def stage_with_model(config: RunConfig, index: int, previous: Path | None) -> StageConfig:
    """The stage's config, with the previous stage's final model where it names none of its own."""
    stage = config.stages[index]
    if config.starts_fresh[index] or previous is None:
        return stage
    model = stage.model.model_copy(update={"path": str(previous / "final"), "from_scratch": None, "tokenizer": None})
    return stage.model_copy(update={"model": model})


def run_stage(stage: StageConfig, folder: Path, *, resume: bool) -> None:
    """One stage, from its latest checkpoint where it has one."""
    if resume:
        _same_config(stage, folder)
    with open_session(stage, folder, resume=resume) as session, failure_recorded(session):
        session.display.watch(session.run)
        session.display.note(f"{stage.method}: {stage.steps} steps, records in {folder}")
        METHODS[stage.method](session)
        session.finish()
    shutil.rmtree(folder / "start", ignore_errors=True)


@contextmanager
def failure_recorded(session: Session) -> Iterator[None]:
    """Write what stops a stage to failed.json, for `reasoner explain`; the error goes on its way."""
    written = session.run.path / "failed.json"
    written.unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        row = {"step": session.step, "error": type(error).__name__, "message": str(error)}
        write_atomic(written, json.dumps(row, indent=1).encode())
        raise


MAY_CHANGE = {"steps", "eval", "checkpoint", "logging", "grading", "output", "name"}
"""Keys that a resumed run may be given other values for."""


def _same_config(stage: StageConfig, folder: Path) -> None:
    written = folder / "config.yaml"
    if not written.is_file():
        return
    before = load_config(str(written)).stages[0].model_dump()
    now = stage.model_dump()
    changed = [key for key in now if key not in MAY_CHANGE and before[key] != now[key]]
    if changed:
        shown = "; ".join(f"{key}: {_short(before[key])} then, {_short(now[key])} now" for key in changed)
        raise ConfigError(
            "changed", f"{folder} was begun with another config ({shown}). Restore it, or set output to a new folder."
        )


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 200 else text[:200] + "..."
