from __future__ import annotations

import inspect
import pkgutil
import re
from pathlib import Path
from typing import get_args

import pytest

from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.methods import METHODS, MethodName

ROOT = Path(__file__).resolve().parents[4]


def test_the_table_has_every_method_that_a_config_may_name() -> None:
    assert set(METHODS) == set(get_args(MethodName))


@pytest.mark.parametrize("name", list(METHODS))
def test_what_a_method_runs_and_checks_is_there_and_takes_one_argument(name: str) -> None:
    for target in filter(None, (METHODS[name].run, METHODS[name].check)):
        assert len(inspect.signature(pkgutil.resolve_name(target)).parameters) == 1, target


def test_nothing_compares_the_name_of_a_method() -> None:
    pattern = re.compile(r"\bmethod (==|!=|in|not in) |(?<!scope)\[\"method\"\] (==|!=)")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / "reasoner").rglob("*.py")
        for line in path.read_text().splitlines()
        if pattern.search(line) and not line.strip().startswith(("#", '"'))
    ]
    assert not found


def test_centred_rewards_need_a_group() -> None:
    tiny = {"task": "arithmetic", "model": {"from_scratch": {}}, "rollout": {"group_size": 1}}
    for advantage in ("grpo", "reinforce_pp_baseline"):
        with pytest.raises(ConfigError, match="group_size must be >= 2 to centre rewards; got 1"):
            resolve({**tiny, "algorithm": {"advantage": advantage}})
    resolve({**tiny, "algorithm": {"advantage": "reinforce_pp"}})
    resolve({**tiny, "method": "pairs"})


def test_a_config_of_an_older_run_may_hold_the_cuts_that_cut_nothing() -> None:
    tiny = {"task": "arithmetic", "model": {"from_scratch": {}}}
    (old,) = resolve({**tiny, "rollout": {"top_p": 1.0, "top_k": 0, "group_size": 4}}).stages
    (new,) = resolve({**tiny, "rollout": {"group_size": 4}}).stages
    assert old == new


def test_defaults_of_ppo_give_way_to_the_file() -> None:
    tiny = {"task": "arithmetic", "model": {"from_scratch": {}}, "method": "ppo"}
    (stage,) = resolve(tiny).stages
    assert (stage.algorithm.advantage, stage.rollout.group_size) == ("gae", 1)
    (stage,) = resolve({**tiny, "rollout": {"group_size": 4}}).stages
    assert (stage.algorithm.advantage, stage.rollout.group_size) == ("gae", 4)


@pytest.mark.parametrize(
    ("change", "learning", "engine"),
    [
        ({"method": "grpo"}, True, True),
        ({"method": "pairs"}, True, True),
        ({"method": "sft"}, False, True),
        ({"method": "sft", "eval": {"problems": 0}}, False, False),
        ({"method": "sft", "sft": {"until_accuracy": 0.5}, "eval": {"problems": 0}}, True, True),
        ({"method": "reward_model", "preferences": {"train": "p.jsonl"}}, False, False),
        ({"method": "dpo", "preferences": {"train": "p.jsonl"}}, False, True),
        ({"method": "kto", "preferences": {"train": "p.jsonl"}}, False, True),
    ],
)
def test_who_samples(change: dict[str, object], learning: bool, engine: bool) -> None:
    (stage,) = resolve({"task": "arithmetic", "model": {"from_scratch": {}}, **change}).stages
    assert (stage.samples_to_learn, stage.needs_engine) == (learning, engine)
