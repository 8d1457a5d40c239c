"""GSM8K end to end: real problems, a real chat template, vLLM, a model that knows nothing, and an honest report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.integration


def reasoner(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from reasoner.cli import main; main()", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=280, env=os.environ | {"OMP_NUM_THREADS": "2"}
    )


def test_gsm8k_through_vllm_says_that_nothing_has_signal(tmp_path: Path, data_dir: Path) -> None:
    config = {
        "name": "gsm8k",
        "output": str(tmp_path / "run"),
        "steps": 3,
        "task": {"name": "gsm8k", "options": {"path": str(data_dir / "math")}},
        "prompt": {"chat": "auto", "system": "You are careful."},
        "model": {"from_scratch": {"hidden_size": 64, "layers": 2, "heads": 2, "max_positions": 2048}},
        "rollout": {"problems_per_step": 4, "group_size": 4, "max_tokens": 32},
        "engine": {"name": "vllm"},
        "eval": {"problems": 8},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    done = reasoner("train", str(path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "no group has signal" in done.stdout
    assert "Try: " in done.stdout
    lines = (tmp_path / "run" / "rollouts.jsonl").read_text().split("\n")
    rows = [json.loads(line) for line in lines if line]
    assert len(rows) == 3 * 16
    assert all(row["prompt"].startswith("<|im_start|>system\nYou are careful.<|im_end|>") for row in rows)
    assert all(row["prompt"].endswith("<|im_start|>assistant\n") for row in rows)
    assert {row["verdict"]["outcome"] for row in rows} <= {"no_answer", "incorrect"}
    assert all(row["reward"] == 0 for row in rows)
    evaluated = reasoner(
        "eval", str(tmp_path / "run"), "--task", "gsm8k", "-o", f"path={data_dir / 'math'}", "--problems", "4",
        "--samples", "2", "--max-tokens", "16",
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr[-3000:]
    assert "pass@2" in evaluated.stdout
    assert "maj@2" in evaluated.stdout
