"""Fast checks of names, files and columns in a config, before torch is imported."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path

from reasoner.config.by_name import named
from reasoner.config.errors import ConfigError
from reasoner.config.estimators import traits_of
from reasoner.config.methods import METHODS
from reasoner.config.no_effect import refuse_no_effect
from reasoner.config.sections import OWN, VerifierSection
from reasoner.config.stage import RunConfig, StageConfig
from reasoner.data.demonstrations import DEMONSTRATION_SHAPE, demonstrations_in, read_row
from reasoner.data.difficulty import Difficulty
from reasoner.data.preferences import PAIR_SHAPE, pair_of, preferences_in
from reasoner.data.problems import first_problems, with_verifiers
from reasoner.data.rows import BAD_ROWS, RowPolicy, check_first
from reasoner.data.unpaired import UNPAIRED_SHAPE, labelled_of, unpaired_in
from reasoner.engine import ENGINES
from reasoner.evaluation.estimates import is_metric, metric_names
from reasoner.model.paths import ModelError, check_model
from reasoner.rollout.plugin_check import check_plugins
from reasoner.stages.principles import load_principles
from reasoner.stages.references import stage_of
from reasoner.storage.cluster_file import CLUSTER_FOLDER
from reasoner.storage.files import RunError
from reasoner.storage.run_lock import LOCK_FILE, launched_rank, locked
from tasks import Problem
from tasks.environments.registry import get_environment
from tasks.inputs import is_local
from tasks.registry import BUILTIN, get_task
from tasks.validate import check_environments, demonstration_fault
from verifiers import get_verifier
from verifiers.suggest import did_you_mean

LOOKED_AT = 64
"""Problems of a task of one's own that are looked at before a run (our choice)."""


def check_run_names(config: RunConfig, *, resume: bool) -> None:
    """Check the run folder and all names in the stages.

    Raises:
        RunError: the run folder exists and `resume` is False.
        ConfigError, ModelError, TaskError, VerifierError: a name does not exist; the message says what to change.
    """
    check_folder(Path(config.output), resume=resume)
    for index in range(len(config.stages)):
        check_names(stage_of(config, index), coming=Path(config.output) if index else None)


def check_folder(root: Path, *, resume: bool) -> None:
    """Check that a run can be written to a folder, and that a new run does not find an earlier one there.

    Raises:
        RunError: otherwise.
    """
    if root.exists() and not root.is_dir():
        raise RunError(f"output must be a folder; {root} is a file. Pass output=... for a folder.")
    begun = (
        path
        for path in root.rglob("*")
        if path.is_file() and path.name not in (LOCK_FILE, BAD_ROWS) and root / CLUSTER_FOLDER not in path.parents
    )
    if resume or not root.exists() or not any(begun):
        return
    if (root / LOCK_FILE).exists() and launched_rank() == 0:
        with locked(root):  # raises an error that names the writing process, if there is one
            pass
    raise RunError(f"{root} exists already. Pass --resume to continue it, or output=... for a new run.")


def nothing_to_resume(root: Path) -> str | None:
    """Return a note for --resume without an earlier run, in which case a new run starts; None if there is a run."""
    if _holds_run(root):
        return None
    others = [path.name for path in root.parent.iterdir() if _holds_run(path)] if root.parent.is_dir() else []
    return f"nothing to resume in {root}: a new run starts there.{did_you_mean(root.name, others)}"


def _holds_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() or any(folder.glob("[0-9]*-*/config.yaml"))


def check_names(stage: StageConfig, *, coming: Path | None) -> None:
    """Check that everything a stage names exists.

    Hub names are not looked up. Of tasks that read a file and of tasks of one's own the first problems are looked at.

    Args:
        stage: the stage, with references to other stages replaced by paths.
        coming: folder that earlier stages will write to, whose files are not checked; None: there is none.
    Raises:
        ConfigError, ModelError, TaskError, VerifierError: something does not exist; the message says what to change.
    """
    refuse_no_effect(stage)
    _check_metric(stage)
    named(ENGINES, stage.engine.name, "engine")
    method = METHODS[stage.method]
    if "constitutional" in method.sections:
        load_principles(stage.constitutional.principles)
    _check_models(stage, coming)
    check_tasks(stage, coming=coming)
    if method.learns_from_preferences:
        _check_preferences(stage, coming)
    if method.learns_from == "demonstrations":
        _check_demonstrations(stage, coming)
    _check_scorers(stage, coming)  # last: a judge or a reward model imports torch


def _check_metric(stage: StageConfig) -> None:
    """Raise ConfigError if eval.metric, which selects the best checkpoint, is not a metric of an evaluation."""
    name, samples = stage.eval.metric, stage.eval.samples
    if name is not None and stage.evaluates and not is_metric(name, samples, sets=len(stage.task)):
        known = metric_names(samples)
        raise ConfigError(
            "bad-value",
            f"eval.metric must be one of {', '.join(known)} or component/NAME with eval.samples={samples}; got"
            f" {name!r}.{did_you_mean(name, known)}",
        )


