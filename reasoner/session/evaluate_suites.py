"""Evaluation of a model on several suites, one after the other. Finished suites are kept and not sampled again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reasoner.config.stage import StageConfig
from reasoner.data.problems import load_held_out, spread, with_room
from reasoner.data.prompt import render
from reasoner.evaluation.evaluate import Evaluation
from reasoner.records import RolloutGroup
from reasoner.rollout.grading import check_graded
from reasoner.session.evaluate_model import Reading, engine_of, measure, read_tokenizer, write_rollouts
from reasoner.session.suite_overlap import overlap_sentence, overlaps_of
from reasoner.session.suite_results import (
    Result,
    deviations,
    digest_of,
    kept_result,
    lines,
    model_digest,
    other_results,
    problems_digest,
    settings_of,
    suite_figure,
    versions,
    write_all,
    write_result,
)
from reasoner.session.suite_stage import Learned, SuiteStage
from tasks import Problem
from tasks.suites.suite import Suite
from verifiers import JSON
from verifiers.jsonl import json_line
from verifiers.terminal.console import plain_console


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A suite with the stage that runs it, its problems and its settings."""

    suite: Suite
    stage: StageConfig
    problems: Sequence[Problem]
    notes: Sequence[str]
    settings: Mapping[str, JSON]
    identity: Mapping[str, JSON]
    """Settings and digests of model, engine and data; a stored result is reused only if all of them are equal."""


def evaluate_suites(
    asked: Sequence[SuiteStage], *, model: str, output: Path, learned: Learned | None, as_json: bool
) -> dict[str, Result]:
    """Evaluate the model on each suite without a finished result in `output`, and print the table.

    The result of each suite is written as soon as it is finished.

    Args:
        asked: at least one suite; all of the same model.
        model: the model's name as the user gave it.
        output: folder of the results.
        learned: training data of the model, if a run wrote it; otherwise None.
        as_json: print the published JSON instead of the table.
    Returns:
        The result of each suite, by its name.
    Raises:
        TaskError, ConfigError: data or verifier of a suite cannot be loaded; nothing was sampled.
        UngradedError: the ungraded share of a suite is above grading.max_ungraded_share.
        RunError: `output` contains a result of another model, other data or other settings.
    """
    console = plain_console(stderr=as_json)
    reading = read_tokenizer(asked[0].stage)
    identity: dict[str, JSON] = {
        "model": _weights(asked[0].stage),
        "engine": _engine(asked[0].stage),
        "seed": asked[0].stage.seed,
    }
    ready = [_ready(one, reading, identity) for one in asked]
    results = {one.suite.name: kept_result(output, one.suite, one.identity) for one in ready}
    done: dict[str, Result] = {name: result for name, result in results.items() if result is not None}
    for name in done:
        console.print(f"{name}: already finished, result kept from {output / name}")
    overlaps = overlaps_of(
        [(one.suite, one.problems) for one in ready if one.suite.name not in done],
        learned,
    )
    head = _head(asked[0].stage, model)
    open_ones = [one for one in ready if one.suite.name not in done]
    others = other_results(output, [one.suite.name for one in ready], identity)
    if open_ones:
        with engine_of(open_ones[0].stage, reading.limit) as engine:
            for one in open_ones:
                notes = [f"{one.suite.name}: {note}" for note in one.notes]
                found = measure(one.stage, one.problems, reading, engine, notes=() if as_json else notes)
                write_rollouts(found, output / one.suite.name)
                _check_graded(one, found, output)
                result = _result(one, found, overlaps.get(one.suite.name))
                write_result(output, one.suite, result)
                done[one.suite.name] = result
                write_all(output, head, {**others, **done})
    ordered = {one.suite.name: done[one.suite.name] for one in ready}
    published = write_all(output, head, {**others, **ordered})
    if as_json:
        print(json_line(published))
    else:
        _show(ordered, model, output)
    return ordered


def _weights(stage: StageConfig) -> str:
    assert stage.model.path is not None
    return model_digest(stage.model.path)


def _engine(stage: StageConfig) -> str:
    return digest_of([stage.engine.name, stage.engine.dtype, stage.model.dtype, stage.engine.options])


