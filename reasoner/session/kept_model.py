"""Files next to the weights of a model that a run writes: model card, prompt format, generation config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from reasoner.config.kept_prompt import KeptPrompt, write_kept_prompt
from reasoner.config.load import load_config
from reasoner.config.methods import METHODS
from reasoner.config.stage import StageConfig
from reasoner.data.kept_template import fitting_template, gives_prompts, kept_prompt, text_prompts
from reasoner.data.turns import ends_of
from reasoner.model.load import load_tokenizer
from reasoner.records import Estimate
from reasoner.session.model_card import HUB_NAME, Card, Example, card_text
from reasoner.storage.final_link import stage_of_model
from reasoner.storage.find_model import step_of

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

TAIL_BYTES, MOST_QUESTIONS = 4 << 20, 256
"""Limits on reading the records: bytes from the end of the file, and number of distinct questions."""
SAMPLING_KEYS = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h"),
    *("repetition_penalty", "no_repeat_ngram_size", "encoder_repetition_penalty", "max_length", "max_new_tokens"),
    "_from_model_config",
)
"""Keys removed from a base model's generation config: they would change the trained and measured distribution."""
Row = Mapping[str, Any]


def write_companions(
    folder: Path,
    *,
    tokenizer: PreTrainedTokenizerBase,
    stage: StageConfig,
    run: Path,
    step: int,
    before: Mapping[str, Estimate],
    after: Mapping[str, Estimate],
    with_example: bool = True,
) -> None:
    """Write README.md, prompt.json and generation_config.json into a model folder.

    A chat template is written too if the tokenizer's own does not give the prompts of training.

    Args:
        folder: plain model folder that contains its tokenizer.
        tokenizer: the tokenizer with the chat template that the stage used.
        stage: config of the stage.
        run: folder of the stage, with its records.
        step: step at which the model was written.
        before, after: metrics of the held-out evaluations at the start and of this model.
        with_example: True if the newest evaluation in the records is of this model.
    """
    kept, fits, example = None, True, None
    if METHODS[stage.method].policy != "reward":
        rows = _newest_rows(run / "eval_rollouts.jsonl")
        questions = recorded_questions(run, stage, tokenizer)
        kept, fits = _write_format(folder, tokenizer, stage, questions, recorded_environment(run))
        example = _example(rows, questions) if with_example else None
    config = json.loads((folder / "config.json").read_text())
    card = Card(
        stage=stage,
        step=step,
        config_name=_config_name(run),
        base=_base(stage),
        before=before,
        after=after,
        kept=kept,
        template_fits=fits,
        example=example,
        dtype=str(config.get("dtype") or config.get("torch_dtype")),
    )
    (folder / "README.md").write_text(card_text(card), encoding="utf-8")


