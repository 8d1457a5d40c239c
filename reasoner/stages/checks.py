"""What no stage could get past, found before anything is loaded: names, options, what the config's paths lead to."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Sequence
from pathlib import Path

from reasoner.algorithm.advantage import get_estimator
from reasoner.config.errors import ConfigError
from reasoner.config.methods import METHODS
from reasoner.config.no_effect import refuse_no_effect
from reasoner.config.sections import OWN, VerifierSection
from reasoner.config.stage import StageConfig
from reasoner.data.demonstrations import DEMONSTRATION_SHAPE, read_row
from reasoner.data.difficulty import Difficulty
from reasoner.data.encode import report_bad_rows, usable_rows
from reasoner.data.preferences import PAIR_SHAPE, load_pairs
from reasoner.data.problems import listed, with_verifiers
from reasoner.engine import engine_class
from reasoner.evaluation.evaluate import is_metric, metric_names
from reasoner.model.load import ModelError, check_model
from reasoner.monitoring.trackers import check_trackers
from reasoner.policy.optimizer import check_optimizer
from reasoner.rollout.plugin_check import check_plugins
from reasoner.stages.constitutional import load_principles
from tasks.registry import get_task
from tasks.rows import is_local
from verifiers import get_verifier
from verifiers.suggest import did_you_mean


def check_stage(stage: StageConfig, *, coming: Path | None) -> None:
    """Raise for whatever the stage names that is not there.

    Hub names are not looked up, and tasks whose problems come from elsewhere than a file are not read.

    Args:
        stage: with its references to other stages replaced by paths.
        coming: a folder that earlier stages have still to write into; None: there is none.
    Raises:
        ConfigError, ModelError, TaskError, VerifierError: says what to change.
    """
    refuse_no_effect(stage)
    _check_metric(stage)
    engine_class(stage.engine.name, stage.engine.options)
    check_trackers(stage.logging.trackers)
    check_optimizer(stage)
    method = METHODS[stage.method]
    if method.check is not None:
        pkgutil.resolve_name(method.check)(stage)
    _check_models(stage, coming)
    _check_scorers(stage, coming)
    _check_tasks(stage, coming)
    if method.learns_from == "pairs":
        _check_pairs(stage, coming)
    if method.learns_from == "demonstrations":
        _check_demonstrations(stage, coming)


def _check_metric(stage: StageConfig) -> None:
    """Raise where the metric that decides the best checkpoint is none of an evaluation."""
    name, samples = stage.eval.metric, stage.eval.samples
    if name is not None and stage.evaluates and not is_metric(name, samples, sets=len(stage.task)):
        known = metric_names(samples)
        raise ConfigError(
            "bad-value",
            f"eval.metric must be one of {', '.join(known)} or component/NAME with eval.samples={samples}; got"
            f" {name!r}.{did_you_mean(name, known)}",
        )


def check_principles(stage: StageConfig) -> None:
    """Read the principles of a constitutional stage.

    Raises:
        ConfigError: there are none; says what to change.
    """
    load_principles(stage.constitutional.principles)


def _is_coming(path: str, coming: Path | None) -> bool:
    return coming is not None and Path(path).resolve().is_relative_to(coming.resolve())


def _check_models(stage: StageConfig, coming: Path | None) -> None:
    section = stage.model
    if section.path is None and section.from_scratch is None:
        raise ModelError("model must have a path or from_scratch; got neither. Pass model=NAME_OR_FOLDER.")
    rewarded = METHODS[stage.method].learns_from == "rewards"
    valued = rewarded and "values" in get_estimator(stage.algorithm.advantage).needs
    named = {
        "model.path": section.path,
        "algorithm.reference": stage.algorithm.reference if stage.algorithm.needs_reference else None,
        "value.init": stage.value.init if valued and stage.value.trunk == "separate" else None,
    }
    for setting, path in named.items():
        if path is not None and not _is_coming(path, coming):
            adapted = setting == "value.init" and section.lora is not None
            check_model(f"{path}/adapter" if adapted else path, setting)


def _check_scorers(stage: StageConfig, coming: Path | None) -> None:
    """Make once whatever rewards, compares or watches, unless an earlier stage has still to write its model."""
    sections: list[VerifierSection | None] = [stage.reward, stage.constitutional.judge, stage.watch.scorer]
    for section in sections:
        if section is None or section.name == OWN:
            continue
        if coming is None or f'"{coming}/' not in json.dumps(section.options):
            get_verifier(section.name, **section.options)


def _check_tasks(stage: StageConfig, coming: Path | None) -> None:
    for section in stage.task:
        task = get_task(section.name, **section.options)
        if section.verifier is not None:
            get_verifier(section.verifier.name, **section.verifier.options)
        path = section.options.get("path")
        if isinstance(path, str) and is_local(path) and not _is_coming(path, coming):
            rewarded = section.model_copy(update={"verifier": stage.reward or section.verifier})
            read = listed(task.problems(section.train_split), section)[:1]
            check_plugins(stage, with_verifiers(read, rewarded))
            if stage.evaluates:
                task.problems(section.eval_split)
    given = stage.rollout.difficulty_from
    if given is not None and not _is_coming(given, coming):
        Difficulty(decay=1.0).import_rollouts(Path(given))


def _on_this_disk(paths: Sequence[str], coming: Path | None) -> list[str]:
    return [path for path in paths if is_local(path) and not _is_coming(path, coming)]


def _check_pairs(stage: StageConfig, coming: Path | None) -> None:
    section = stage.preferences
    here = {"train": _on_this_disk(section.train, coming), "test": _on_this_disk(section.test, coming)}
    if any(here.values()):
        found = load_pairs(section.model_copy(update=here))
        bad = [row for pairs in found for row in pairs.bad]
        report_bad_rows(
            bad, total=sum(len(pairs.pairs) for pairs in found) + len(bad), policy=section.bad_rows, shape=PAIR_SHAPE
        )


def _check_demonstrations(stage: StageConfig, coming: Path | None) -> None:
    for split, paths in (("train", stage.sft.data), ("test", stage.sft.test)):
        here = _on_this_disk(paths, coming)
        rows, bad = usable_rows(here, split=split, read=lambda row, where: read_row(row))
        if bad:
            report_bad_rows(bad, total=len(rows) + len(bad), policy=stage.sft.bad_rows, shape=DEMONSTRATION_SHAPE)
