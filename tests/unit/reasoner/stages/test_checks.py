"""Settings that must make a stage fail are refused before a model is loaded, and no others."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.stage import StageConfig, deep_merge
from reasoner.errors import ReasonerError
from reasoner.model.paths import ModelError
from reasoner.stages.checks import check_stage
from tasks.base import TaskError
from tasks.environments.scaffold import new_file
from verifiers.errors import VerifierError

SMALL = {"from_scratch": {"hidden_size": 16, "layers": 1, "heads": 2, "max_positions": 64}}


def stage_of(changes: Mapping[str, object]) -> StageConfig:
    base: dict[str, object] = {"task": "arithmetic", "engine": {"name": "hf"}}
    raw = deep_merge(base, changes)
    return resolve({"model": SMALL, **raw}).stages[0]


def write(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make valid and invalid files in the current folder."""
    (tmp_path / "empty").mkdir()
    for name in ("model", "reference/adapter"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / ("adapter_config.json" if "adapter" in name else "config.json")).write_text("{}")
    write(tmp_path / "pairs.jsonl", [{"prompt": "p", "chosen": "c", "rejected": "r"}] * 20)
    write(tmp_path / "bad-pairs.jsonl", [{"prompt": "p", "chosen": "c", "rejected": "r"}] * 20 + [{"prompt": "p"}])
    write(tmp_path / "demos.jsonl", [{"prompt": "p", "completion": "c"}] * 3)
    write(tmp_path / "bad-demos.jsonl", [{"prompt": "p", "completion": "c"}, {"prompt": "p", "completion": " "}])
    write(tmp_path / "no-demos.jsonl", [{"question": "p"}])
    write(tmp_path / "problems.jsonl", [{"prompt": f"{n}?", "reference": "1"} for n in range(10)])
    write(tmp_path / "ids.jsonl", [{"id": "train/1"}])
    write(tmp_path / "other-ids.jsonl", [{"id": "nobody"}])
    verdict = {"reward": 1.0, "outcome": "correct"}
    write(tmp_path / "rollouts.jsonl", [{"task": "t", "problem": "p", "verdict": verdict}])
    write(tmp_path / "principles.yaml", [[{"name": "a"}]])
    monkeypatch.setitem(sys.modules, "trackio", None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


DATASET = {"name": "dataset", "options": {"path": "problems.jsonl", "verifier": "exact"}}
DPO = {"method": "dpo", "preferences": {"train": "pairs.jsonl"}}
CONSTITUTIONAL = {"method": "constitutional"}
GOING_ON = {"ahead": 4, "during_update": "go_on"}
PINNED = {"ahead": 4, "during_update": "pin"}
ADAPTER = {"from_scratch": {"layers": 1}, "lora": {"rank": 4}}
SERVERS = {"name": "vllm-server", "options": {"urls": ["http://127.0.0.1:9"]}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": {"path": "./model", "from_scratch": None}},
        {"model": {"path": "org/name", "from_scratch": None}},
        {"task": DATASET},
        {"rollout": GOING_ON, "engine": SERVERS},
        {"rollout": PINNED, "engine": SERVERS, "model": ADAPTER},
        {"task": {**DATASET, "problems_file": "ids.jsonl"}},
        {"rollout": {"difficulty_from": "rollouts.jsonl"}},
        {"reward": {"name": "length", "options": {"soft": 5}}},
        {"watch": {"scorer": {"name": "own"}}},
        {"algorithm": {"kl_coef": 0.1, "reference": "./model"}},
        {"algorithm": {"reference": "./nowhere"}},
        {"method": "ppo", "value": {"init": "./model"}},
        {"method": "ppo", "model": SMALL | {"lora": {"rank": 2}}, "value": {"init": "./reference"}},
        {"value": {"init": "./nowhere"}},
        {"method": "ppo", "value": {"init": "./nowhere", "trunk": "shared"}},
        {"method": "sft", "sft": {"data": "demos.jsonl"}},
        {"method": "sft", "sft": {"data": "bad-demos.jsonl"}},
        {"method": "sft", "algorithm": {"loss": "no-such-loss"}},
        DPO,
        {**DPO, "preferences": {"train": "bad-pairs.jsonl"}},
        {**DPO, "method": "reward_model"},
        CONSTITUTIONAL,
    ],
    ids=str,
)
def test_a_stage_that_can_run_is_let_through(folder: Path, changes: dict[str, object]) -> None:
    check_stage(stage_of(changes), coming=None)


