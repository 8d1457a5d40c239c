"""The MODEL argument of a command, and how to prompt the model that it names.

MODEL is a run, a stage, a checkpoint, a model folder or a hub name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from reasoner.config.kept_prompt import KeptPrompt
    from reasoner.config.stage import StageConfig

MOST_NAMED = 8


class Given(NamedTuple):
    """The model found for a MODEL argument."""

    path: str
    """Model folder or hub name."""
    stage: StageConfig | None
    """The stage config that trained the model; None if it does not come from a run."""
    kept: KeptPrompt | None
    """The prompt format in its folder; None if it has none."""


def model_and_stage(model: str, *, purpose: str = "evaluate") -> Given:
    """Find the model folder of a run, a stage or a checkpoint, with its config; any other name is returned unchanged.

    Args:
        model: as the user typed it.
        purpose: what the user wants to do with the model, for the advice in an error.
    Raises:
        RunError: the folder is a run without a model or contains only an adapter; or it does not exist, and its parent
            folder contains runs.
        ConfigError: its files are damaged.
    """
    folder = Path(model)
    if not folder.is_dir():
        _check_mistyped(folder)
        return Given(model, None, None)
    from reasoner.config.kept_prompt import read_kept_prompt
    from reasoner.config.load import load_config
    from reasoner.storage.files import RunError
    from reasoner.storage.final_link import stage_of_model
    from reasoner.storage.find_model import find_model

    found = folder if (folder / "config.json").is_file() else find_model(folder)
    if (found / "adapter_config.json").is_file():
        raise RunError(
            f"{found} contains only an adapter. Merge it first: `reasoner export {model} FOLDER`, then {purpose}"
            " FOLDER."
        )
    written = stage_of_model(found)
    stage = load_config(str(written / "config.yaml")).stages[0] if written else None
    return Given(str(found), stage, read_kept_prompt(found))


def _check_mistyped(folder: Path) -> None:
    """Reject a mistyped `runs/NAME` if `runs` contains runs; otherwise it would be looked up as a hub name."""
    from reasoner.cli.complete import runs
    from reasoner.storage.files import RunError
    from verifiers.suggest import did_you_mean

    beside = runs(f"{folder.parent}/") if len(folder.parts) > 1 and not folder.exists() else []
    names = [str(Path(run).relative_to(folder.parent)) for run in beside]
    if names:
        hint = did_you_mean(folder.name, names)
        few = ", ".join([*names[:MOST_NAMED], *(["..."] if names[MOST_NAMED:] else [])])
        raise RunError(f"there is no run {folder}.{hint} Runs of {folder.parent}: {few}.")


def prompt_format(given: Given) -> KeptPrompt:
    """Return how a model is prompted and sampled: from its folder, from the records of its run, or the defaults."""
    from reasoner.config.kept_prompt import KeptPrompt

    if given.kept is not None:
        return given.kept
    if given.stage is None:
        return KeptPrompt()
    return _of_run(given, given.stage).kept


class OfRun(NamedTuple):
    """Prompt format of a model whose folder has none: a checkpoint, or a model of an older run."""

    kept: KeptPrompt
    template: str | None
    """A chat template that gives the prompts; None if the tokenizer's own does, or none can."""


def format_of_run(given: Given) -> OfRun | None:
    """Return the missing prompt format of a run's model; None if its folder has one, or it is not of a run."""
    return _of_run(given, given.stage) if given.kept is None and given.stage is not None else None


def _of_run(given: Given, stage: StageConfig) -> OfRun:
    from reasoner.cli.loading import loading_told
    from reasoner.storage.final_link import stage_of_model

    with loading_told("the tokenizer"):
        from reasoner.data.kept_template import fitting_template, kept_prompt
        from reasoner.model.load import load_tokenizer
        from reasoner.session.kept_model import recorded_environment, recorded_questions
    tokenizer, run = load_tokenizer(given.path), stage_of_model(Path(given.path))
    questions = recorded_questions(run, stage, tokenizer) if run else []
    kept = kept_prompt(stage, tokenizer, questions, environment=recorded_environment(run) if run else None)
    return OfRun(kept, fitting_template(kept, tokenizer, questions))
