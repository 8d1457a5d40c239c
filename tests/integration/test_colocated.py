"""vLLM inside several trainer processes: the records of one process, one model over two processes, a process killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.test_processes import assert_close
from tests.integration.test_resume import TASK, records, write_config

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
FILES = ("rollouts.jsonl", "updates.jsonl", "metrics.jsonl", "evals.jsonl", "eval_rollouts.jsonl")


def start(config: Path, count: int, *arguments: str) -> subprocess.Popen[str]:
    accelerate = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "configs/accelerate/ddp.yaml")]
    launch = [*accelerate, "--num_processes", str(count), "--main_process_port", "0"] if count > 1 else []
    return subprocess.Popen(
        [sys.executable, *launch, "-m", "reasoner", "train", str(config), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"},
    )


def run(config: Path, count: int, *arguments: str) -> str:
    process = start(config, count, *arguments)
    try:
        output, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, output[-3000:]
    return output


def config_of(folder: Path, name: str, **options: object) -> Path:
    taught = {
        "method": "sft",
        "model": {"from_scratch": {"hidden_size": 64, "layers": 2, "heads": 2, "max_positions": 64}},
        "steps": 3,
        "sft": {"demonstrations": 50, "rows_per_step": 8},
        "eval": {"problems": 0},
    }
    changes = {
        "task": {**TASK, "options": {**TASK["options"], "demonstrations": "worked"}},
        "eval": {"problems": 5, "every": 2},
        "checkpoint": {"every": 2},
        "algorithm": {"kl_coef": 0.01, "entropy_coef": 0.01},  # a gradient also where all answers are wrong
        "engine": {"name": "vllm", "options": {"kv_cache_gigabytes": 0.1, **options}},
        "grading": {"workers": 1},
    }
    return write_config(folder, name, steps=6, stages=[taught, {"method": "grpo"}], **changes)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run two processes with an engine each, two stages in one go; return the last stage's folder."""
    folder = tmp_path_factory.mktemp("two")
    output = run(config_of(folder, "two"), 2)
    assert output.count("records  ") == 1, "the main process alone closes the run"
    return folder / "two" / "1-grpo"


def test_two_processes_with_an_engine_each_leave_the_records_of_one(two: Path, tmp_path: Path) -> None:
    run(config_of(tmp_path, "one"), 1)
    assert all(row["optim/grad_norm"] > 1e-4 for row in records(two, "metrics.jsonl"))
    for file in FILES:
        ours, theirs = records(two, file), records(tmp_path / "one" / "1-grpo", file)
        assert len(ours) == len(theirs) > 0
        assert_close(ours, theirs, file)


def test_one_model_over_two_processes_leaves_the_records_of_one(two: Path, tmp_path: Path) -> None:
    run(config_of(tmp_path, "team", tensor_parallel_size=2), 2)
    for file in FILES:
        ours, theirs = records(tmp_path / "team" / "1-grpo", file), records(two, file)
        assert len(ours) == len(theirs) > 0
        assert_close(ours, theirs, file)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_and_the_run_goes_on_the_same(victim: int, two: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, "killed")
    process = start(config, 2)
    ranks: dict[str, psutil.Process] = {}
    rows = tmp_path / "killed" / "1-grpo" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (rows.is_file() and rows.read_text().count("\n") >= 3):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for child in psutil.Process(process.pid).children(recursive=True):
        if (rank := child.environ().get("RANK")) is not None and "reasoner" in " ".join(child.cmdline()):
            ranks.setdefault(rank, child)
    ranks[str(victim)].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    process.communicate(timeout=100)
    assert process.returncode != 0
    assert time.monotonic() - killed < 60
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in ranks.values())
    done = json.loads(rows.read_text().splitlines()[-1])["step"]
    assert 3 <= done < 6, "it was killed on the way"
    run(config, 2, "--resume")
    for file in FILES:
        assert records(tmp_path / "killed" / "1-grpo", file) == records(two, file), file