REFUSED: list[tuple[dict[str, object], type[Exception], str]] = [
    ({"rollout": GOING_ON}, ConfigError, r"during_update must be wait with engine.name=hf, .*Use vllm-server"),
    (
        {"rollout": GOING_ON, "engine": SERVERS, "model": ADAPTER},
        ConfigError,
        r"engine.options.lora must be merged with model.lora and rollout.during_update=go_on.* to pin",
    ),
    (
        {"rollout": PINNED, "engine": SERVERS},
        ConfigError,
        r"during_update must be go_on or wait without model.lora; got pin.*only adapters stand beside",
    ),
    (
        {"rollout": PINNED, "engine": {"name": "vllm-server", "options": {"lora": "merged"}}, "model": ADAPTER},
        ConfigError,
        r"during_update must be go_on or wait with engine.options.lora=merged; got pin",
    ),
    (
        {"rollout": PINNED, "model": ADAPTER},
        ConfigError,
        r"during_update must be wait with engine.name=hf, which has one version .*; got pin. Use vllm-server",
    ),
    (
        {"rollout": PINNED, "engine": {"name": "vllm"}, "model": ADAPTER},
        ConfigError,
        r"rollout.ahead must be 0 with engine.name=vllm",
    ),
    ({"engine": {"name": "vlm"}}, ConfigError, r"no engine 'vlm'.*Did you mean 'vllm'"),
    ({"engine": {"options": {"max_bach": 3}}}, ConfigError, r"engine 'hf'.*max_bach"),
    ({"engine": {"options": {"max_batch": "many"}}}, ConfigError, r"engine\.options of engine 'hf'.*max_batch"),
    ({"logging": {"trackers": ["trackio"]}}, ConfigError, r"logging\.trackers names trackio, which is not installed"),
    ({"algorithm": {"advantage": "grppo"}}, ConfigError, r"no advantage estimator 'grppo'.*'grpo'"),
    ({"algorithm": {"loss": "clipp"}}, ConfigError, r"clipp.*'clip'"),
    ({"algorithm": {"importance_options": {"cap": -1.0}}}, ConfigError, r"cap must be above 0; got -1"),
    ({"algorithm": {"loss_options": {"clip_hi": 1}}}, ConfigError, r"clip_hi"),
    ({"model": {"from_scratch": None}}, ModelError, r"model must have a path or from_scratch; got neither"),
    ({"model": {"path": "./empty", "from_scratch": None}}, ModelError, r"model\.path.*'\./empty' contains no config"),
    ({"model": {"path": "a/b/c", "from_scratch": None}}, ModelError, r"model\.path.*'a/b/c' does not exist"),
    (
        {"algorithm": {"kl_coef": 0.1, "reference": "./nowhere"}},
        ModelError,
        r"algorithm\.reference .*'\./nowhere' does not exist",
    ),
    ({"method": "ppo", "value": {"init": "./nowhere"}}, ModelError, r"value\.init .*'\./nowhere'"),
    (
        {"method": "ppo", "model": SMALL | {"lora": {"rank": 2}}, "value": {"init": "./model"}},
        ModelError,
        r"value\.init .*'\./model/adapter'",
    ),
    ({"reward": {"name": "lenght"}}, VerifierError, r"'lenght'.*'length'"),
    ({"watch": {"scorer": {"name": "lenght"}}}, VerifierError, r"'lenght'.*'length'"),
    ({**CONSTITUTIONAL, "constitutional": {"judge": {"name": "jugde"}}}, VerifierError, r"'jugde'"),
    ({"reward": {"name": "format", "options": {"tag": []}}}, VerifierError, r"tag"),
    ({"task": "arithmetics"}, TaskError, r"'arithmetics'.*'arithmetic'"),
    ({"task": {"name": "arithmetic", "options": {"digit": 1}}}, TaskError, r"digit"),
    ({"task": {"name": "arithmetic", "verifier": {"name": "exakt"}}}, VerifierError, r"'exakt'.*'exact'"),
    ({"task": {"name": "dataset", "options": {"path": "./no.jsonl", "verifier": "exact"}}}, TaskError, r"no\.jsonl"),
    (
        {"task": {"name": "dataset", "options": {"path": "demos.jsonl", "verifier": "exact"}}},
        ConfigError,
        r"no column 'reference'",
    ),
    ({"task": {**DATASET, "problems_file": "other-ids.jsonl"}}, ConfigError, r"problems_file other-ids.*none of which"),
    ({"rollout": {"difficulty_from": "./no.jsonl"}}, ConfigError, r"rollout\.difficulty_from: .*no\.jsonl"),
    ({"rollout": {"difficulty_from": "demos.jsonl"}}, ConfigError, r"demos\.jsonl line 1 must be a rollout"),
    (
        {**CONSTITUTIONAL, "constitutional": {"principles": "nowhere"}},
        ConfigError,
        r"constitutional\.principles 'nowhere' cannot be read",
    ),
    (
        {**CONSTITUTIONAL, "constitutional": {"principles": "principles.yaml"}},
        ConfigError,
        r"a principle must have name and text",
    ),
    ({**DPO, "dpo": {"loss": "sigmiod"}}, ConfigError, r"sigmiod.*'sigmoid'"),
    ({**DPO, "dpo": {"loss_options": {"smoothing": 1}}}, ConfigError, r"smoothing"),
    ({**DPO, "preferences": {"train": "./no.jsonl"}}, TaskError, r"no\.jsonl"),
    ({**DPO, "preferences": {"train": "demos.jsonl"}}, ConfigError, r"3 of 3 rows cannot be used"),
    (
        {**DPO, "preferences": {"train": "pairs.jsonl", "test": "demos.jsonl", "bad_rows": "stop"}},
        ConfigError,
        r"3 of 23 rows cannot be used: demos\.jsonl row 1",
    ),
    (
        {"method": "reward_model", "preferences": {"train": "bad-pairs.jsonl", "bad_rows": "stop"}},
        ConfigError,
        r"1 of 21 rows cannot be used: .*bad-pairs\.jsonl row 21",
    ),
    ({"method": "sft", "sft": {"data": "no-demos.jsonl"}}, ConfigError, r"1 of 1 rows cannot be used"),
    (
        {"method": "sft", "sft": {"data": "bad-demos.jsonl", "bad_rows": "stop"}},
        ConfigError,
        r"1 of 2 rows cannot be used: bad-demos\.jsonl row 2",
    ),
    (
        {"method": "sft", "sft": {"data": "demos.jsonl", "test": "no-demos.jsonl"}},
        ConfigError,
        r"no-demos\.jsonl row 1",
    ),
]


