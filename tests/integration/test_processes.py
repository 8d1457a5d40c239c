"""Two processes (gloo, on the CPU) learn what one learns: the gradient of every loss, the records of a run."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_resume import records, stage, write_config

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


def run(count: int, *arguments: str) -> str:
    launch = ["-m", "torch.distributed.run", f"--nproc-per-node={count}", "--master-port=0", "--rdzv-backend=c10d"]
    command = [sys.executable, *(launch if count > 1 else []), str(ROOT / "tests/integration/several.py"), *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_loss_has_the_gradient_of_one_process() -> None:
    alone, together = (json.loads(run(count, "gradients").split("FOUND ")[1].split("\n")[0]) for count in (1, 2))
    assert list(alone) == list(together)
    assert len({round(value[1], 12) for value in alone.values()}) > len(alone) // 2, "the variants differ"
    for variant, values in alone.items():
        assert together[variant] == pytest.approx(values, rel=1e-9, abs=1e-9), variant


def test_sharded_weights_learn_and_resume_as_whole_ones_do(tmp_path: Path) -> None:
    alone, together = (
        json.loads(run(count, "sharded", str(tmp_path / str(count))).split("FOUND ")[1].split("\n")[0])["sharded"]
        for count in (1, 2)
    )
    assert together == pytest.approx(alone, rel=1e-4, abs=1e-5)


def test_a_run_of_two_processes_leaves_the_records_of_one(tmp_path: Path) -> None:
    for count, name, portions in ((1, "one", 1), (2, "two", 1), (2, "portions", 3)):
        changes = {"eval": {"problems": 8, "every": 3}, "grading": {"portions": portions}}
        run(count, "train", str(write_config(tmp_path, name, steps=6, **changes)))
    for name, file in itertools.product(
        ("two", "portions"), ("rollouts.jsonl", "updates.jsonl", "metrics.jsonl", "evals.jsonl")
    ):
        ours, theirs = (records(stage(tmp_path, run), file) for run in (name, "one"))
        assert len(ours) == len(theirs)
        assert_close(ours, theirs, f"{name} {file}")


def assert_close(ours: object, theirs: object, where: str) -> None:
    """Equal but for the last bits of sums taken in another order."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_close(ours[key], theirs[key], f"{where} {key}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        assert len(ours) == len(theirs), where
        for number, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_close(*pair, f"{where} {number}")
    elif isinstance(ours, float) and isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4), where
    else:
        assert ours == theirs, where
