"""Settings that are valid one by one but contradict each other, or name missing things, are refused before sampling."""

from __future__ import annotations

import json
import re
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from reasoner.algorithm.objective import check_algorithm
from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.model.paths import ModelError
from reasoner.session.opening import open_session
from reasoner.stages.checks import check_run
from reasoner.stages.pipeline import run_pipeline
from tasks import TaskError
from verifiers.errors import VerifierError

TINY = {"task": "arithmetic", "model": {"from_scratch": {}}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt": {"stop": [""]}}, "stop string"),
        ({"eval": {"max_tokens": 0}}, "eval.max_tokens"),
        ({"algorithm": {"overlong_penalty_tokens": 9}, "rollout": {"max_tokens": 8}}, "overlong_penalty_tokens"),
        ({"rollout": {"sampling": "difficulty", "shuffle": False}}, "leave shuffle out"),
        ({"optim": {"betas": [2.0, 3.0]}}, "betas"),
        ({"rollout": {"temperature": 0}}, "copies of each other"),
        ({"rollout": {"temperature": -1}}, "rollout.temperature"),
        ({"optim": {"lr": float("inf")}}, "optim.lr"),
        ({"seed": 10**30}, "seed"),
        ({"model": {"from_scratch": {"heads": 4, "kv_heads": 3}}}, "kv_heads must divide heads"),
        ({"model": {"from_scratch": {"hidden_size": 12, "heads": 4}}}, "must be even"),
        ({"stages": []}, "at least one"),
    ],
)
def test_a_value_that_leads_nowhere_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve({**TINY, **change})


@pytest.mark.parametrize(
    ("algorithm", "says"),
    [
        ({"advantage": "grpoo"}, "Did you mean 'grpo'"),
        ({"loss": "clp"}, "Did you mean 'clip'"),
        ({"importance": "tru"}, "no importance correction"),
        ({"loss_options": {"x": 1}}, "no option 'x'"),
        ({"loss_options": {"clip_low": "a"}}, "algorithm: "),
        ({"advantage_options": {"x": 1}}, "'x'"),
        ({"importance_options": {"cap": "a"}}, "algorithm: "),
        ({"importance_options": {"cap": -1.0}}, "cap must be above 0"),
        ({"importance": "truncated_sequence", "importance_options": {"cap": 0}}, "cap must be above 0"),
        ({"importance": "masked_sequence", "importance_options": {"cap": -1}}, "cap must be above 0"),
        ({"importance": "masked", "importance_options": {"low": 2.0, "high": 1.0}}, "0 <= low < high"),
        ({"loss": "cispo", "loss_options": {"ratio_max": -2}}, "ratio_max must be above 0"),
    ],
)
def test_a_wrong_algorithm_is_refused_before_the_model_is_loaded(algorithm: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_algorithm(resolve({**TINY, "algorithm": algorithm}).stages[0])


@pytest.mark.parametrize("advantage", ["grpo", "dr_grpo", "rloo", "rejection", "reinforce_pp", "gae"])
@pytest.mark.parametrize("loss", ["clip", "gspo", "cispo", "reinforce"])
def test_every_algorithm_passes_its_check(advantage: str, loss: str) -> None:
    algorithm = {"advantage": advantage, "loss": loss, "kl_coef": 0.1, "entropy_coef": 0.1}
    for kl_in in ("loss", "reward"):
        check_algorithm(resolve({**TINY, "algorithm": {**algorithm, "kl_in": kl_in}}).stages[0])


REWARD = {"verifier": "reward-model", "weight": 1.0, "options": {"model": "a/b", "disagreement": "x"}}
LATER: dict[str, dict[str, object]] = {
    "no file or folder 'gone.jsonl'": {"method": "sft", "sft": {"data": "gone.jsonl"}},
    "no file or folder 'lost.jsonl'": {"method": "sft", "sft": {"data": "GOOD", "test": "lost.jsonl"}},
    "no value in column 'completion'": {"method": "sft", "sft": {"data": "PAIRS"}},
    "row 1: must be JSON": {"method": "sft", "sft": {"data": "BROKEN"}},
    "no file or folder 'away.jsonl'": {"method": "dpo", "preferences": {"train": "away.jsonl"}},
    "no value in column 'chosen'": {"method": "reward_model", "preferences": {"train": "GOOD"}},
    "Did you mean 'hinge'": {"method": "dpo", "preferences": {"train": "PAIRS"}, "dpo": {"loss": "hing"}},
    "has no option 'x'": {"method": "dpo", "preferences": {"train": "PAIRS"}, "dpo": {"loss_options": {"x": 1}}},
    "a reward model must be": {"reward": {"name": "reward-model", "options": {"model": "./no-rm"}}},
    "value.init must be": {"method": "ppo", "value": {"init": "./no-value"}},
    "algorithm.reference must be": {"algorithm": {"kl_coef": 0.1, "reference": "./no-reference"}},
    "model.path must be": {"model": "./no-model"},
    "no verifier named 'exat'": {"watch": {"scorer": {"name": "exat"}}},
    "option 'disagreement'": {"watch": {"scorer": {"name": "weighted", "options": {"parts": [REWARD]}}}},
    "logging.trackers names trackio": {"logging": {"trackers": ["trackio"]}},
    "no engine 'vlm'. Did you mean 'vllm'": {"engine": {"name": "vlm"}},
    "has no option 'max_bach'. Did you mean 'max_batch'": {"engine": {"name": "hf", "options": {"max_bach": 1}}},
    "has no option 'dtype'": {"engine": {"name": "hf", "options": {"dtype": "float32"}}},
    "option 'max_batch': Input should be": {"engine": {"name": "hf", "options": {"max_batch": "all"}}},
    "rollout.difficulty_from": {"rollout": {"difficulty_from": "gone.jsonl"}},
    "principles 'kindness' cannot be read": {"method": "constitutional", "constitutional": {"principles": "kindness"}},
    "task.problems_file": {"task": {"name": "dataset", "options": "DATASET", "problems_file": "gone.jsonl"}},
    "has no column 'question'": {"task": {"name": "dataset", "options": "OTHER"}},
    "unknown option 'digit'": {"task": {"name": "arithmetic", "options": {"digit": 2}}},
}
"""Return the fault of the second stage of a run."""


@pytest.mark.parametrize("says", list(LATER))
def test_what_a_later_stage_lacks_is_found_before_the_first_begins(
    says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"prompt": "1+1?", "completion": "2", "reference": "2"}
    (tmp_path / "good.jsonl").write_text("".join(json.dumps(good) + "\n" for _ in range(10)))
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n")
    (tmp_path / "broken.jsonl").write_text("{")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "trackio", None)
    dataset = {"path": "good.jsonl", "verifier": "math"}
    text = json.dumps(LATER[says])
    for mark, value in (("GOOD", "good.jsonl"), ("PAIRS", "pairs.jsonl"), ("BROKEN", "broken.jsonl")):
        text = text.replace(mark, value)
    text = text.replace('"DATASET"', json.dumps(dataset))
    text = text.replace('"OTHER"', json.dumps({**dataset, "prompt_column": "question"}))
    raw = {**TINY, "output": "run", "stages": [{"method": "sft", "sft": {"data": "good.jsonl"}}, json.loads(text)]}
    with pytest.raises((ConfigError, ModelError, TaskError, VerifierError), match=re.escape(says)):
        run_pipeline(resolve(raw), resume=False)
    assert not (tmp_path / "run").exists()


