"""The README.md (model card) of a model that a run writes. No torch."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

import yaml

from reasoner.config.kept_prompt import KeptPrompt
from reasoner.config.methods import METHODS
from reasoner.config.stage import StageConfig
from verifiers.text import visible

if TYPE_CHECKING:
    from reasoner.records import Estimate

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
MODEL = "MODEL"
"""Placeholder for the model's folder or hub name in the commands of a card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A problem of the run's evaluation, with one of its completions."""

    question: str
    completion: str
    outcome: str
    text_prompt: bool
    """True if the question, sent as a user message, gives the prompt of training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Contents of a model card."""

    stage: StageConfig
    step: int
    config_name: str | None
    """File or name of the config that the run was started with."""
    base: str | None
    """Hub name or short description of the base model; None if the model was trained from scratch."""
    before: Mapping[str, Estimate]
    after: Mapping[str, Estimate]
    """Metrics of the held-out evaluations: before training, and of this model."""
    kept: KeptPrompt | None
    """None for a reward model, which scores and generates no text."""
    template_fits: bool
    """True if the folder's chat template gives the prompts of training."""
    example: Example | None
    dtype: str
    """Dtype of the weights in the folder."""

    @property
    def base_on_hub(self) -> str | None:
        """Hub name of the base model; None if it is not on the hub."""
        return self.base if self.base is not None and HUB_NAME.fullmatch(self.base) and "/" in self.base else None


def figure(estimate: Sequence[float], *, like: Sequence[float]) -> str:
    """Format an estimate with its interval: as percentages if all values lie in [0, 1], otherwise as plain numbers.

    Args:
        estimate: (value, low, high).
        like: a second estimate shown next to it; both are formatted alike.

    Example:
        >>> figure([0.5, 0.4, 0.6], like=[0.2, 0.1, 0.3]), figure([-0.5, -0.6, -0.4], like=[0.2, 0.1, 0.3])
        ('50.0% [40.0%, 60.0%]', '-0.500 [-0.600, -0.400]')
    """
    share = all(0 <= value <= 1 for value in (*estimate, *like))
    value, low, high = (f"{number:.1%}" if share else f"{number:.3f}" for number in estimate)
    return f"{value} [{low}, {high}]"


def card_text(card: Card) -> str:
    """Return the whole README: front matter, then description, settings, metrics, and how to use the model."""
    parts = [_front_matter(card), _what(card), _settings(card), _figures(card)]
    if card.kept is not None:
        parts += [_example(card), _use(card, card.kept)]
    return "\n".join(part for part in [*parts, _licence(card)] if part)


def in_line(text: str) -> str:
    """Format untrusted text as inline code, so that it cannot add markdown, HTML or line breaks.

    Example:
        >>> in_line("a`b"), in_line("# x")
        ('`` a`b ``', '`# x`')
    """
    shown = visible(text).replace("\n", "\\n") or " "
    ticks = "`" * (_longest_ticks(shown) + 1)
    return f"{ticks}{shown}{ticks}" if ticks == "`" else f"{ticks} {shown} {ticks}"


def _cell(text: str) -> str:
    """Format untrusted text as inline code for a table cell."""
    return in_line(text).replace("|", "\\|")


def block(text: str, language: str = "text") -> str:
    """Format text as a fenced code block that the text itself cannot close."""
    fence = "`" * max(3, _longest_ticks(text) + 1)
    return f"{fence}{language}\n{visible(text).rstrip()}\n{fence}\n"


def _longest_ticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _front_matter(card: Card) -> str:
    head: dict[str, object] = {"library_name": "transformers"}
    head["pipeline_tag"] = "text-generation" if card.kept is not None else "text-classification"
    if card.base_on_hub is not None:
        head["base_model"] = card.base_on_hub
    method = card.stage.method
    head["tags"] = ["reasoner", method, *(["reinforcement-learning"] if _by_rewards(method) else [])]
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n"


def _by_rewards(method: str) -> bool:
    return METHODS[method].learns_from == "rewards"


def _what(card: Card) -> str:
    stage = card.stage
    base = "a small model trained from scratch" if card.base is None else f"the base model {in_line(card.base)}"
    tasks = ", ".join(in_line(section.name) for section in stage.task) or "data of its own"
    config = f", config {in_line(card.config_name)}" if card.config_name else ""
    return (
        f"# {in_line(stage.name)}\n\nTrained with reasoner from {base}: method"
        f" {stage.method}, {card.step} steps, on {tasks}{config}.\n"
    )


