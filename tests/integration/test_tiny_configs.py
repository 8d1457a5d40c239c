"""The shipped configs that learn from nothing on a CPU, as they are: instructions, proofs, online DPO."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reasoner.observe.analysis.rounds import rounds

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]
ROOT = Path(__file__).parents[2]


def train(name: str, output: Path) -> None:
    command = [sys.executable, "-m", "reasoner", "train", name, f"output={output}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]


@pytest.mark.parametrize("name", ["instructions_tiny", "logic_tiny"])
def test_verdicts_alone_raise_the_warm_start(name: str, tmp_path: Path) -> None:
    train(name, tmp_path / "run")
    evals = [json.loads(line) for line in (tmp_path / "run" / "1-grpo" / "evals.jsonl").read_text().splitlines()]
    before, after = (row["metrics"]["avg@1"] for row in (evals[0], evals[-1]))
    print(json.dumps({name: [before, after]}))
    assert after[1] > before[2]  # 95 % intervals that do not meet


def test_each_round_of_online_dpo_wins_against_the_warm_start(tmp_path: Path) -> None:
    train("online_dpo", tmp_path / "run")
    won = [one.against_start for one in rounds(tmp_path / "run")]
    print(json.dumps([one and [one.win_rate, one.win_low, one.win_high] for one in won]))
    assert len(won) == 4
    assert all(one.win_low > 0.5 for one in won if one)
