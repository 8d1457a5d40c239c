"""The MODEL of a command: a run, a stage, a checkpoint, a model folder or a hub name; and how it is prompted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from reasoner.config.kept_prompt import KeptPrompt
    from reasoner.config.stage import StageConfig


class Given(NamedTuple):
    """What a model argument leads to."""

    path: str
    """Model folder or hub name."""
    stage: StageConfig | None
    """The config that it was trained with; None: it is of no run."""
    kept: KeptPrompt | None
    """The prompt format in its folder."""


def model_and_stage(model: str, *, purpose: str = "evaluate") -> Given:
    """Find the model folder of a run, a stage or a checkpoint, and how it was trained; else the name as it is.

    Args:
        model: as the user typed it.
        purpose: what the user wants of it, for the advice.
    Raises:
        RunError: the folder is a run without a model, or holds an adapter alone. ConfigError: its files are damaged.
    """
    folder = Path(model)
    if not folder.is_dir():
        return Given(model, None, None)
    from reasoner.config.kept_prompt import read_kept_prompt
    from reasoner.config.load import load_config
    from reasoner.storage.files import RunError
    from reasoner.storage.final_link import stage_of_model
    from reasoner.storage.find_model import find_model

    found = folder if (folder / "config.json").is_file() else find_model(folder)
    if (found / "adapter_config.json").is_file():
        raise RunError(
            f"{found} holds an adapter alone. Merge it first: `reasoner export {model} FOLDER`, then {purpose} FOLDER."
        )
    written = stage_of_model(found)
    stage = load_config(str(written / "config.yaml")).stages[0] if written else None
    return Given(str(found), stage, read_kept_prompt(found))


def prompt_format(given: Given) -> KeptPrompt:
    """How a model is prompted and sampled: by its folder, by its run, or by the defaults. Tokenizer not looked at."""
    from reasoner.config.kept_prompt import KeptPrompt, KeptSampling

    if given.kept is not None:
        return given.kept
    if given.stage is None:
        return KeptPrompt()
    stage = given.stage
    several = stage.prompt.template.count("{prompt}") > 1
    opening, _, ending = ("", "", "") if several else stage.prompt.template.partition("{prompt}")
    sampling = KeptSampling(temperature=stage.eval.temperature, top_p=stage.eval.top_p, max_tokens=stage.eval_tokens)
    return KeptPrompt(prompt=stage.prompt, opening=opening, ending=ending, sampling=sampling)