@pytest.mark.parametrize(("changes", "kind", "says"), REFUSED, ids=[str(changes) for changes, *_ in REFUSED])
def test_a_stage_that_cannot_run_is_refused(
    folder: Path, changes: dict[str, object], kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        check_stage(stage_of(changes), coming=None)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("", "", None),
        ('f"{__file__}:play"', '"nonesuch"', "no environment named 'nonesuch'"),
        ("demonstration=turns[-1].text if turns else None", "demonstration=None", "put the policy's last turn into"),
        ("tuple(turns[:-1])", "tuple(turns)", "has no reply: demonstration_turns must end with"),
    ],
)
def test_the_first_problems_of_a_task_of_ones_own_are_looked_at(
    folder: Path, old: str, new: str, says: str | None
) -> None:
    file = new_file("game", folder / f"game{len(new)}.py")
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new) if old else file.read_text())
    stage = stage_of({"method": "sft", "task": {"name": str(file)}, "prompt": {"reply": "inline"}})
    if says is None:
        check_stage(stage, coming=None)
        return
    with pytest.raises((ConfigError, TaskError), match=says):
        check_stage(stage, coming=None)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"path": "./run/0-sft/final", "from_scratch": None}},
        {"algorithm": {"kl_coef": 0.1, "reference": "./run/0-sft/final"}},
        {"method": "ppo", "value": {"init": "./run/0-reward_model/final"}},
        {"task": {"name": "dataset", "options": {"path": "./run/0-x/rows.jsonl", "verifier": "exact"}}},
        {"rollout": {"difficulty_from": "./run/0-grpo/rollouts.jsonl"}},
        {"method": "dpo", "preferences": {"train": "./run/0-pairs/pairs.jsonl", "test": "pairs.jsonl"}},
        {"method": "sft", "sft": {"data": "./run/0-constitutional/sft.jsonl"}},
    ],
    ids=str,
)
def test_what_an_earlier_stage_will_write_is_not_asked_for_yet(folder: Path, changes: dict[str, object]) -> None:
    stage = stage_of(changes)
    check_stage(stage, coming=Path("run"))
    for other in (None, Path("elsewhere")):
        with pytest.raises((ReasonerError, TaskError)):
            check_stage(stage, coming=other)


def test_a_scorer_whose_model_is_still_to_be_trained_is_not_made_yet(folder: Path) -> None:
    coming = folder / "run"
    changes = {"reward": {"name": "reward-model", "options": {"model": f"{coming}/0-reward_model/final"}}}
    check_stage(stage_of(changes), coming=coming)
    with pytest.raises(VerifierError, match="reward_model"):
        check_stage(stage_of(changes), coming=None)
