"""The hf engine reads a turn once: the next turn of an episode continues from its keys and values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from reasoner.config.sections import ModelSection, ScratchConfig
from reasoner.engine import hf
from reasoner.engine.hf import HfEngine
from reasoner.model.load import load_model
from reasoner.records import Completion, Request, SamplingParams

PARAMS = SamplingParams(max_tokens=6)


class Watched:
    """An engine on a shared model, and the widths of the passes over several tokens."""

    def __init__(self, engine: HfEngine) -> None:
        self.engine = engine
        self.widths: list[int] = []
        engine.model.get_decoder().register_forward_pre_hook(self._saw, with_kwargs=True)

    def _saw(self, _: object, __: object, given: dict[str, Any]) -> None:
        if given["input_ids"].shape[1] > 1:
            self.widths.append(given["input_ids"].shape[1])

    def sampled(self, requests: list[Request]) -> list[Completion]:
        """Sample requests; the widths begin anew."""
        self.widths.clear()
        return [done for _, done in sorted(self.engine.generate(requests, PARAMS))]


@pytest.fixture(params=["sdpa", "eager"])
def watched(tmp_path: Path, request: pytest.FixtureRequest) -> Watched:
    shape = ScratchConfig(hidden_size=32, layers=2, heads=2, max_positions=512)
    model, tokenizer = load_model(ModelSection(from_scratch=shape), seed=0)
    model.set_attn_implementation(request.param)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return Watched(HfEngine(model_path=str(tmp_path), max_model_len=256, model=model.eval(), max_batch=4))


def first(count: int, *, continued: bool = True) -> list[Request]:
    """First turns: some share their prompt, and all have lengths of their own."""
    prompts = [tuple(range(5, 25 + 3 * (number // 2))) for number in range(count)]
    return [Request(prompt_ids=ids, seed=number, continued=continued) for number, ids in enumerate(prompts)]


def later(requests: list[Request], pieces: list[Completion], lengths: list[int]) -> list[Request]:
    """Second turns, behind replies of these lengths."""
    return [
        Request(prompt_ids=(*one.prompt_ids, *piece.token_ids, *range(30, 30 + length)), seed=100 + number)
        for number, (one, piece, length) in enumerate(zip(requests, pieces, lengths, strict=True))
    ]


def gap(engine: HfEngine, request: Request, done: Completion) -> float:
    """The largest difference to one pass over prompt and completion."""
    scored = engine.score([*request.prompt_ids, *done.token_ids])[len(request.prompt_ids) - 1 :]
    return max(abs(mine - theirs) for mine, theirs in zip(done.rollout_logprobs, scored, strict=True))


def test_a_continued_turn_reads_only_what_is_new_and_samples_the_same(watched: Watched) -> None:
    requests = first(4)
    pieces = watched.sampled(requests)
    second = later(requests, pieces, [1, 0, 9, 4])
    found = watched.sampled(second)
    assert watched.widths == [10], "the longest reply and the last token sampled, in one pass"
    assert max(gap(watched.engine, one, done) for one, done in zip(second, found, strict=True)) < 1e-5
    watched.engine.load_weights([], 1)  # as after an update: everything is read again
    again = watched.sampled(second)
    assert watched.widths[0] > 30
    assert [done.token_ids for done in again] == [done.token_ids for done in found]


def test_kept_and_new_prompts_go_together_also_when_slots_are_few(watched: Watched) -> None:
    requests = first(10)
    pieces = watched.sampled(requests)
    second = later(requests, pieces, [3, 1, 4, 1, 5, 9, 2, 6, 5, 3])
    strangers = [Request(prompt_ids=tuple(range(40, 48 + n)), seed=7 + n) for n in range(5)]
    mixed = [one for pair in zip(second, [*strangers, *second[:5]], strict=True) for one in pair]
    found = watched.sampled(mixed)
    assert max(gap(watched.engine, one, done) for one, done in zip(mixed, found, strict=True)) < 1e-5


@pytest.mark.parametrize("why", ["not continued", "weights", "no memory", "one call later", "other tokens", "own copy"])
def test_what_may_not_be_used_is_not_used(watched: Watched, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    if why == "no memory":
        monkeypatch.setattr(hf, "KEPT_BYTES", 100)
    if why == "own copy":  # other threads may ask it in between
        folder = watched.engine.tokenizer.name_or_path
        watched = Watched(HfEngine(model_path=folder, max_model_len=256))
    requests = first(4, continued=why != "not continued")
    pieces = watched.sampled(requests)
    if why == "weights":
        with torch.no_grad():
            for weight in watched.engine.model.parameters():
                weight.mul_(1.5)
        watched.engine.load_weights([], 1)
    if why == "one call later":
        watched.sampled(first(1))
    if why == "other tokens":
        requests = [Request(prompt_ids=(4, *one.prompt_ids[1:]), seed=one.seed) for one in requests]
    second = later(requests, pieces, [2, 2, 2, 2])
    found = watched.sampled(second)
    assert watched.widths[0] > 25
    assert max(gap(watched.engine, one, done) for one, done in zip(second, found, strict=True)) < 1e-5
