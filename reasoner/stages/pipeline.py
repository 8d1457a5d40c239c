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

from reasoner.config.errors import ConfigError
from reasoner.config.load import load_config
from reasoner.config.methods import METHODS, MODEL
from reasoner.config.no_effect import little_effect, unread_settings
from reasoner.config.resumable import forbidden_changes, listed
from reasoner.config.stage import RunConfig, StageConfig
from reasoner.policy.policy import Diverged
from reasoner.session.opening import open_session
from reasoner.session.session import Session
from reasoner.stages.checks import check_run
from reasoner.stages.going_on import after_divergence, resume_command
from reasoner.stages.names import check_folder, nothing_to_resume
from reasoner.stages.references import stage_of
from reasoner.storage.files import disk_faults_told, write_atomic
from reasoner.storage.final_link import link_final
from reasoner.storage.find_model import find_model, latest_checkpoint
from reasoner.storage.run_lock import launched_rank, locked
from verifiers.terminal.console import plain_console
from verifiers.terminal.program import program
from verifiers.text import whole


def run_pipeline(config: RunConfig, *, resume: bool, names_checked: bool = False) -> Path:
    """Run every stage that is not done yet; returns the folder of the last one.

    A program of yours that several processes run ends with `reasoner.processes.leave()`.

    Args:
        config: the stages.
        resume: go on with what the run folder holds.
        names_checked: `check_run_names` has looked already.
    Raises:
        RunError: the run folder exists and `resume` was not asked for, or it belongs to another config.
        ConfigError, ModelError, TaskError, VerifierError: what a stage needs is not there.
    """
    root = Path(config.output)
    check_folder(root, resume=resume)
    check_run(config, names=not names_checked)
    with _full_disk_told(root), _one_writer(root):
        if launched_rank() == 0:
            if resume and (missing := nothing_to_resume(root)):
                plain_console().print(f"note: {missing}")
            for sentence in unread_settings(config):
                plain_console().print(f"note: {sentence}")
        check_folder(root, resume=resume)  # once more: another run may have begun and ended there meanwhile
        for index in range(len(config.stages)):
            _run_or_skip(config, index, resume=resume)
        if launched_rank() == 0:
            link_model(config)
    return config.stage_folder(len(config.stages) - 1)


def link_model(config: RunConfig) -> None:
    """Let RUN/final of a run of several stages lead to the model of the last stage that has one."""
    folders = [config.stage_folder(index) / MODEL for index in range(len(config.stages))]
    written = [folder for folder in folders if (folder / "config.json").is_file()]
    if len(folders) > 1 and written:
        link_final(Path(config.output), written[-1])


def _one_writer(root: Path) -> AbstractContextManager[None]:
    """The lock of the run, in the one process of several that writes."""
    return locked(root) if launched_rank() == 0 else nullcontext()


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
    if launched_rank() == 0:
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
    command = shlex.join([*program(), *typed]) if typed[:1] == ["train"] else f"{shlex.join(program())} train CONFIG"
    causal = METHODS[stage.method].policy != "reward"
    if len(config.stages) > 1 or not causal or latest_checkpoint(root / "checkpoints") is None:
        return f", or begin a new run: `{command} output={new}`"
    model = find_model(root)
    if model.name != "adapter":
        return f", or begin a new run from its model: `{command} model={model} output={new}`"
    merged = root.with_name(f"{root.name}-merged")
    return (
        f", or begin a new run from its model: `{shlex.join(program())} export {root} {merged}`, then"
        f" `{command} model={merged} output={new}`"
    )


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 200 else text[:200] + "..."
