"""What an evaluation measures is the policy of its step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasoner.config.load import resolve
from reasoner.stages.pipeline import run_pipeline

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_every_evaluated_completion_was_sampled_from_the_weights_of_its_step(tmp_path: Path, method: str) -> None:
    config = {
        "method": method,
        "output": str(tmp_path / "run"),
        "steps": 4,
        "task": {"name": "arithmetic", "options": {"digits": 1}},
        "prompt": {"chat": "never"},
        "model": {"from_scratch": {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 64}},
        "rollout": {"problems_per_step": 2, "group_size": 2, "max_tokens": 8},
        "algorithm": {"advantage": "reinforce_pp"},
        "sft": {"rows_per_step": 4},
        "engine": {"name": "hf"},
        "eval": {"problems": 4, "every": 2},
    }
    folder = run_pipeline(resolve(config), resume=False)
    rows = [json.loads(line) for line in (folder / "eval_rollouts.jsonl").read_text().split("\n") if line]
    assert [row["step"] for row in rows] == [0] * 4 + [2] * 4 + [4] * 4
    assert all(row["policy_version"] == row["step"] for row in rows)