def _ready(asked: SuiteStage, reading: Reading, identity: Mapping[str, JSON]) -> Ready:
    suite, stage = asked.suite, asked.stage
    held_out, note = load_held_out(stage)
    notes = [*note]
    if not asked.own_tokens:
        stage, note = _within_context(stage, held_out[0], reading)
        notes += [note] if note else []
    fit, further = with_room(
        held_out, stage, reading.tokenizer, limit=reading.limit, setting="--max-tokens", tests=True
    )
    problems = spread(fit, len(fit[0]))
    settings = settings_of(suite, stage, problems=len(problems))
    known: dict[str, JSON] = {
        **identity,
        **settings,
        "data": problems_digest(problems),
    }
    return Ready(
        suite=suite,
        stage=stage,
        problems=problems,
        notes=[*notes, *further],
        settings=settings,
        identity=known,
    )


def _within_context(stage: StageConfig, problems: Sequence[Problem], reading: Reading) -> tuple[StageConfig, str]:
    """Shorten the completions to the room that the longest prompt leaves in the context.

    The stage is changed only if the configured length does not fit and the room is at least half of the context.

    Returns:
        The stage, and a note for the user ("" if nothing was changed).
    """
    longest = max(len(one.ids) for one in render(problems, reading.tokenizer, stage.prompt))
    room, wanted = reading.limit - longest, stage.eval_tokens
    if room >= wanted or room < reading.limit // 2:
        return stage, ""
    section = stage.eval.model_copy(update={"max_tokens": room})
    note = f"completions end after {room} tokens, not {wanted}: the model's context is {reading.limit} tokens."
    return stage.model_copy(update={"eval": section}), note


def _head(stage: StageConfig, model: str) -> dict[str, JSON]:
    return {
        "model": model,
        "model_digest": _weights(stage),
        "engine": stage.engine.name,
        "seed": stage.seed,
    }


def _result(one: Ready, found: Evaluation, overlap: JSON) -> Result:
    suite, result = one.suite, found.result
    value = suite_figure(suite, one.problems, [_share(group) for group in found.sampled.groups])
    departs = deviations(suite, one.settings)
    metrics: dict[str, JSON] = {name: [*each] for name, each in result.estimates.items()}
    metric = suite.metric if one.settings["samples"] == suite.samples else f"avg@{one.settings['samples']}"
    return {
        "suite": suite.name,
        "title": suite.title,
        "metric": metric,
        **value._asdict(),
        **result.counts(),
        "settings": dict(one.settings),
        "deviations": [*departs],
        "differs_from_sources": [dict(each._asdict()) for each in suite.differs],
        "sources": [*suite.sources],
        "data": _data(one),
        "versions": versions(),
        "overlap": overlap,
        "metrics": metrics,
        "notes": [*one.notes],
        "identity": dict(one.identity),
    }


def _data(one: Ready) -> dict[str, JSON]:
    path = one.stage.task[0].options.get("path")
    where: dict[str, JSON] = {"path": str(path)} if path else {"hub": one.suite.hub, "split": one.suite.split}
    return {**where, "digest": one.identity["data"]}


def _check_graded(one: Ready, found: Evaluation, output: Path) -> None:
    """Raise UngradedError if the ungraded share is above the limit: the figure would ignore these completions."""
    check_graded(
        found.sampled.groups,
        max_share=one.stage.grading.max_ungraded_share,
        kept=str(output / one.suite.name / "eval_rollouts.jsonl"),
        again=f"run the same command again: suite {one.suite.name} is not stored as finished",
    )


def _share(group: RolloutGroup) -> float | None:
    """Return the share of correct completions of a problem; None if none could be graded."""
    graded = [rollout.verdict.quality or 0.0 for rollout in group.rollouts if rollout.verdict.graded]
    return sum(graded) / len(graded) if graded else None


def _show(results: Mapping[str, Result], model: str, output: Path) -> None:
    console = plain_console()
    console.print(f"{model}")
    for line in lines(results):
        console.print(f"  {line}")
    for name, one in results.items():
        if note := overlap_sentence(one["overlap"], problems=one["problems"]):
            console.print(f"  {name}: {note}")
    console.print(f"  written to {output}")


__all__ = ["evaluate_suites"]
