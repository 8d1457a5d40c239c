"""Runs the stages of a config in order; each goes on from the model of the one before."""

from __future__ import annotations

import json
import pkgutil
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reasoner.config.errors import ConfigError
from reasoner.config.load import load_config
from reasoner.config.methods import METHODS
from reasoner.config.stage import RunConfig, StageConfig
from reasoner.session.opening import open_session
from reasoner.session.session import Session
from reasoner.stages.checks import check_stage
from reasoner.storage.files import RunError, write_atomic
from verifiers.suggest import did_you_mean


def run_pipeline(config: RunConfig, *, resume: bool) -> Path:
    """Run every stage that is not done yet; returns the folder of the last one.

    A program of yours that several processes run ends with `reasoner.processes.leave()`.

    Raises:
        RunError: the run folder exists and `resume` was not asked for, or it belongs to another config.
        ConfigError, ModelError, TaskError, VerifierError: what a stage needs is not there.
    """
    root = Path(config.output)
    if root.exists() and not root.is_dir():
        raise RunError(f"output must be a folder; {root} is a file. Pass output=... for a folder.")
    if not resume and root.exists() and any(root.iterdir()):
        raise RunError(f"{root} exists already. Pass --resume to go on with it, or output=... for a new one.")
    check_run(config)
    for index in range(len(config.stages)):
        folder = config.stage_folder(index)
        stage = stage_of(config, index)
        if resume:
            _same_config(stage, folder)
        if not (folder / "done.json").is_file():
            run_stage(stage, folder, resume=resume)
    return config.stage_folder(len(config.stages) - 1)


def check_run(config: RunConfig) -> None:
    """Raise for whatever a stage needs and will not have, before the first of them begins.

    Raises:
        ConfigError, ModelError, TaskError, VerifierError: says what to change.
    """
    for index in range(len(config.stages)):
        check_stage(stage_of(config, index), coming=Path(config.output) if index else None)


def stage_of(config: RunConfig, index: int) -> StageConfig:
    """The stage as it runs: its model and its references are paths."""
    return stage_with_model(with_references(config, index), index)


def stage_with_model(config: RunConfig, index: int) -> StageConfig:
    """The stage's config, with the final policy of the stage before where it names no model of its own."""
    stage = config.stages[index]
    before = [place for place in range(index) if METHODS[config.stages[place].method].passes_on_its_model]
    if config.starts_fresh[index] or not before:
        return stage
    path = str(config.stage_folder(before[-1]) / "final")
    model = stage.model.model_copy(update={"path": path, "from_scratch": None, "tokenizer": None})
    return stage.model_copy(update={"model": model})


def with_references(config: RunConfig, index: int) -> RunConfig:
    """The run, with every `stage:NAME` in the stage's config replaced by what that stage wrote.

    NAME is a stage's label, or its method where it has none; of several, the last one before this stage. It stands for
    the stage's final model, and for the pairs file of a pairs or constitutional stage. `stages:NAME` in a list stands
    for all of them.

    Raises:
        ConfigError: no earlier stage has that name; suggests the closest.
    """
    written: dict[str, list[str]] = {}
    for place in range(index):
        stage = config.stages[place]
        for suffix, file in METHODS[stage.method].writes.items():
            name = f"{stage.label or stage.method}{suffix}"
            written.setdefault(name, []).append(str(config.stage_folder(place) / file))

    def resolved(value: object) -> object:
        if isinstance(value, dict):
            return {key: resolved(held) for key, held in value.items()}
        if isinstance(value, list):
            return [path for held in value for path in (every(held) or [resolved(held)])]
        if not isinstance(value, str) or not value.startswith("stage:"):
            return value
        return found(value)[-1]

    def every(value: object) -> list[str]:
        return found(value) if isinstance(value, str) and value.startswith("stages:") else []

    def found(value: str) -> list[str]:
        name = value.partition(":")[2]
        if name not in written:
            known = ", ".join(written) or "none"
            raise ConfigError(
                "bad-value",
                f"{value!r} in stage {index}: no earlier stage {name!r}.{did_you_mean(name, written)} Known: {known}.",
            )
        return written[name]

    stage = StageConfig.model_validate(resolved(config.stages[index].model_dump(mode="json")))
    stages = (*config.stages[:index], stage, *config.stages[index + 1 :])
    return config.model_copy(update={"stages": stages})


def run_stage(stage: StageConfig, folder: Path, *, resume: bool) -> None:
    """One stage, from its latest checkpoint where it has one."""
    with open_session(stage, folder, resume=resume) as session, failure_recorded(session):
        session.display.watch(session.run)
        session.display.note(f"{stage.method}: {stage.steps} steps, records in {folder}")
        pkgutil.resolve_name(METHODS[stage.method].run)(session)
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
