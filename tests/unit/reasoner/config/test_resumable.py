"""Settings that may change when a run is resumed."""

from __future__ import annotations

from typing import Any

import pytest

from reasoner.config.load import resolve
from reasoner.config.resumable import MAY_CHANGE, forbidden_changes, listed
from reasoner.config.stage import StageConfig

BASE: dict[str, Any] = {"task": "arithmetic", "model": {"path": "org/model", "lora": {"rank": 4}}, "seed": 1}


def changed(section: str, value: object) -> list[str]:
    before = resolve(BASE).stages[0]
    held = BASE.get(section)
    new = {**held, **value} if isinstance(held, dict) and isinstance(value, dict) else value
    return [change.key for change in forbidden_changes(before, resolve({**BASE, section: new}).stages[0])]


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("steps", 7),
        ("optim", {"lr": 1e-3, "schedule": "cosine", "betas": [0.9, 0.95], "updates_per_step": 2, "stop_kl": 0.1}),
        ("rollout", {"problems_per_step": 5, "group_size": 2, "max_tokens": 9, "temperature": 0.7}),
        ("eval", {"every": 3, "problems": 9}),
        ("checkpoint", {"keep": 5}),
        ("logging", {"trackers": ["wandb"]}),
        ("engine", {"name": "hf"}),
        ("processes", {"wait_seconds": 60}),
        ("batch", {"micro_tokens": 512}),
        ("model", {"gradient_checkpointing": True}),
        ("output", "elsewhere"),
    ],
)
def test_what_no_checkpoint_holds_may_change(section: str, value: object) -> None:
    assert changed(section, value) == []


@pytest.mark.parametrize(
    ("section", "value", "keys"),
    [
        ("seed", 2, ["seed"]),
        ("method", "ppo", ["method", "algorithm.advantage"]),
        ("model", {"path": "org/other"}, ["model.path"]),
        ("model", {"lora": {"rank": 8}}, ["model.lora"]),
        ("model", {"path": "org/model", "lora": None}, ["model.lora"]),
        ("task", [{"name": "arithmetic", "options": {"digits": 3}}], ["task"]),
        ("rollout", {"sampling": "difficulty", "max_tokens": 9}, ["rollout.sampling"]),
        ("algorithm", {"kl_coef": 0.1, "loss": "gspo"}, ["algorithm.loss", "algorithm.kl_coef"]),
        ("value", {"trunk": "shared", "lr": 1e-3}, ["value.trunk"]),
        ("prompt", {"system": "Be brief."}, ["prompt.system"]),
    ],
)
def test_the_rest_is_named_key_by_key(section: str, value: object, keys: list[str]) -> None:
    assert changed(section, value) == keys


def test_every_key_that_may_change_is_one_of_the_config_and_is_listed() -> None:
    for section, keys in MAY_CHANGE.items():
        fields = StageConfig.model_fields[section]
        known = getattr(fields.annotation, "model_fields", {})
        assert set(keys) <= set(known), section
    assert listed().startswith("steps, optim (lr, schedule, warmup_steps")
    assert "output" not in listed()
