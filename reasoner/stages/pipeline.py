"""Execution of a config's stages in order. Each stage starts from the model of the one before."""

from __future__ import annotations

import itertools
import json
import pkgutil
import shlex
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from reasoner import processes
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
from reasoner.stages.replay import Recorded, closing_sentence, replay_config, stage_with_rewards
from reasoner.storage.files import RunError, as_disk_error, write_atomic
from reasoner.storage.final_link import link_final
from reasoner.storage.find_model import find_model, latest_checkpoint
from reasoner.storage.run_lock import launched_rank, locked
from verifiers.terminal.console import plain_console
from verifiers.terminal.program import program, started_as
from verifiers.text import whole


def run_pipeline(config: RunConfig, *, resume: bool, names_checked: bool = False) -> Path:
    """Run every stage that is not finished yet; return the folder of the last one.

    A program of your own that runs in several processes must end with `reasoner.processes.leave()`.

    Args:
        config: the stages.
        resume: continue with the contents of the run folder.
        names_checked: True if `check_run_names` has already run.
    Raises:
        RunError: the run folder exists and `resume` is False, or another process writes to it.
        ConfigError, ModelError, TaskError, VerifierError: a stage needs something that does not exist, or a setting
            changed that must stay the same in a resumed run.
    """
    root = Path(config.output)
    check_folder(root, resume=resume)
    check_run(config, names=not names_checked)
    with _full_disk_as_error(root), _one_writer(root):
        if launched_rank() == 0:
            if resume and (missing := nothing_to_resume(root)):
                plain_console().print(f"note: {missing}")
            for sentence in unread_settings(config):
                plain_console().print(f"note: {sentence}")
        check_folder(root, resume=resume)  # again, because another run may have started and ended there meanwhile
        for index in range(len(config.stages)):
            _run_or_skip(config, index, resume=resume)
        if launched_rank() == 0:
            link_model(config)
    return config.stage_folder(len(config.stages) - 1)


def link_model(config: RunConfig) -> None:
    """Link RUN/final, in a run of several stages, to the model of the last stage that has one."""
    folders = [config.stage_folder(index) / MODEL for index in range(len(config.stages))]
    written = [folder for folder in folders if (folder / "config.json").is_file()]
    if len(folders) > 1 and written:
        link_final(Path(config.output), written[-1])


def _one_writer(root: Path) -> AbstractContextManager[None]:
    """Return the lock of the run in the main process, and an empty context in the others."""
    return locked(root) if launched_rank() == 0 else nullcontext()


def _full_disk_as_error(root: Path) -> AbstractContextManager[None]:
    """Convert full-disk errors anywhere in a run to a DiskError."""
    return as_disk_error(f"data of the run {root}", root, "Free disk space, then continue with --resume.")


def _run_or_skip(config: RunConfig, index: int, *, resume: bool) -> None:
    """Run a stage, unless it is finished and no more steps are requested."""
    folder, stage = config.stage_folder(index), stage_of(config, index)
    before = _start_config(folder) if resume else None
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
    """Report that there is nothing to do, and how to continue anyway."""
    shutil.rmtree(folder / "start", ignore_errors=True)  # left over if the process was killed after done.json
    advice = f"pass steps={2 * done} (or any number above {done}) to continue"
    if done < asked:
        advice = f"it ended before step {asked} by its own rule (a goal, patience, a budget): start a new run"
    if launched_rank() == 0:
        console = plain_console()
        console.print(f"{folder} is finished after {done} steps: nothing to do; {advice}")


def _check_last(config: RunConfig, index: int) -> None:
    """Raise ConfigError if more steps are requested of a stage from whose model later stages have started."""
    begun = [place for place in range(index + 1, len(config.stages)) if (config.stage_folder(place)).exists()]
    if begun:
        raise ConfigError(
            "changed",
            f"stage {index} ({config.stages[index].method}) cannot get more steps: stage {begun[0]} has already started"
            f" from its model. Set its steps back, or remove {config.stage_folder(begun[0])} and all later stages.",
        )