def test_what_an_earlier_stage_will_write_is_not_missing(tmp_path: Path) -> None:
    reward = {"name": "reward-model", "options": {"model": "stage:reward_model"}}
    pairs = {"method": "reward_model", "preferences": {"train": "stage:pairs"}}
    ppo = {"method": "ppo", "reward": reward, "value": {"init": "stage:reward_model"}, "watch": {"scorer": reward}}
    check_run(resolve({**TINY, "output": str(tmp_path / "run"), "stages": [{"method": "pairs"}, pairs, ppo]}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"eval": {"max_tokens": 500}}, "plus eval.max_tokens=500 must fit the context of 64"),
        ({"rollout": {"max_tokens": 500}}, "plus rollout.max_tokens=500 must fit"),
        ({"method": "sft", "rollout": {"max_tokens": 500}}, "plus rollout.max_tokens=500 must fit"),
        ({"method": "sft", "rollout": {"max_tokens": 500}, "eval": {"problems": 0}}, None),
        ({"method": "sft", "rollout": {"max_tokens": 500}, "eval": {"max_tokens": 8}}, None),
    ],
)
def test_a_completion_that_does_not_fit_names_its_own_setting(
    change: dict[str, object], says: str | None, tmp_path: Path
) -> None:
    raw = {"task": "arithmetic", "model": {"from_scratch": {"hidden_size": 32, "layers": 1, "heads": 1}}}
    raw["model"] |= {"max_context": 64}
    raw |= {"rollout": {"max_tokens": 8}, "engine": {"name": "hf"}, "logging": {"tensorboard": False}, **change}
    refused = nullcontext() if says is None else pytest.raises(ConfigError, match=re.escape(says))
    with refused, open_session(resolve(raw).stages[0], tmp_path, resume=False):
        pass


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"rollout": {"group_size": 1}, "method": "ppo"},
            "needs a group; got rollout.group_size 1",
        ),
        ({"algorithm": {"advantage": "rejection"}}, "rejection compares them with a threshold"),
        ({}, None),
        ({"method": "ppo", "rollout": {"group_size": 4}}, None),
    ],
)
def test_components_are_normalized_where_there_is_a_group(
    change: dict[str, dict[str, object]], says: str | None
) -> None:
    algorithm = {"normalize_components": True, **change.get("algorithm", {})}
    refused = nullcontext() if says is None else pytest.raises(ConfigError, match=re.escape(says))
    with refused:
        resolve({**TINY, **change, "algorithm": algorithm})
