"""`reasoner suites`, and the part of `reasoner eval --suite` that runs before torch is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors
from reasoner.config.errors import ConfigError

if TYPE_CHECKING:
    from reasoner.cli.model_argument import Given
    from reasoner.session.suite_stage import Learned, SuiteStage
    from tasks.suites.suite import Suite

ALL = 1 << 30
"""Number of problems that stands for the whole suite."""


def suites(
    name: Annotated[
        str | None, typer.Argument(help="Name of a suite. Default: a table of all.", autocompletion=complete.suites)
    ] = None,
) -> None:
    """Show the evaluation sets of `reasoner eval --suite`: data, prompt, verifier, sampling, metric, sources."""
    with plain_errors():
        from tasks.suites.table import SUITES, suite_named

        for suite in SUITES if name is None else [suite_named(name)]:
            for line in _described(suite, whole=name is not None):
                typer.echo(line)


def _described(suite: Suite, *, whole: bool) -> Iterator[str]:
    from tasks.suites.table import graded_by, sampled

    yield f"{suite.name:14} {suite.title}: {suite.size:,} problems of {suite.hub}, {suite.split}"
    yield f"{'':14} {suite.metric}; {sampled(suite)}; graded by {graded_by(suite)}"
    if not whole:
        return
    yield f"{'':14} columns: {suite.columns}"
    yield f"{'':14} prompt: {suite.prompt!r}"
    for source in suite.sources:
        yield f"{'':14} source: {source}"
    for one in suite.differs:
        yield f"{'':14} differs from {one.source}: there {one.there}; here {one.here} ({one.why})"


def suite_names(given: str) -> list[str]:
    """Return the names in `--suite a,b,c`.

    Raises:
        TaskError: a name is not that of a suite.
        ConfigError: there is no name, or one occurs twice.
    """
    from tasks.suites.table import suite_named

    names = [suite_named(name.strip()).name for name in given.split(",") if name.strip()]
    if not names or len({*names}) < len(names):
        raise ConfigError("bad-value", f"--suite must name suites (`reasoner suites`), each once; got {given!r}.")
    return names


def data_paths(given: Sequence[str] | None, names: Sequence[str]) -> dict[str, str]:
    """Parse the SUITE=PATH pairs of `--data`.

    Raises:
        ConfigError: an entry is not such a pair, or names a suite that is not evaluated.
    """
    from verifiers.suggest import did_you_mean

    found: dict[str, str] = {}
    for pair in given or ():
        name, sign, path = pair.partition("=")
        if not sign or not path:
            raise ConfigError("bad-value", f"--data must be SUITE=PATH; got {pair!r}.")
        if name not in names:
            raise ConfigError("bad-value", f"--data {pair}: --suite names no {name!r}.{did_you_mean(name, names)}")
        found[name] = path
    return found


def suite_stages(
    names: Sequence[str],
    paths: Mapping[str, str],
    own: Mapping[str, object],
    given: Mapping[str, Mapping[str, object]],
    overrides: Sequence[str],
    *,
    seed: int,
    problems: int | None,
) -> list[SuiteStage]:
    """Build the stage that runs each suite: by the suite's definition, overridden by the user's settings.

    Args:
        names: names of suites.
        paths: paths of the data, for some suites.
        own: the model's own sections: model, prompt, engine, grading.
        given: sections from the user's options.
        overrides: `key.key=value`.
        seed: seed of the samples and of the order of choices.
        problems: number of first problems of each suite; None: all.
    Raises:
        ConfigError, TaskError: a setting, verifier, file or column does not exist.
    """
    from reasoner.config.load import resolve
    from reasoner.config.mappings import deep_merge
    from reasoner.data.problems import first_problems
    from reasoner.session.suite_stage import SuiteStage
    from tasks.suites.table import suite_named
    from tasks.suites.task import check_verifier

    found: list[SuiteStage] = []
    for name in names:
        suite = suite_named(name)
        check_verifier(suite)
        options: dict[str, object] = {"suite": name, "seed": seed}
        if name in paths:
            options["path"] = paths[name]
        defined = {
            "eval": {
                "problems": problems or ALL,
                "samples": suite.samples,
                "temperature": suite.temperature,
                "top_p": suite.top_p,
            },
            "task": [{"name": "suite", "options": options, "train_split": "test"}],
            "seed": seed,
        }
        raw = deep_merge(deep_merge({**own}, defined), {key: dict(value) for key, value in given.items()})
        stage = resolve(raw, list(overrides), where="reasoner eval").stages[0]
        own_tokens = stage.eval.max_tokens is not None
        if not own_tokens:
            section = stage.eval.model_copy(update={"max_tokens": suite.max_tokens})
            stage = stage.model_copy(update={"eval": section})
        if name in paths:
            first_problems(stage.task[0], stage.task[0].eval_split, most=1)
        found.append(SuiteStage(suite, stage, own_tokens))
    return found


def said(stages: Sequence[SuiteStage]) -> Iterator[str]:
    """Yield a line with the settings of each suite."""
    for suite, stage, _ in stages:
        section = stage.eval
        yield (
            f"{suite.name}: {section.samples} x, temperature {section.temperature:g}, top_p {section.top_p:g}, at most"
            f" {stage.eval_tokens} tokens, seed {stage.seed}, engine {stage.engine.name}"
        )


def results_folder(model: str) -> Path:
    """Return the default folder for a model's results: suites/MODEL."""
    parts = [part for part in Path(model).parts if part not in ("/", ".", "..", "runs", "final")]
    return Path("suites") / ("-".join(parts[-2:]) or "model")


def learned_by(found: Given, *, any_code: bool) -> Learned | None:
    """Return the training data of a run's model, of its stage and all earlier ones; None for a model of no run."""
    from reasoner.config.found import check_found
    from reasoner.config.load import load_config
    from reasoner.session.suite_stage import Learned
    from reasoner.storage.final_link import stage_of_model

    own = stage_of_model(Path(found.path))
    if found.stage is None or own is None:
        return None
    stages = [found.stage]
    if (number := own.name.partition("-")[0]).isdigit():
        before = [one for one in own.parent.glob("[0-9]*-*") if one.name.partition("-")[0].isdigit()]
        earlier = sorted(one for one in before if int(one.name.partition("-")[0]) < int(number))
        stages = [load_config(str(one / "config.yaml")).stages[0] for one in earlier] + stages
    try:
        for stage in () if any_code else stages:
            check_found(stage, task=None, verifier=None, engine=stage.engine.name)
    except ConfigError as error:
        return Learned(stages, str(error))
    return Learned(stages)
