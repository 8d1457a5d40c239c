"""The shipped configs that learn instructions and proofs from nothing on a CPU, as they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["instructions_tiny", "logic_tiny"])
def test_verdicts_alone_raise_the_warm_start(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "reasoner", "train", name, f"output={tmp_path / 'run'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    evals = [json.loads(line) for line in (tmp_path / "run" / "1-grpo" / "evals.jsonl").read_text().splitlines()]
    before, after = (row["metrics"]["avg@1"] for row in (evals[0], evals[-1]))
    print(json.dumps({name: [before, after]}))
    assert after[1] > before[2]  # 95 % intervals that do not meet
