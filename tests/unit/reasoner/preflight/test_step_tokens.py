"""Tokens of a step computed from the local data and tokenizer, compared with those that a stage really runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.sections import ModelSection, ScratchConfig
from reasoner.config.stage import StageConfig
from reasoner.model.load import load_model
from reasoner.preflight.step_tokens import step_tokens

PROMPT, CHOSEN, REJECTED = "ask:", "a good answer", "bad"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    loaded, tokenizer = load_model(ModelSection(from_scratch=ScratchConfig(hidden_size=16, layers=1, heads=2)), seed=0)
    loaded.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    pairs = [{"prompt": PROMPT, "chosen": CHOSEN, "rejected": REJECTED, "id": str(n)} for n in range(8)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (folder / "rows.jsonl").write_text(json.dumps({"prompt": PROMPT, "completion": CHOSEN}) + "\n")
    return folder


def stage_of(folder: Path, **changes: object) -> StageConfig:
    raw = {"model": str(folder / "model"), "prompt": {"chat": "never"}, **changes}
    return resolve(raw).stages[0]


def test_sampled_rows_hold_a_prompt_for_each_group_and_whole_completions(folder: Path) -> None:
    rollout = {"problems_per_step": 3, "group_size": 4, "max_tokens": 10}
    task = {"name": "arithmetic", "options": {"digits": 2}}
    found = step_tokens(stage_of(folder, task=task, rollout=rollout))
    assert found is not None
    assert 5 < found.prompt < 100
    assert found.step == 3 * found.prompt + 12 * 10
    padded = step_tokens(stage_of(folder, task=task, rollout=rollout, batch={"layout": "padded"}))
    assert padded is not None
    assert padded.step == 12 * (found.prompt + 10)


def test_pairs_and_demonstrations_are_counted(folder: Path) -> None:
    prompt, end = len(PROMPT), 1  # a byte a token
    pair = prompt + len(CHOSEN) + end + len(REJECTED) + end
    for method in ("reward_model", "dpo"):
        stage = stage_of(
            folder, method=method, preferences={"train": str(folder / "pairs.jsonl"), "held_out_share": 0},
            **{method: {"pairs_per_step": 5}},
        )  # fmt: skip
        assert step_tokens(stage) == (0, 5 * pair)
    halves = {"rows_per_step": 6, "split_pairs": True}
    split = stage_of(folder, method="kto", preferences={"train": str(folder / "pairs.jsonl")}, kto=halves)
    assert step_tokens(split) == (0, 6 * pair / 2)
    labelled = [{"prompt": PROMPT, "completion": CHOSEN, "label": bool(n % 2)} for n in range(4)]
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    single = stage_of(
        folder, method="kto", preferences={"train": str(folder / "labelled.jsonl")}, kto={"rows_per_step": 6}
    )
    assert step_tokens(single) == (0, 6 * (prompt + len(CHOSEN) + end))
    rows = stage_of(folder, method="sft", sft={"data": str(folder / "rows.jsonl"), "rows_per_step": 7})
    assert step_tokens(rows) == (0, 7 * (prompt + len(CHOSEN) + end))
    demonstrated = step_tokens(stage_of(folder, method="sft", task="arithmetic", sft={"rows_per_step": 7}))
    assert demonstrated is not None
    assert demonstrated.step > 7 * 10


def test_a_prompt_that_the_template_refuses_is_told_before_a_run(folder: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    )
    model = {"path": str(folder / "model"), "chat_template": str(template)}
    prompt = {"chat": "always", "system": "Be brief."}
    task = {"name": "arithmetic", "options": {"digits": 2}}
    with pytest.raises(ConfigError, match=r"problem .*System role not supported.*prompt\.system_in"):
        step_tokens(stage_of(folder, model=model, prompt=prompt, task=task))
    assert step_tokens(stage_of(folder, model=model, prompt=prompt | {"system_in": "user"}, task=task)) is not None


def test_what_is_not_on_this_disk_is_not_looked_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("looked up")

    monkeypatch.setattr("reasoner.preflight.step_tokens.shaped_rows", refuse)
    monkeypatch.setattr("reasoner.preflight.step_tokens.preferences_in", refuse)
    monkeypatch.setattr("reasoner.preflight.step_tokens.render", refuse)
    assert step_tokens(stage_of(folder, task="gsm8k")) is None
    assert step_tokens(stage_of(folder, method="sft", sft={"data": "org/rows"})) is None
    assert step_tokens(stage_of(folder, method="dpo", preferences={"train": "org/pairs"})) is None
    assert step_tokens(resolve({"task": "arithmetic", "model": "org/Model-7B"}).stages[0]) is None