def _is_coming(path: str, coming: Path | None) -> bool:
    return coming is not None and Path(path).resolve().is_relative_to(coming.resolve())


def _check_models(stage: StageConfig, coming: Path | None) -> None:
    section = stage.model
    if section.path is None and section.from_scratch is None:
        raise ModelError("model must have a path or from_scratch; got neither. Pass model=NAME_OR_FOLDER.")
    rewarded = METHODS[stage.method].learns_from == "rewards"
    valued = rewarded and "values" in traits_of(stage.algorithm.advantage).needs
    named = {
        "model.path": section.path,
        "algorithm.reference": stage.algorithm.reference if stage.needs_reference else None,
        "teacher.path": stage.teacher.path if stage.has_teacher_model else None,
        "value.init": stage.value.init if valued and stage.value.trunk == "separate" else None,
    }
    for setting, path in named.items():
        if path is not None and not _is_coming(path, coming):
            adapted = setting == "value.init" and section.lora is not None
            check_model(f"{path}/adapter" if adapted else path, setting)


def _check_scorers(stage: StageConfig, coming: Path | None) -> None:
    """Build the verifiers that reward, compare or monitor, unless an earlier stage must first write their model."""
    sections: list[VerifierSection | None] = [stage.reward, stage.constitutional.judge, stage.watch.scorer]
    for section in sections:
        if section is None or section.name == OWN:
            continue
        if coming is None or f'"{coming}/' not in json.dumps(section.options):
            get_verifier(section.name, **section.options)


def check_tasks(stage: StageConfig, *, coming: Path | None) -> None:
    """Check tasks, verifiers, options, files and columns; arguments and errors as in `check_names`."""
    method = METHODS[stage.method]
    for section in stage.task:
        task = get_task(section.name, **section.options)
        if section.environment is not None:
            get_environment(section.environment.name, **section.environment.options)
        if section.verifier is not None:
            get_verifier(section.verifier.name, **section.verifier.options)
        own = section.name not in BUILTIN and not (coming and str(coming) in json.dumps(section.options))
        if own and "path" not in inspect.signature(type(task)).parameters:
            first = [*with_verifiers(first_problems(section, section.train_split, most=LOOKED_AT), section)]
            check_environments(first)
            if method.learns_from == "demonstrations" and not stage.sft.data:
                _check_first_demonstrations(first, section.name)
        if _is_here(section.options.get("path"), coming):
            rewarded = section.model_copy(update={"verifier": stage.reward or section.verifier})
            read = first_problems(section, section.train_split)
            check_plugins(stage, [*with_verifiers(read[:1], rewarded)])
            if stage.evaluates:
                first_problems(section, section.eval_split, most=1)
    given = stage.rollout.difficulty_from
    if given is not None and not _is_coming(given, coming):
        Difficulty(decay=1.0).import_rollouts(Path(given))


def _check_first_demonstrations(problems: Sequence[Problem], name: str) -> None:
    """Raise ConfigError if the turns of a demonstration are no episode."""
    for problem in problems:
        if fault := demonstration_fault(problem):
            raise ConfigError("bad-value", f"task {name}: problem {problem.id}: {fault}.")


def _is_here(path: object, coming: Path | None) -> bool:
    """Return True if a task's `path` names local files only, all of which exist before the run."""
    paths = path if isinstance(path, list) else [path]
    named = [one for one in paths if isinstance(one, str)]
    return len(named) == len(paths) and all(is_local(one) and not _is_coming(one, coming) for one in named)


def _on_this_disk(paths: Sequence[str], coming: Path | None) -> list[str]:
    return [path for path in paths if is_local(path) and not _is_coming(path, coming)]


def _check_preferences(stage: StageConfig, coming: Path | None) -> None:
    section = stage.preferences
    paired = METHODS[stage.method].learns_from == "pairs" or stage.kto.split_pairs
    source_of = preferences_in if paired else unpaired_in
    check_first(
        [
            source_of(section, "train", _on_this_disk(section.train, coming)),
            source_of(section, "test", _on_this_disk(section.test, coming)),
        ],
        read=lambda row, where: pair_of(row, section, where=where) if paired else labelled_of(row, where=where),
        policy=RowPolicy(section.bad_rows, "preferences.bad_rows"),
        shape=PAIR_SHAPE if paired else UNPAIRED_SHAPE,
    )


def _check_demonstrations(stage: StageConfig, coming: Path | None) -> None:
    section = stage.sft
    for source in (
        demonstrations_in(section, "train", _on_this_disk(section.data, coming)),
        demonstrations_in(section, "test", _on_this_disk(section.test, coming)),
    ):
        check_first(
            [source],
            read=lambda row, where: read_row(row),
            policy=RowPolicy(section.bad_rows, "sft.bad_rows"),
            shape=DEMONSTRATION_SHAPE,
        )
