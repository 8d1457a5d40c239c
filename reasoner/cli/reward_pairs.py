"""`reasoner eval MODEL --pairs FILE`: a reward model on right and wrong completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reasoner.cli.loading import loading_told
from reasoner.config.errors import ConfigError

if TYPE_CHECKING:
    from reasoner.cli.model_argument import Given
    from reasoner.config.stage import StageConfig
    from reasoner.data.choices import Choices

TAKEN = ("preferences.", "prompt.", "model.dtype")
"""Beginnings of the config keys that this evaluation reads."""


def check_no_other(given: Mapping[str, object]) -> None:
    """Refuse options that do not apply to `--pairs`.

    Args:
        given: value by option; None: not given.
    Raises:
        ConfigError: one is given.
    """
    wrong = [name for name, value in given.items() if value is not None]
    if wrong:
        raise ConfigError(
            "bad-value",
            f"--pairs takes no {', '.join(wrong)}: nothing is sampled. It takes --problems, --chat, --system,"
            " --template, --output, --json, and preferences.KEY=VALUE for the layout of the file.",
        )


def is_reward_model(found: Given) -> bool | None:
    """Return True if a run trained the model as a reward model, None if it comes from no run."""
    from reasoner.config.methods import METHODS

    return None if found.stage is None else METHODS[found.stage.method].policy == "reward"


def check_samples(found: Given, model: str) -> None:
    """Refuse a reward model where completions are sampled.

    Raises:
        ConfigError: it is one.
    """
    if is_reward_model(found):
        raise ConfigError(
            "bad-value",
            f"{model} is a reward model, which gives scores and no completions: `reasoner eval {model} --pairs FILE`.",
        )


def read_pairs(
    found: Given, files: Sequence[str], *, prompt: Mapping[str, object], overrides: Sequence[str]
) -> tuple[StageConfig, Choices]:
    """Return the settings of the evaluation and the rows of the files, before anything heavy is imported.

    Raises:
        ConfigError: the model is known to be no reward model, a setting is wrong or not read here, or too many rows
            cannot be used.
        TaskError: a file cannot be read.
    """
    from reasoner.config.load import resolve
    from reasoner.data.choices import CHOICE_SHAPE, load_choices
    from reasoner.data.rows import RowPolicy, report_bad_rows

    if found.stage is not None and not is_reward_model(found):
        raise ConfigError(
            "bad-value",
            f"--pairs needs a reward model; {found.path} was trained with method {found.stage.method}. Give the folder"
            " of a reward_model stage.",
        )
    stray = next((one for one in overrides if not one.startswith(TAKEN)), None)
    if stray is not None:
        raise ConfigError("bad-value", f"--pairs reads only preferences.*, prompt.* and model.dtype; got {stray!r}.")
    raw: dict[str, object] = {
        "method": "reward_model",
        "model": {"path": found.path, **({"dtype": found.stage.model.dtype} if found.stage else {})},
        "preferences": {"train": [*files]},
        "prompt": dict(prompt),
    }
    stage = resolve(raw, overrides, where="reasoner eval").stages[0]
    choices = load_choices(stage.preferences)
    if choices.ties and not choices.rows:
        raise ConfigError(
            "bad-value", f"all usable rows of {', '.join(files)} are labelled as ties: none can be ranked."
        )
    report_bad_rows(
        choices.bad,
        total=len(choices.rows) + len(choices.bad),
        policy=RowPolicy(stage.preferences.bad_rows, "preferences.bad_rows"),
        shape=CHOICE_SHAPE,
    )
    return stage, choices


def on_pairs(stage: StageConfig, choices: Choices, *, most: int | None, output: Path | None, as_json: bool) -> None:
    """Score the rows with the stage's model and print the figures."""
    from reasoner.engine.environment import go_offline_where_cut_off, skip_unused_packages

    with loading_told("torch"):
        go_offline_where_cut_off()
        skip_unused_packages()
        from reasoner.stages.reward_choices import evaluate_reward_model

    evaluate_reward_model(stage, choices, most=most, output=output, as_json=as_json)
