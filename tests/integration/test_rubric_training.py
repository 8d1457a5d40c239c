"""GRPO with a judged rubric as its reward: the shipped config against a scripted endpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.verifiers import scripted_judge as scripted
from tests.unit.verifiers.scripted_judge import ScriptedJudge, Sent

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
LATENCY = 0.05
CONCURRENCY = 16


def script(body: scripted.Body, number: int) -> Sent:
    """A judge that counts letters, as the criterion asks; slow like a model, and occasionally busy."""
    if number % 50 == 0:
        return Sent(status=429, content="slow down", headers={"Retry-After": "0.05"})
    wanted = scripted.data_of(body, "prompt").strip().removesuffix(":")
    named = len({letter for letter in scripted.data_of(body) if letter in wanted})
    level = named - (len(scripted.data_of(body)) - named)
    return Sent(content=scripted.level(body, max(0, level)).content, delay=LATENCY)


def test_grpo_learns_from_a_judged_rubric(tmp_path: Path) -> None:
    with ScriptedJudge(script) as server:
        options = [f"url={server.url}", "model=scripted", f"cache={tmp_path / 'cache.sqlite3'}"]
        options.append(f"concurrency={CONCURRENCY}")
        prefix = "grpo.reward.options.judge.options."
        command = [
            sys.executable,
            "-m",
            "reasoner",
            "train",
            "configs/rubric_tiny.yaml",
            f"output={tmp_path / 'run'}",
            "engine.options.max_batch=8",  # sampling takes a while, as with a model of some size
        ]
        done = subprocess.run(
            [*command, *(prefix + option for option in options)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
        asked = len(server.bodies)
    folder = next((tmp_path / "run").glob("*grpo*"))
    evals = [json.loads(line) for line in (folder / "evals.jsonl").read_text().splitlines()]
    before, after = (row["metrics"]["avg@1"] for row in (evals[0], evals[-1]))
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rollouts = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]
    assert all(row["reward"] is not None for row in rollouts)
    assert {"covers", "no_spaces", "brief"} == set(rollouts[0]["components"])
    seconds = {
        "generation": sum(row["time/generation"] for row in metrics),
        "judging alone": asked * LATENCY / CONCURRENCY,
        "grading wait": sum(row["time/grading_wait"] for row in metrics),
    }
    print(json.dumps({"true score": [before, after], "asked": asked, "rollouts": len(rollouts), "seconds": seconds}))
    assert asked - asked // 50 <= len(rollouts)  # nothing is asked twice but what was busy
    assert after[1] > before[2]  # 95 % intervals that do not meet
    assert seconds["grading wait"] < 0.5 * seconds["judging alone"]  # most of it went on beside generation
