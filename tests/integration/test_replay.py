"""Replay repeats the updates of a run bit for bit, whatever the run's settings, and notices edited rollouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasoner.config.load import load_config
from reasoner.stages.pipeline import run_pipeline, run_replay
from reasoner.storage.files import RunError
from tests.integration.test_resume import write_config
from tests.integration.test_turns_resume import MIRROR
from tests.unit.reasoner.teachers import save_teacher

pytestmark = pytest.mark.integration
EVENS = {"name": str(Path(__file__).parent / "evens.py")}
ROLLOUT = {"problems_per_step": 4, "group_size": 4, "max_tokens": 8}
KINDS = {
    "plain": {},
    "ahead": {"rollout": {**ROLLOUT, "ahead": 1}},
    "sampler": {"rollout": {**ROLLOUT, "ahead": 1}, "algorithm": {"kl_coef": 0.01, "proximal": "sampler"}},
    "portions": {"grading": {"portions": 2}},
    "several updates": {"optim": {"lr": 1.0e-3, "updates_per_step": 2, "inner_epochs": 2}},
    "dynamic sampling": {"rollout": {**ROLLOUT, "ahead": 1, "dynamic_sampling_rounds": 1}},
    "difficulty": {"rollout": {**ROLLOUT, "ahead": 1, "sampling": "difficulty"}},
    "ppo": {"method": "ppo", "algorithm": {"kl_coef": 0.01, "kl_in": "reward"}},
    "adapters": {
        "model": {
            "from_scratch": {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 64},
            "lora": {"rank": 4},
        },
        "rollout": {**ROLLOUT, "ahead": 1},
    },
    "environment": {
        "task": {"name": "arithmetic", "options": {"digits": 1}, "environment": {"name": MIRROR}},
        "rollout": {**ROLLOUT, "max_tokens": 48, "ahead": 1},
    },
    "a teacher": {"method": "distill", "rollout": {**ROLLOUT, "ahead": 1}},
    "a teacher, with an environment": {
        "method": "distill",
        "task": {"name": "arithmetic", "options": {"digits": 1}, "environment": {"name": MIRROR}},
        "rollout": {**ROLLOUT, "max_tokens": 48},
        "model": {
            "from_scratch": {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 96},
            "lora": {"rank": 4},
        },
    },
}


def trained(folder: Path, **changes: object) -> Path:
    settings = {"steps": 3, "rollout": ROLLOUT, "reward": EVENS, "eval": {"problems": 0}, **changes}
    if changes.get("method") == "distill":
        settings["teacher"] = str(save_teacher(folder / "teacher"))
    config = write_config(folder, "run", **settings)
    return run_pipeline(load_config(str(config)), resume=False)


def replayed(folder: Path, name: str = "again", *overrides: str) -> str:
    config = load_config(str(folder / "run.yaml"), [f"output={folder / name}", *overrides])
    return run_replay(config, folder / "run", resume=False)


FURTHER = {"sampler", "several updates", "difficulty", "dynamic sampling", "environment", "a teacher"}
"""Kinds whose parts the others have too: run by make test-full."""


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] * (k in FURTHER)) for k in KINDS])
def test_a_replay_is_equal_bit_for_bit(tmp_path: Path, kind: str) -> None:
    run = trained(tmp_path, **KINDS[kind])
    assert replayed(tmp_path).endswith("every update and metric is equal bit for bit")
    updates, again = ((folder / "updates.jsonl").read_bytes() for folder in (run, tmp_path / "again"))
    assert updates == again
    assert any(json.loads(line).get("advantage") for line in updates.splitlines())
    weights = [(folder / "final" / "model.safetensors").read_bytes() for folder in (run, tmp_path / "again")]
    assert weights[0] == weights[1]


def test_an_experiment_on_old_rollouts_says_what_is_different(tmp_path: Path) -> None:
    trained(tmp_path)
    sentence = replayed(tmp_path, "other", "algorithm.loss=gspo", "optim.lr=1e-4")
    assert sentence.endswith("with other settings (algorithm.loss, optim.lr)")
    ours, theirs = ((tmp_path / name / "updates.jsonl").read_bytes() for name in ("run", "other"))
    assert ours != theirs


@pytest.mark.parametrize("field", ["rollout_logprobs", "reward"])
def test_an_edited_rollout_is_noticed(tmp_path: Path, field: str) -> None:
    run = trained(tmp_path, steps=2)
    lines = (run / "rollouts.jsonl").read_text().splitlines()
    row = json.loads(lines[20])
    if field == "reward":
        row["verdict"] |= {"reward": 0.9, "outcome": "partial"}
    else:
        row["rollout_logprobs"][0] -= 0.01
    lines[20] = json.dumps(row)
    (run / "rollouts.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match=r"differs from .* from step 2 on"):
        replayed(tmp_path)


def test_a_run_cut_off_is_replayed_to_its_last_whole_step(tmp_path: Path) -> None:
    run = trained(tmp_path)
    metrics = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(metrics[:2]) + "\n")
    assert replayed(tmp_path).startswith("replayed 2 steps")


def test_a_run_without_rollouts_cannot_be_replayed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    config = write_config(tmp_path, "run")
    (tmp_path / "run" / "config.yaml").write_bytes(config.read_bytes())
    with pytest.raises(RunError, match="must have a finished step to replay"):
        replayed(tmp_path)
