"""What lies beside the weights of a model that a run writes: model card, prompt format, generation config."""

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
"""Of the records that are read: the end of the file, and different questions in it."""
SAMPLING_KEYS = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h"),
    *("repetition_penalty", "no_repeat_ngram_size", "encoder_repetition_penalty", "max_length", "max_new_tokens"),
    "_from_model_config",
)
"""Of a base's generation config: another distribution than the one that was trained and measured."""
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
    """Write README.md, prompt.json, generation_config.json, and a chat template where the tokenizer's own does not fit.

    Args:
        folder: a plain model folder with its tokenizer.
        tokenizer: with the chat template that the stage used.
        stage: its config.
        run: its folder, with the records.
        step: of the model.
        before, after: figures of held-out evaluations, of the start and of this model.
        with_example: whether the newest evaluation in the records is of this model.
    """
    kept, fits, example = None, True, None
    if METHODS[stage.method].policy != "reward":
        rows = _newest_rows(run / "eval_rollouts.jsonl")
        questions = recorded_questions(run, stage, tokenizer)
        kept, fits = _write_format(folder, tokenizer, stage, questions)
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
    """Text prompts at the end of a run's records, before the prompt section's template was put around them."""
    rows = [row for name in ("eval_rollouts.jsonl", "rollouts.jsonl") for row in _newest_rows(run / name)]
    asked = {_question(row): row["prompt_ids"] for row in rows}
    return text_prompts(list(asked.items())[:MOST_QUESTIONS], tokenizer, stage.prompt)


def write_companions_of(folder: Path, *, source: Path, run: Path) -> None:
    """The same, for a copy of a model of a run that is not open, by its records.

    Args:
        folder: the copy.
        source: the model's folder within the run.
        run: of the stage that wrote it.
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
    """The step of a model within a run: a checkpoint's by its name, the best one's by its figure, else the last."""
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
    folder: Path, tokenizer: PreTrainedTokenizerBase, stage: StageConfig, questions: list[str]
) -> tuple[KeptPrompt, bool]:
    """Write prompt.json, chat template and generation config; returns whether the template gives the prompts."""
    kept = kept_prompt(stage, tokenizer, questions)
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
    """A generation config that samples as the evaluations did and ends where training ended.

    Stop strings are not in it: `generate` and pipelines refuse to run with them unless they are handed the tokenizer.
    """
    row = {key: value for key, value in found.items() if key not in SAMPLING_KEYS}
    row["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    sampling = kept.sampling
    row["do_sample"] = sampling.temperature > 0
    if row["do_sample"]:
        row |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    return row


def _newest_rows(file: Path) -> list[Row]:
    """Rollouts of the last step in a record file, as far as they stand at its end."""
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
    """The problem's own text: with the prompt section's template still to come."""
    return str(row["prompt"] if row.get("question") is None else row["question"])


def _example(rows: list[Row], questions: list[str]) -> Example | None:
    """The first row that is right, or the first of all."""
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
    """What `reasoner train` was given, without the folder that it lay in."""
    try:
        command = json.loads((run / "environment.json").read_text())["command"]
        return Path(str(command[2])).name if command[1] == "train" else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _base(stage: StageConfig) -> str | None:
    """Hub name, or the last part of the path, of the model that the first stage began from; None: of nothing."""
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
