from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from reasoner.config.errors import ConfigError
from reasoner.config.hints import OTHER_NAMES
from reasoner.config.load import dump, load_config, resolve, shipped_configs


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_every_shipped_config_loads_and_round_trips(name: str) -> None:
    for stage in load_config(name).stages:
        assert resolve(__import__("yaml").safe_load(dump(stage))).stages[0] == stage


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_the_commands_in_a_configs_notes_are_valid(name: str) -> None:
    for command in re.findall(r"^# +reasoner train (.+)$", shipped_configs()[name].read_text(), flags=re.MULTILINE):
        config, *overrides = command.partition("   ")[0].split()
        assert Path(config).stem == name
        load_config(name, overrides)


@pytest.mark.parametrize(
    ("override", "code", "says"),
    [
        ("optim.lrr=1", "unknown-key", "'optim.lrr'. Did you mean 'lr'?"),
        ("tasks=gsm8k", "unknown-key", "Did you mean 'task'?"),
        ("lr=1e-6", "unknown-key", "Did you mean 'optim.lr' or 'value.lr'?"),
        (
            "algorithm.beta=0.1",
            "unknown-key",
            "Did you mean 'algorithm.kl_coef' or 'gkd.beta' or 'dpo.beta' or 'kto.beta'?",
        ),
        ("rollout.num_generations=8", "unknown-key", "Did you mean 'rollout.group_size'?"),
        ("model.name=x", "unknown-key", "Known here: path, tokenizer, "),
        ("rollout.group_size=0", "bad-value", "rollout.group_size"),
        ("rollout.group_size=1", "bad-value", "group_size must be >= 2 to centre rewards; got 1"),
        ("rollout.top_p=0.9", "bad-value", "biases every importance ratio"),
        ("rollout.top_k=50", "bad-value", "biases every importance ratio"),
        ("eval.problems=many", "bad-value", "eval.problems"),
        ("optim.lr=-1", "bad-value", "optim.lr"),
        ("prompt.template=hello", "bad-value", "must contain {prompt}"),
        ("nonsense", "bad-override", "must be key=value"),
        ("stages.7.steps=1", "bad-override", "only 2 stages"),
    ],
)
def test_bad_overrides_say_what_to_do(override: str, code: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("quickstart", [override])
    assert caught.value.code == code
    assert says in str(caught.value)


def test_missing_config_suggests_the_closest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'quickstart'"):
        load_config("quickstrat")


def test_override_wins_in_every_stage_it_names() -> None:
    run = load_config("quickstart", ["seed=7", "grpo.optim.lr=2e-4", "stages.0.optim.lr=3e-4"])
    assert [stage.seed for stage in run.stages] == [7, 7]
    assert [stage.optim.lr for stage in run.stages] == [3e-4, 2e-4]


def test_a_method_that_is_a_section_too_takes_both_kinds_of_override() -> None:
    run = load_config("quickstart", ["sft.steps=11", "sft.rows_per_step=12"])
    assert [stage.steps for stage in run.stages] == [11, 70]
    assert run.stages[0].sft.rows_per_step == 12
    with pytest.raises(ConfigError, match="no stage has that method; the stages are sft, grpo"):
        load_config("quickstart", ["ppo.steps=3"])


def test_model_override_names_the_first_stage_alone() -> None:
    run = resolve({"task": "gsm8k", "model": "a/b", "stages": [{"method": "sft"}, {"method": "grpo"}]}, ["model=c/d"])
    assert run.stages[0].model.path == "c/d"
    assert run.starts_fresh == (True, False)


def test_model_override_keeps_how_the_file_holds_it() -> None:
    raw = {"task": "gsm8k", "model": {"from_scratch": {}, "lora": {"rank": 4}}}
    model = resolve(raw, ["model=c/d"]).stages[0].model
    assert (model.path, model.from_scratch, model.lora and model.lora.rank) == ("c/d", None, 4)


def test_task_shorthands() -> None:
    run = resolve({"task": ["gsm8k", {"name": "countdown", "weight": 2}]})
    assert [(task.name, task.weight) for task in run.stages[0].task] == [("gsm8k", 1.0), ("countdown", 2.0)]


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(ConfigError("bad-value", "message")))
    assert (error.code, str(error)) == ("bad-value", "message")


def test_an_override_of_a_later_stages_model_starts_it_there() -> None:
    raw = {"task": "gsm8k", "stages": [{"method": "sft", "model": "a"}, {"method": "grpo"}]}
    assert resolve(raw).starts_fresh == (True, False)
    assert resolve(raw, ["stages.1.model.path=b"]).starts_fresh == (True, True)
    run = resolve(raw, ["model.path=b"])
    assert run.starts_fresh == (True, False)
    assert [stage.model.path for stage in run.stages] == ["b", None]


def test_names_of_other_trainers_lead_to_keys_that_there_are() -> None:
    unknown: list[str] = []
    for name in OTHER_NAMES.values():
        try:
            load_config("quickstart", [f"{name}=no value of it"])
        except ConfigError as error:
            unknown += [name] if error.code != "bad-value" else []
    assert unknown == []
    assert {"optim.lr", "rollout.group_size"} <= set(OTHER_NAMES.values())


def test_every_round_of_a_repeat_has_a_seed_of_its_own() -> None:
    """Else each round would sample the same problems with the same random numbers."""
    stages: list[dict[str, object]] = [{"method": "sft"}, {"repeat": 3, "stages": [{"method": "pairs"}, {"seed": 5}]}]
    raw: dict[str, object] = {"task": "topics", "model": "m", "stages": stages}
    assert [stage.seed for stage in resolve(raw).stages] == [0, 0, 5, 1000, 1005, 2000, 2005]
    assert [stage.seed for stage in resolve(raw, ["seed=7"]).stages] == [7, 7, 7, 1007, 1007, 2007, 2007]
    with pytest.raises(ConfigError, match="seed"):
        resolve(raw, ["seed=many"])


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ('["stages:pairs", "b.jsonl"]', ["stages:pairs", "b.jsonl"]),
        ("stages:pairs", ["stages:pairs"]),
        ("[odd].jsonl", ["[odd].jsonl"]),
    ],
)
def test_an_override_of_a_list_of_texts(given: str, found: list[str]) -> None:
    assert load_config("quickstart", [f"preferences.train={given}"]).stages[0].preferences.train == found
    stage = load_config("quickstart", ['grading.nodes=["http://10.0.0.3:8800"]', 'prompt.stop=["x", "1"]']).stages[0]
    assert (stage.grading.nodes, stage.prompt.stop) == (["http://10.0.0.3:8800"], ["x", "1"])
    assert load_config("quickstart", ["prompt.system=[x]"]).stages[0].prompt.system == "[x]"