def _settings(card: Card) -> str:
    stage, method = card.stage, METHODS[card.stage.method]
    rows: list[tuple[str, object]] = [("seed", stage.seed), ("optim.lr", f"{stage.optim.lr:g}")]
    if stage.model.lora is not None:
        rows.append(("model.lora.rank", stage.model.lora.rank))
    if method.learns_from == "rewards":
        algorithm, rollout = stage.algorithm, stage.rollout
        rows += [
            ("algorithm", f"{algorithm.advantage}, {algorithm.loss}, {algorithm.aggregation}"),
            ("algorithm.kl_coef", f"{algorithm.kl_coef:g}"),
            ("rollout", f"{rollout.problems_per_step} problems x {rollout.group_size}, temperature"
             f" {rollout.temperature:g}, at most {rollout.max_tokens} tokens"),
        ]  # fmt: skip
    if method.learns_from == "demonstrations":
        rows += [
            ("sft.rows_per_step", stage.sft.rows_per_step),
            *(("sft.data", name) for name in _names(stage.sft.data)),
        ]
    if stage.teacher.named and "teacher" in method.sections:
        rows += [("teacher", name) for name in _names([stage.teacher.path or "behind servers"])]
    if method.learns_from_preferences:
        rows += [("preferences.train", name) for name in _names(stage.preferences.train)]
    for section in stage.task:
        rows.append((f"task {section.name}", json.dumps(_portable(section.options)) if section.options else "as it is"))
        if section.verifier is not None:
            rows.append((f"verifier of {section.name}", section.verifier.name))
    if stage.reward is not None:
        rows.append(("reward", stage.reward.name))
    lines = [f"| {_cell(name)} | {_cell(str(value))} |" for name, value in rows]
    return "\n".join(["## Settings", "", "| key | value |", "|---|---|", *lines, ""])


def _names(paths: Sequence[str]) -> list[str]:
    """Return data names without the folders of the machine that ran the training."""
    return [str(_portable(path)) for path in paths]


def _portable(value: object) -> object:
    """Return a setting for publication: an absolute path is shortened to its last part."""
    if isinstance(value, Mapping):
        return {key: _portable(held) for key, held in value.items()}
    return PurePath(value).name if isinstance(value, str) and value.startswith(("/", "~", "..")) else value


def _figures(card: Card) -> str:
    if not card.after:
        return ""
    section = card.stage.eval
    lines = ["## Held-out figures", ""]
    if card.stage.evaluates:
        lines += [
            f"With 95 % intervals, on at most {section.problems} problems x {section.samples}, temperature"
            f" {section.temperature:g}, top_p {section.top_p:g}.",
            "",
        ]
    lines += ["| figure | before | after |", "|---|---|---|"]
    for name, after in card.after.items():
        before = card.before.get(name)
        was = figure(before, like=after) if before is not None else ""
        lines.append(f"| {_cell(name)} | {was} | {figure(after, like=before if before is not None else after)} |")
    return "\n".join([*lines, ""])


def _example(card: Card) -> str:
    example = card.example
    if example is None:
        return ""
    return (
        f"## Example\n\nOf the last evaluation, graded {in_line(example.outcome)}.\n\n{block(example.question)}\n"
        f"{block(example.completion)}"
    )


def _use(card: Card, kept: KeptPrompt) -> str:
    if kept.environment is not None:
        return (
            f"## Use\n\nIn training the environment {in_line(kept.environment)} replied to each turn of"
            f" the model; a program that samples one completion gets no replies. `reasoner eval {MODEL}` plays"
            " whole episodes.\n"
        )
    sampling, lines = kept.sampling, list(_commands(card, kept))
    sampled = f"; without the temperature setting it samples at temperature {sampling.temperature:g}"
    note = (
        ""
        if card.template_fits
        else "\nThe chat template does not give the prompts of training. `reasoner chat MODEL` builds them from"
        " `prompt.json`; for other programs, pass the full prompt as text.\n"
    )
    return (
        f"## Use\n\n{MODEL} stands for this folder or its name on the hub. Each command takes the most likely"
        f" answer{sampled if sampling.temperature else ''}, as in the evaluation.\n\n" + "\n".join(lines) + note
    )


def _commands(card: Card, kept: KeptPrompt) -> Iterator[str]:
    """Yield commands that query the model: with reasoner, transformers, and vLLM's server."""
    asked = _asked(card, kept)
    yield block(
        f"reasoner chat {MODEL} --temperature 0\nreasoner chat {MODEL} --temperature 0 --prompt {shlex.quote(asked)}",
        "sh",
    )
    stops = list(kept.prompt.stop)
    stopping = f", stop_strings={json.dumps(stops)}, tokenizer=pipe.tokenizer" if stops else ""
    yield block(
        "from transformers import pipeline\n"
        f'pipe = pipeline("text-generation", model="{MODEL}")\n'
        f'pipe([{{"role": "user", "content": {json.dumps(asked)}}}], max_new_tokens={kept.sampling.max_tokens},'
        f" do_sample=False{stopping})",
        "python",
    )
    body: dict[str, object] = {"model": MODEL, "messages": [{"role": "user", "content": asked}], "temperature": 0}
    body["max_tokens"] = kept.sampling.max_tokens
    if stops:
        body |= {"stop": stops, "include_stop_str_in_output": True}
    dtype = " --dtype float32" if card.dtype == "float32" else ""
    yield block(
        f"reasoner serve {MODEL}   # or: python -m vllm.entrypoints.openai.api_server --model {MODEL}{dtype}\n"
        "curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(json.dumps(body))}",
        "sh",
    )


def _asked(card: Card, kept: KeptPrompt) -> str:
    """Return a short message for the commands: the example's question if it is suitable, else a fixed one.

    White space around the question is dropped if the prompt stays the same.
    """
    example = card.example
    if example is None or not example.text_prompt or len(example.question) > 200:
        return "What is 12 + 30?"
    bare = example.question.strip()
    return bare if kept.completed(bare) == kept.completed(example.question) else example.question


def _licence(card: Card) -> str:
    licence = (
        "none is chosen yet: no weights of another model are included" if card.base is None else "as the base model"
    )
    return f"## Licence\n\nLicence of the weights: {licence}.\n"
