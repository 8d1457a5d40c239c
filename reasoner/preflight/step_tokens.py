"""Token counts of a step's rows, if the model's tokenizer and the data are on this disk. Nothing is downloaded."""

from __future__ import annotations

import inspect
import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner.config.methods import METHODS
from reasoner.config.sections import TaskSection
from reasoner.config.stage import StageConfig
from reasoner.data.demonstrations import demonstrations_in, encode_problems, encode_row
from reasoner.data.encode import encode
from reasoner.data.pairs import encode_pairs
from reasoner.data.preferences import pair_of, preferences_in
from reasoner.data.problems import read_problems
from reasoner.data.prompt import render
from reasoner.data.rows import shaped_rows
from reasoner.data.unpaired import labelled_of, unpaired_in
from reasoner.model.load import load_config_and_tokenizer
from reasoner.preflight.memory import StepTokens
from tasks.base import Problem, TaskError, UnusableRow
from tasks.inputs import is_local
from tasks.registry import get_task

LOOKED_AT = 64
"""Number of rows or problems read from each source."""
NO_LIMIT = 1 << 40


def step_tokens(stage: StageConfig) -> StepTokens | None:
    """Count the tokens of a step's update (the maximum, if completions are sampled); None if this is unknown here.

    Raises:
        ConfigError: the chat template rejects a problem's prompt.
    """
    if stage.model.path is None or not Path(stage.model.path).is_dir():
        return None
    data = METHODS[stage.method].learns_from
    of_preferences = METHODS[stage.method].learns_from_preferences
    files = stage.preferences.train if of_preferences else stage.sft.data if data == "demonstrations" else []
    if not all(is_local(path) for path in files) or (not files and not all(map(_is_here, stage.task))):
        return None
    if data in ("rewards", None):
        return _sampled(stage)
    try:
        if data == "pairs":
            return StepTokens(0, stage.rows_per_step * statistics.fmean(_pairs(stage)))
        if data == "unpaired":
            return StepTokens(0, stage.rows_per_step * statistics.fmean(_labelled(stage)))
        return StepTokens(0, stage.rows_per_step * statistics.fmean(_demonstrations(stage)))
    except (TaskError, UnusableRow, OSError, ValueError):
        return None  # the code that needs the data reports the error


def _sampled(stage: StageConfig) -> StepTokens:
    rollout = stage.rollout
    longest = max(len(prompt.ids) for prompt in render(_problems(stage), _tokenizer(stage), stage.prompt))
    rows = rollout.problems_per_step * rollout.group_size
    # without padding, the prompt of a group appears once
    prompts = rows if stage.batch.layout == "padded" else rollout.problems_per_step
    return StepTokens(longest, prompts * longest + rows * rollout.max_tokens)


def _pairs(stage: StageConfig) -> Iterator[int]:
    section = stage.preferences
    rows = itertools.islice(shaped_rows(preferences_in(section, "train", section.train)), LOOKED_AT)
    pairs = [pair_of(row, section, where=where) for where, row in rows if not isinstance(row, ValueError)]
    for encoded in encode_pairs(pairs, _tokenizer(stage), stage.prompt, limit=NO_LIMIT)[0]:
        shared = 0 if stage.batch.layout == "padded" else len(encoded.first.prompt_ids)
        yield len(encoded.first) + len(encoded.second) - shared


def _labelled(stage: StageConfig) -> Iterator[float]:
    if stage.kto.split_pairs:
        yield from (tokens / 2 for tokens in _pairs(stage))
        return
    section, tokenizer = stage.preferences, _tokenizer(stage)
    rows = itertools.islice(shaped_rows(unpaired_in(section, "train", section.train)), LOOKED_AT)
    for where, row in rows:
        if not isinstance(row, ValueError):
            one = labelled_of(row, where=where)
            yield len(encode(one.prompt, one.completion, tokenizer, stage.prompt, name=where))


def _demonstrations(stage: StageConfig) -> Iterator[int]:
    tokenizer = _tokenizer(stage)
    if stage.sft.data:
        for path in stage.sft.data:
            rows = shaped_rows(demonstrations_in(stage.sft, "train", [path]))
            for where, row in itertools.islice(rows, LOOKED_AT):
                if not isinstance(row, ValueError):
                    yield len(encode_row(row, tokenizer, stage.prompt, where=where))
    else:
        for row in encode_problems(_problems(stage), tokenizer, stage.prompt, limit=NO_LIMIT).rows:
            yield len(row)


def _tokenizer(stage: StageConfig) -> PreTrainedTokenizerBase:
    return load_config_and_tokenizer(stage.model)[1]


def _problems(stage: StageConfig) -> list[Problem]:
    return [
        problem
        for section in stage.task
        for problem in read_problems(section, section.train_split, most=LOOKED_AT).problems
    ]


def _is_here(section: TaskSection) -> bool:
    """Return True if a task generates its problems, or reads them from this disk."""
    path = section.options.get("path")
    if isinstance(path, str | list):
        return all(isinstance(one, str) and is_local(one) for one in (path if isinstance(path, list) else [path]))
    return "path" not in inspect.signature(type(get_task(section.name, **section.options))).parameters
