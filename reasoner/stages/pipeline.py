"""Runs the stages of a config in order; each goes on from the model of the one before."""

from __future__ import annotations

import itertools
import json
import pkgutil
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from reasoner import processes
from reasoner.config.errors import ConfigError
from reasoner.config.load import load_config
from reasoner.config.methods import METHODS
from reasoner.config.no_effect import little_effect, unread_settings
from reasoner.config.resumable import forbidden_changes, listed
from reasoner.config.stage import RunConfig, StageConfig
from reasoner.policy.policy import Diverged
from reasoner.session.opening import open_session
from reasoner.session.session import Session
from reasoner.stages.checks import check_stage
from reasoner.stages.going_on import after_divergence, resume_command
from reasoner.storage.files import RunError, disk_faults_told, write_atomic
from reasoner.storage.find_model import find_model, latest_checkpoint
from reasoner.storage.run_lock import LOCK_FILE, locked
from verifiers.suggest import did_you_mean
from verifiers.terminal.console import plain_console
from verifiers.text import whole


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
    _check_new(root, resume=resume)
    check_run(config)
    with _full_disk_told(root), _one_writer(root):
        if processes.launched_rank() == 0:
            for sentence in unread_settings(config):
                plain_console().print(f"note: {sentence}")
        _check_new(root, resume=resume)  # once more: another run may have begun and ended there meanwhile
        for index in range(len(config.stages)):
            _run_or_skip(config, index, resume=resume)
    return config.stage_folder(len(config.stages) - 1)


def _check_new(root: Path, *, resume: bool) -> None:
    """Raise where a new run would begin in a folder that holds one."""
    if resume or not root.exists() or not any(path.name != LOCK_FILE for path in root.iterdir()):
        return
    if (root / LOCK_FILE).exists():
        with _one_writer(root):  # names the process where one writes there
            pass
    raise RunError(f"{root} exists already. Pass --resume to go on with it, or output=... for a new one.")


def _one_writer(root: Path) -> AbstractContextManager[None]:
    """The lock of the run, in the one process of several that writes."""
    return locked(root) if processes.launched_rank() == 0 else nullcontext()


def _full_disk_told(root: Path) -> AbstractContextManager[None]:
    """Whatever a full disk refuses, anywhere in a run."""
    return disk_faults_told(f"what the run writes to {root}", root, "Free disk space, then go on with --resume.")


def _run_or_skip(config: RunConfig, index: int, *, resume: bool) -> None:
    """Run a stage, unless it is done and not asked for more steps."""
    folder, stage = config.stage_folder(index), stage_of(config, index)
    before = _begun_with(folder) if resume else None
    if before is not None:
        _check_same(config, index, before, stage)
        if (folder / "done.json").is_file():
            done = int(json.loads((folder / "done.json").read_bytes())["steps"])
            if done < stage.steps and before.steps <= done:
                _check_last(config, index)
            else:
                if index == len(config.stages) - 1 or stage.steps > done:
                    _say_done(folder, done=done, asked=before.steps)
                return
    run_stage(stage, folder, resume=resume)


def _say_done(folder: Path, *, done: int, asked: int) -> None:
    """Say that there is nothing to do, and how to go on all the same."""
    shutil.rmtree(folder / "start", ignore_errors=True)  # where it was killed behind its closing mark
    advice = f"pass steps={2 * done} (or any number above {done}) to go on"
    if done < asked:
        advice = f"it ended before step {asked} by its own rule (a goal, patience, a budget): begin a new run"
    if processes.launched_rank() == 0:
        console = plain_console()
        console.print(f"{folder} is finished after {done} steps: nothing to do; {advice}")


def _check_last(config: RunConfig, index: int) -> None:
    """Raise where later stages have begun from the model of a stage that is asked for more steps."""
    begun = [place for place in range(index + 1, len(config.stages)) if (config.stage_folder(place)).exists()]
    if begun:
        raise ConfigError(
            "changed",
            f"stage {index} ({config.stages[index].method}) cannot be given more steps: stage {begun[0]} has begun from"
            f" its model. Set its steps back, or remove {config.stage_folder(begun[0])} and what comes after it.",
        )


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
        for sentence in little_effect(stage):
            session.display.note(f"note: {sentence}")
        pkgutil.resolve_name(METHODS[stage.method].run)(session)
        session.finish()
    shutil.rmtree(folder / "start", ignore_errors=True)


@contextmanager
def failure_recorded(session: Session) -> Iterator[None]:
    """Write what stops a stage to failed.json, for `reasoner explain`; the error goes on its way.

    A run that diverged is told the command that goes on with a smaller learning rate.
    """
    written = session.run.path / "failed.json"
    written.unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        command = resume_command(session.config, session.run.path)
        if isinstance(error, Diverged):
            command = after_divergence(session.config, session.run.path, lr=error.lr)
            error = Diverged(
                f"{error} Go on from the newest checkpoint with a smaller learning rate: `{command}`", lr=error.lr
            )
        row = {"step": session.step, "error": type(error).__name__, "message": whole(str(error)), "command": command}
        with suppress(OSError):  # where the disk is full, the error itself says so
            write_atomic(written, json.dumps(row, indent=1).encode())
        raise error


def _begun_with(folder: Path) -> StageConfig | None:
    """The config that a stage was begun with; None where it has not begun."""
    written = folder / "config.yaml"
    return load_config(str(written)).stages[0] if written.is_file() else None


def _check_same(config: RunConfig, index: int, before: StageConfig, now: StageConfig) -> None:
    """Raise where a stage is to go on with another value of what may not change.

    Raises:
        ConfigError: names the keys, what may change, and how to begin anew from the checkpoint.
    """
    changed = forbidden_changes(before, now)
    if changed:
        shown = "; ".join(f"{key}: {_short(then)} then, {_short(new)} now" for key, then, new in changed)
        raise ConfigError(
            "changed",
            f"{config.stage_folder(index)} was begun with another config ({shown}). Restore it"
            f"{begin_anew(config, before)}. What may change with --resume: {listed()}.",
        )


def begin_anew(config: RunConfig, stage: StageConfig) -> str:
    """The end of a sentence: how to begin a new run from where a run stands, as the user would type it."""
    root = Path(config.output)
    new = next(place for n in itertools.count(2) if not (place := root.with_name(f"{root.name}-{n}")).exists())
    typed = [word for word in sys.argv[1:] if word != "--resume"]
    command = shlex.join(["reasoner", *typed]) if typed[:1] == ["train"] else "reasoner train CONFIG"
    causal = METHODS[stage.method].policy != "reward"
    if len(config.stages) > 1 or not causal or latest_checkpoint(root / "checkpoints") is None:
        return f", or begin a new run: `{command} output={new}`"
    model = find_model(root)
    if model.name != "adapter":
        return f", or begin a new run from its model: `{command} model={model} output={new}`"
    merged = root.with_name(f"{root.name}-merged")
    return (
        f", or begin a new run from its model: `reasoner export {root} {merged}`, then"
        f" `{command} model={merged} output={new}`"
    )


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 200 else text[:200] + "..."