def recorded_questions(run: Path, stage: StageConfig, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the text prompts at the end of a run's records, without the template of the prompt section."""
    rows = [row for name in ("eval_rollouts.jsonl", "rollouts.jsonl") for row in _newest_rows(run / name)]
    asked = {_question(row): row["prompt_ids"] for row in rows}
    return text_prompts(list(asked.items())[:MOST_QUESTIONS], tokenizer, stage.prompt)


def recorded_environment(run: Path) -> str | None:
    """Return the environment of a recorded rollout, without the folders of this machine; None if none has one."""
    rows = (row for name in ("eval_rollouts.jsonl", "rollouts.jsonl") for row in _newest_rows(run / name))
    names = (Path(row["environment"]).name for row in rows if row.get("environment"))
    return next(names, None)


def write_companions_of(folder: Path, *, source: Path, run: Path) -> None:
    """Write the same files for a copy of a run's model, reading everything from the run's records.

    Args:
        folder: the copy.
        source: folder of the original model within the run.
        run: folder of the stage that wrote it.
    """
    stage = load_config(str(run / "config.yaml")).stages[0]
    evaluations = [json.loads(line) for line in _lines(run / "evals.jsonl")]
    step = _step_of(source, evaluations, stage)
    of_step = [_estimates(row) for row in evaluations if row["step"] == step]
    write_companions(
        folder,
        tokenizer=load_tokenizer(str(folder)),
        stage=stage,
        run=run,
        step=step,
        before=_estimates(evaluations[0]) if evaluations and step else {},
        after=of_step[-1] if of_step else {},
        with_example=bool(evaluations) and evaluations[-1]["step"] == step,
    )


def _step_of(source: Path, evaluations: Sequence[Row], stage: StageConfig) -> int:
    """Return the step of a model within a run.

    A checkpoint's step is read from its name. The step of `best` is that of the best evaluation. Any other model is
    from the last step.
    """
    for folder in (source, source.parent):
        if (step := step_of(folder)) is not None:
            return step
    metric = stage.eval.deciding
    if source.name == "best" and (rows := [row for row in evaluations if row["step"] and metric in row["metrics"]]):
        return int(max(rows, key=lambda row: float(row["metrics"][metric][0]))["step"])
    return stage.steps


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split("\n")[:-1] if file.is_file() else []


def _estimates(row: Row) -> dict[str, Estimate]:
    return {name: Estimate(*value) for name, value in row["metrics"].items()}


def _write_format(
    folder: Path, tokenizer: PreTrainedTokenizerBase, stage: StageConfig, questions: list[str], environment: str | None
) -> tuple[KeptPrompt, bool]:
    """Write prompt.json, chat template and generation config.

    Returns:
        The prompt format, and True if the folder's chat template gives the prompts of training.
    """
    kept = kept_prompt(stage, tokenizer, questions, environment=environment)
    template = fitting_template(kept, tokenizer, questions)
    own = tokenizer.chat_template
    fits = template is not None or (isinstance(own, str) and gives_prompts(own, kept, tokenizer, questions))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        kept = kept.model_copy(update={"template_replaced": True, "own_template": own})
    write_kept_prompt(folder, kept)
    file = folder / "generation_config.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    ids = found.get("eos_token_id")
    configured = ids if isinstance(ids, list) else [] if ids is None else [ids]
    ends = list(ends_of(tokenizer, stage.prompt, cast("list[int]", configured)).ids)
    file.write_text(json.dumps(_generation(found, kept, ends), indent=2) + "\n")
    return kept, fits


def _generation(found: Mapping[str, Any], kept: KeptPrompt, ends: list[int]) -> dict[str, Any]:
    """Return a generation config that samples as in the evaluations and stops at the end tokens of training.

    Stop strings are left out: `generate` and pipelines refuse them unless the tokenizer is passed along.
    """
    row = {key: value for key, value in found.items() if key not in SAMPLING_KEYS}
    row["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    sampling = kept.sampling
    row["do_sample"] = sampling.temperature > 0
    if row["do_sample"]:
        row |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    return row


def _newest_rows(file: Path) -> list[Row]:
    """Return the rollouts of the last step in a record file, as far as they lie within its last TAIL_BYTES."""
    if not file.is_file():
        return []
    with file.open("rb") as lines:
        size = file.stat().st_size
        lines.seek(max(0, size - TAIL_BYTES))
        if size > TAIL_BYTES:
            lines.readline()
        rows = [cast("Row", json.loads(line)) for line in lines if line.endswith(b"\n")]
    return [row for row in rows if row["step"] == rows[-1]["step"]]


def _question(row: Row) -> str:
    """Return the problem's text before the template of the prompt section is applied."""
    return str(row["prompt"] if row.get("question") is None else row["question"])


def _example(rows: list[Row], questions: list[str]) -> Example | None:
    """Return the first row with a correct answer, or the first row if there is none; None without rows."""
    if not rows:
        return None
    row = next((row for row in rows if row["verdict"]["outcome"] == "correct"), rows[0])
    question = _question(row)
    return Example(
        question=question,
        completion=str(row["completion"]),
        outcome=str(row["verdict"]["outcome"]),
        text_prompt=question in questions,
    )


def _config_name(run: Path) -> str | None:
    """Return the file or config name given to `reasoner train`, without its folder; None if it is not recorded."""
    try:
        command = json.loads((run / "environment.json").read_text())["command"]
        return Path(str(command[2])).name if command[1] == "train" else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _base(stage: StageConfig) -> str | None:
    """Return the hub name, or the last part of the path, of the model that the first stage started from.

    None if the model was trained from scratch.
    """
    for _ in range(100):
        path = stage.model.path
        if path is None:
            return None
        if not Path(path).exists():
            return path if HUB_NAME.fullmatch(path) else Path(path).name
        written = stage_of_model(Path(path))
        if written is None:
            return Path(path).name
        stage = load_config(str(written / "config.yaml")).stages[0]
    return None
