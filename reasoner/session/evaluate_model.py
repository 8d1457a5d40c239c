"""Evaluation of a model outside a run."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from reasoner.config.stage import StageConfig
from reasoner.data.problems import load_held_out, spread, with_room
from reasoner.data.turns import Ends, ends_of
from reasoner.engine import Engine, open_engine
from reasoner.evaluation.evaluate import Evaluation, evaluate
from reasoner.model.load import (
    compute_dtype,
    configured_ends,
    context_limit,
    default_device,
    load_config_and_tokenizer,
)
from reasoner.observe.display.display import Display
from reasoner.rollout.grading import grading_pool
from reasoner.rollout.round import RoundSampler, evaluation_params
from reasoner.rollout.turns import TurnLimits
from reasoner.storage.files import write_text
from reasoner.storage.rows import rollout_row
from tasks import Problem
from verifiers.jsonl import json_line
from verifiers.terminal.console import plain_console

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase


class Reading(NamedTuple):
    """Tokenizer, context length and end tokens of a model, read before its weights are loaded."""

    tokenizer: PreTrainedTokenizerBase
    limit: int
    """Context length: most tokens of prompt and completion together."""
    ends: Ends


def read_tokenizer(stage: StageConfig) -> Reading:
    """Read the tokenizer of the stage's model, its context length and what ends its completions."""
    assert stage.model.path is not None
    config, tokenizer = load_config_and_tokenizer(stage.model)
    ends = ends_of(tokenizer, stage.prompt, configured_ends(stage.model.path, config))
    return Reading(tokenizer, context_limit(config, stage.model), ends)


@contextmanager
def engine_of(stage: StageConfig, limit: int) -> Generator[Engine]:
    """Start the stage's engine with its model; close it when the block ends.

    Args:
        stage: the stage, whose `model.path` must be set.
        limit: most tokens of prompt and completion together.
    """
    assert stage.model.path is not None
    dtype = str(compute_dtype(stage.model.dtype, default_device())).removeprefix("torch.")
    engine = open_engine(
        stage.engine.name,
        model_path=stage.model.path,
        dtype=dtype if stage.engine.dtype == "auto" else stage.engine.dtype,
        max_model_len=limit,
        seed=stage.seed,
        model=None,
        **stage.engine.options,
    )
    try:
        yield engine
    finally:
        engine.close()


def measure(
    stage: StageConfig, problems: Sequence[Problem], reading: Reading, engine: Engine, *, notes: Sequence[str] = ()
) -> Evaluation:
    """Sample completions of the problems, grade them and return the evaluation. `notes` are displayed first."""
    samples = stage.eval.samples
    with (
        grading_pool(stage) as pool,
        Display(stage) as display,
        display.progress(f"evaluating {len(problems)} problems", len(problems) * samples) as advance,
    ):
        for note in notes:
            display.note(note)
        rounds = RoundSampler(
            engine=engine,
            pool=pool,
            tokenizer=reading.tokenizer,
            prompt=stage.prompt,
            seed=stage.seed,
            ends=reading.ends,
            limits=TurnLimits.of(stage.rollout),
        )
        return evaluate(problems, rounds=rounds, params=evaluation_params(stage), samples=samples, on_progress=advance)


def evaluate_model(stage: StageConfig, *, output: Path | None, as_json: bool) -> Evaluation:
    """Evaluate the stage's model on its held-out problems and print the result.

    Args:
        stage: the stage, whose `model.path` must be set.
        output: folder for evals.jsonl and eval_rollouts.jsonl; None: no files are written.
        as_json: print one line of JSON instead of the table.
    """
    reading = read_tokenizer(stage)
    held_out, said = load_held_out(stage)
    fit, further = with_room(
        held_out, stage, reading.tokenizer, limit=reading.limit, setting="--max-tokens", tests=True
    )
    notes = () if as_json else (*said, *further, *([reading.ends.told] if reading.ends.told else []))
    with engine_of(stage, reading.limit) as engine:
        done = measure(stage, spread(fit, stage.eval.problems), reading, engine, notes=notes)
    _report(stage, done, as_json=as_json)
    if output is not None:
        write_rollouts(done, output)
        row = {"model": stage.model.path, "task": _tasks(stage), **done.result.to_json()}
        write_text(output / "evals.jsonl", json_line(row) + "\n")
    return done


def write_rollouts(done: Evaluation, folder: Path) -> None:
    """Write every completion of an evaluation to eval_rollouts.jsonl in `folder`, which is created if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for index, group in enumerate(done.sampled.groups) for row in rollout_row(group, index)]
    write_text(folder / "eval_rollouts.jsonl", "".join(json_line(row) + "\n" for row in rows))


def _tasks(stage: StageConfig) -> str:
    return ", ".join(section.name for section in stage.task)


def _report(stage: StageConfig, done: Evaluation, *, as_json: bool) -> None:
    console = plain_console()
    result = done.result
    if as_json:
        print(json_line({"model": stage.model.path, "task": _tasks(stage), **result.to_json()}))
        return
    console.print(f"{stage.model.path} on {_tasks(stage)}: {result.problems} problems x {result.samples}")
    for label, estimates in result.by_set():
        if label:
            console.print(f" {label[0]}")
        for name, value in estimates.items():
            as_share = ".1%" if "@" in name else ".3f"  # components and rewards can lie outside [0, 1]
            console.print(f"  {name:8} {value.value:6{as_share}}  [{value.low:{as_share}}, {value.high:{as_share}}]")
    console.print(
        f"  length {result.tokens_mean:.0f} tokens, truncated {result.truncated:.1%}, ungraded {result.ungraded}"
    )