def run_replay(config: RunConfig, run: Path, *, resume: bool) -> str:
    """Repeat the updates of a run from its rollouts, with the config's settings and without an engine.

    Args:
        config: the run's config, or one with another loss, estimator or optimizer; the model is that of the run.
        run: folder of the run.
        resume: continue with the contents of the output folder.
    Returns:
        A sentence that says how the replay compares with the run.
    Raises:
        RunError: the run has no rollouts to replay, or equal settings gave other numbers than the run.
        ConfigError, ModelError, TaskError: as in `run_pipeline`.
    """
    folder = stage_with_rewards(run)
    config = replay_config(config, folder)
    root = Path(config.output)
    check_folder(root, resume=resume)
    check_run(config)
    with _full_disk_as_error(root), _one_writer(root):
        run_stage(config.stages[0], config.stage_folder(0), resume=resume, recorded=Recorded(folder))
    sentence, equal = closing_sentence(folder, config)
    if not equal:
        raise RunError(sentence)
    return sentence


def run_stage(stage: StageConfig, folder: Path, *, resume: bool, recorded: Recorded | None = None) -> None:
    """Run one stage, from its newest checkpoint if it is resumed and has one; `recorded`: on another run's rollouts."""
    with open_session(stage, folder, resume=resume, recorded=recorded) as session, failure_recorded(session):
        session.display.watch(session.run)
        session.display.note(f"{stage.method}: {stage.steps} steps, records in {folder}")
        for sentence in little_effect(stage):
            session.display.note(f"note: {sentence}")
        pkgutil.resolve_name(METHODS[stage.method].run)(session)
        session.finish()
    shutil.rmtree(folder / "start", ignore_errors=True)


@contextmanager
def failure_recorded(session: Session) -> Iterator[None]:
    """Write an error that stops a stage to failed.json, for `reasoner explain`, and re-raise it.

    Of several processes any may fail first; those that fail because it has ended do not hide its error. If
    the run diverged, the error's message gets the command that continues it with a smaller learning rate.
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
                f"{error} Continue from the newest checkpoint with a smaller learning rate: `{command}`", lr=error.lr
            )
        follows = processes.says_another_ended(error)
        if follows and (written.exists() or not processes.is_main()):
            raise
        kind = processes.ProcessError if follows else type(error)
        row = {"step": session.step, "error": kind.__name__, "message": whole(str(error)), "command": command}
        with suppress(OSError):  # if the disk is full, the error itself says so
            write_atomic(written, json.dumps(row, indent=1).encode())
        raise error


def _start_config(folder: Path) -> StageConfig | None:
    """Return the config that a stage was started with; None if it has not started."""
    written = folder / "config.yaml"
    return load_config(str(written)).stages[0] if written.is_file() else None


def _check_same(config: RunConfig, index: int, before: StageConfig, now: StageConfig) -> None:
    """Check that a resumed stage has not changed a setting that must stay the same.

    Raises:
        ConfigError: names the keys, the settings that may change, and how to start a new run from the checkpoint.
    """
    changed = forbidden_changes(before, now)
    if changed:
        shown = "; ".join(f"{key}: {_short(then)} then, {_short(new)} now" for key, then, new in changed)
        raise ConfigError(
            "changed",
            f"{config.stage_folder(index)} was started with another config ({shown}). Restore it"
            f"{new_run_advice(config, before)}. Settings that may change with --resume: {listed()}.",
        )


def new_run_advice(config: RunConfig, stage: StageConfig) -> str:
    """Return the end of a sentence that tells the user the command for a new run from the current model."""
    root = Path(config.output)
    new = next(place for n in itertools.count(2) if not (place := root.with_name(f"{root.name}-{n}")).exists())
    typed = [word for word in started_as()[1:] if word != "--resume"]
    command = shlex.join([*program(), *typed]) if typed[:1] == ["train"] else f"{shlex.join(program())} train CONFIG"
    causal = METHODS[stage.method].policy != "reward"
    if len(config.stages) > 1 or not causal or latest_checkpoint(root / "checkpoints") is None:
        return f", or start a new run: `{command} output={new}`"
    model = find_model(root)
    if model.name != "adapter":
        return f", or start a new run from its model: `{command} model={model} output={new}`"
    merged = root.with_name(f"{root.name}-merged")
    return (
        f", or start a new run from its model: `{shlex.join(program())} export {root} {merged}`, then"
        f" `{command} model={merged} output={new}`"
    )


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 200 else text[:200] + "..."
