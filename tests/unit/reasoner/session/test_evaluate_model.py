"""Evaluation of a model outside a run: its metrics, recomputed from the completions that it writes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch

from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.sections import ModelSection, ScratchConfig
from reasoner.config.stage import StageConfig
from reasoner.model.load import load_model
from reasoner.session.evaluate_model import evaluate_model
from tasks.registry import get_task

SAMPLES = 3


PARITY = """
def even(*, completion: str, reference: str) -> bool:
    return len(completion.encode()) % 2 == 0
"""
"""A verifier that an untrained model satisfies half the time."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    shape = ScratchConfig(hidden_size=32, layers=1, heads=2, max_positions=64)
    loaded, tokenizer = load_model(ModelSection(from_scratch=shape), seed=3)
    loaded.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "parity.py").write_text(PARITY)
    return tmp_path / "model"


def stage_of(model: Path, *, max_tokens: int = 12, **section: object) -> StageConfig:
    raw = {
        "model": {"path": str(model)},
        "seed": 5,
        "task": {
            "name": "arithmetic",
            "options": {"digits": 2},
            "verifier": {"name": f"{model.parent}/parity.py:even"},
        },
        "rollout": {"max_tokens": max_tokens},
        "prompt": {"chat": "never"},
        "eval": {"problems": 4, "samples": SAMPLES, **section},
        "engine": {"name": "hf"},
    }
    return resolve(raw).stages[0]


def rows(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_the_figures_are_those_of_the_completions(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = evaluate_model(stage_of(model), output=tmp_path / "out", as_json=True)
    found = rows(tmp_path / "out", "eval_rollouts.jsonl")
    asked = get_task("arithmetic", digits=2).problems("test")[:4]
    assert [(row["group"], row["sample"]) for row in found] == [(g, s) for g in range(4) for s in range(SAMPLES)]
    assert [row["prompt"] for row in found] == [problem.prompt for problem in asked for _ in range(SAMPLES)]
    assert all(row["reward"] == float(len(row["completion"].encode()) % 2 == 0) for row in found)

    right = [[row["reward"] for row in found if row["group"] == group] for group in range(4)]
    assert 0 < sum(map(sum, right)) < 4 * SAMPLES
    pairs = [[max(pair) for pair in itertools.combinations(rewards, 2)] for rewards in right]
    expected = {
        f"avg@{SAMPLES}": sum(map(sum, right)) / (4 * SAMPLES),
        "pass@1": sum(map(sum, right)) / (4 * SAMPLES),
        "pass@2": sum(sum(group) / len(group) for group in pairs) / 4,
    }
    estimates = {name: estimate.value for name, estimate in done.result.estimates.items()}
    assert {name: estimates[name] for name in expected} == pytest.approx(expected)
    assert done.result.tokens_mean == sum(row["tokens"] for row in found) / len(found)
    assert done.result.truncated == sum(row["finish_reason"] == "length" for row in found) / len(found)

    (line,) = rows(tmp_path / "out", "evals.jsonl")
    assert line == json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line == {"model": str(model), "task": "arithmetic", **done.result.to_json()}


def test_what_is_sampled_is_the_model_of_the_folder(model: Path, tmp_path: Path) -> None:
    evaluate_model(stage_of(model, temperature=0.7), output=tmp_path / "out", as_json=True)
    loaded, _ = load_model(ModelSection(path=str(model)), seed=0)
    found = rows(tmp_path / "out", "eval_rollouts.jsonl")
    assert len({tuple(row["token_ids"]) for row in found}) == len(found), "every sample has a seed of its own"
    for row in found:
        ids = torch.tensor([row["prompt_ids"] + row["token_ids"]])
        with torch.no_grad():
            scores = (loaded(ids).logits[0, :-1] / 0.7).log_softmax(-1)
        expected = scores.gather(1, ids[0, 1:, None])[len(row["prompt_ids"]) - 1 :, 0].tolist()
        assert row["rollout_logprobs"] == pytest.approx(expected, abs=1e-4)


def test_it_says_the_figures_in_words_and_writes_only_where_asked(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = evaluate_model(stage_of(model), output=None, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    value = done.result.estimates[f"avg@{SAMPLES}"]
    assert f"{model} on arithmetic: 4 problems x {SAMPLES}" in lines
    assert f"  {'avg@3':8} {value.value:6.1%}  [{value.low:.1%}, {value.high:.1%}]" in lines
    assert sorted(tmp_path.rglob("*")) == before


def test_a_prompt_without_room_for_an_answer_is_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"--max-tokens"):
        evaluate_model(stage_of(model, max_tokens=62), output=None, as_json=True)
