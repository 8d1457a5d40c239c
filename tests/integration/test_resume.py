"""Kill it anywhere, lose nothing: a run killed with SIGKILL ends with the records of one that never was."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from reasoner.storage.find_model import latest_checkpoint
from reasoner.storage.run_folder import RECORD_FILES
from tasks.registry import get_task

pytestmark = pytest.mark.integration
STEPS = 30
TASK = {"name": "arithmetic", "options": {"family": "addition", "digits": 1}}
TIMED = ("time/", "throughput/", "memory/")
MOMENTS = [
    ("generation", 2),
    ("grading", 40),
    ("records", 4),
    ("update", 4),
    ("sync", 4),
    ("checkpoint", 0),
    ("checkpoint", 1),
    ("metrics", 4),
    ("evaluation", 0),
    ("annotate", 4),
]
"""(place, number of times that the process passes it before the kill); each process resumes from the last one."""


def write_config(folder: Path, name: str, **changes: object) -> Path:
    config = {
        "name": name,
        "output": str(folder / name),
        "method": "grpo",
        "steps": STEPS,
        "seed": 3,
        "task": TASK,
        "prompt": {"chat": "never"},
        "model": {"from_scratch": {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 64}},
        "rollout": {"problems_per_step": 4, "group_size": 4, "max_tokens": 12},
        "algorithm": {"kl_coef": 0.01},
        "optim": {"lr": 1.0e-3, "warmup_steps": 3, "schedule": "linear"},
        "engine": {"name": "hf"},
        "eval": {"problems": 8, "every": 10},
        "checkpoint": {"every": 3},
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def run(config: Path, moment: str = "never", count: int = 0) -> int:
    here = Path(__file__).parent
    process = subprocess.run(
        [sys.executable, str(here / "killer.py"), str(config), moment, str(count)],
        cwd=here.parent.parent,
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.returncode in (0, -signal.SIGKILL), process.stderr[-3000:]
    return process.returncode


def records(folder: Path, name: str) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (folder / name).read_text().split("\n") if line]
    for row in rows:
        if isinstance(row.get("verdict"), dict):
            row["verdict"].pop("seconds")
    return [{key: value for key, value in row.items() if not key.startswith(TIMED)} for row in rows]


def assert_same_run(killed: Path, whole: Path) -> None:
    for name in RECORD_FILES:
        ours, theirs = records(killed, name), records(whole, name)
        assert len(ours) == len(theirs), name
        for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert a == b, f"{name} line {number}"
    weights = [(folder / "final" / "model.safetensors").read_bytes() for folder in (killed, whole)]
    assert weights[0] == weights[1]


def assert_problems_in_order(folder: Path) -> None:
    """Check that each epoch has every problem once, in a new order, and that the rows of a group have one problem."""
    rows = records(folder, "rollouts.jsonl")
    seen = [(row["step"], row["group"], row["sample"]) for row in rows]
    assert seen == [(step, group, sample) for step in range(1, STEPS + 1) for group in range(4) for sample in range(4)]
    known = {problem.id: problem for problem in get_task(TASK["name"], **TASK["options"]).problems("train")}
    for row in rows:
        problem = known[row["problem"]]
        assert (row["prompt"], row["reference"]) == (problem.prompt, problem.reference)
    drawn = [row["problem"] for row in rows[::4]]
    assert [row["problem"] for row in rows] == [problem for problem in drawn for _ in range(4)]
    first, second = drawn[: len(known)], drawn[len(known) :]
    assert sorted(first) == sorted(known)
    assert len(second) == len(set(second)) == STEPS * 4 - len(known) > 0
    assert first != list(known)
    assert second != first[: len(second)]


def stage(folder: Path, name: str) -> Path:
    (found,) = [path.parent for path in (folder / name).rglob("done.json")]
    return found


@pytest.mark.slow
def test_ten_kills_leave_the_same_run(tmp_path: Path) -> None:
    whole = write_config(tmp_path, "whole")
    assert run(whole) == 0
    killed = write_config(tmp_path, "killed")
    kills = sum(run(killed, moment, count) == -signal.SIGKILL for moment, count in MOMENTS)
    assert kills == len(MOMENTS), f"only {kills} of {len(MOMENTS)} moments were reached"
    assert run(killed) == 0
    assert_problems_in_order(stage(tmp_path, "killed"))
    assert_same_run(stage(tmp_path, "killed"), stage(tmp_path, "whole"))
    left = [p.info for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert not left


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"rollout": {"problems_per_step": 4, "group_size": 4, "max_tokens": 12, "dynamic_sampling_rounds": 2}},
            id="dynamic-sampling",
        ),
        pytest.param(
            {"rollout": {"problems_per_step": 4, "group_size": 4, "max_tokens": 12, "sampling": "difficulty"}},
            id="difficulty-sampling",
        ),
        pytest.param(
            {
                "model": {
                    "from_scratch": {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 64},
                    "lora": {"rank": 4},
                }
            },
            id="lora",
        ),
        pytest.param({"optim": {"lr": 1e-3, "updates_per_step": 2, "inner_epochs": 2}}, id="inner-epochs"),
        pytest.param({"grading": {"portions": 3}}, id="portions"),
    ],
)
def test_a_kill_leaves_the_same_run_with(tmp_path: Path, changes: dict[str, object]) -> None:
    whole, killed = (write_config(tmp_path, name, steps=12, **changes) for name in ("whole", "killed"))
    assert run(whole) == 0
    assert run(killed, "update", 7) == -signal.SIGKILL
    assert run(killed) == 0
    assert_same_run(stage(tmp_path, "killed"), stage(tmp_path, "whole"))


@pytest.mark.slow
def test_ten_kills_leave_the_same_run_with_vllm(tmp_path: Path) -> None:
    model = {"from_scratch": {"hidden_size": 64, "layers": 1, "heads": 2, "max_positions": 64}}
    vllm = {"model": model, "engine": {"name": "vllm"}}
    whole = write_config(tmp_path, "whole", **vllm)
    assert run(whole) == 0
    killed = write_config(tmp_path, "killed", **vllm)
    moments = [("grading", 100), *MOMENTS[1:]]
    assert all(run(killed, moment, count) == -signal.SIGKILL for moment, count in moments)
    assert run(killed) == 0
    assert_same_run(stage(tmp_path, "killed"), stage(tmp_path, "whole"))


PARITY = f"{Path(__file__).parents[2] / 'benchmarks' / 'planted' / 'parts.py'}:parity"
"""A reward with signal for any model: the parity of a completion's length."""
EVERYTHING: dict[str, dict[str, object]] = {
    "grpo-portions": {
        "method": "grpo",
        "rollout": {"problems_per_step": 4, "group_size": 3, "max_tokens": 8, "sampling": "difficulty"},
        "algorithm": {"kl_coef": 0.05, "kl_target": 0.2, "kl_horizon": 50},
        "grading": {"portions": 3},
        "optim": {"lr": 3e-3, "warmup_steps": 3, "schedule": "cosine"},
    },
    "ppo-dynamic-sampling": {
        "method": "ppo",
        "rollout": {
            "problems_per_step": 3,
            "group_size": 2,
            "max_tokens": 8,
            "sampling": "difficulty",
            "dynamic_sampling_rounds": 2,
        },
        "algorithm": {"kl_coef": 0.05, "kl_in": "reward", "kl_target": 0.2, "kl_horizon": 50},
        "optim": {"lr": 3e-3, "warmup_steps": 3, "schedule": "linear", "inner_epochs": 2, "updates_per_step": 2},
        "value": {"warmup_steps": 1},
    },
}
"""Two runs that together have everything a resume could lose: adapters, difficulty, dynamic sampling, an adaptive KL,
portions, values.
"""


def of_everything(folder: Path, name: str, which: str, steps: int) -> Path:
    return write_config(
        folder,
        name,
        **{
            **EVERYTHING[which],
            "steps": steps,
            "task": TASK | {"verifier": {"name": PARITY}},
            "model": {
                "from_scratch": {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 64},
                "lora": {"rank": 4},
            },
            "eval": {"problems": 6, "every": 7},
        },
    )


class Attempts:
    """Run processes that resume a run, one after the other, and are killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, config: Path, moment: str, count: int = 0) -> dict[str, int]:
        """Resume until the kill or the end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(config, moment, count, file=self._process.stdin, flush=True)
        said = json.loads(self._process.stdout.readline())
        assert said["status"] in (0, -signal.SIGKILL), said
        return said


@contextmanager
def attempts() -> Iterator[Attempts]:
    here = Path(__file__).parent
    command, env = [sys.executable, str(here / "killer.py"), "serve"], os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=here.parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        yield Attempts(process)
        assert process.stdin is not None
        process.stdin.close()


def closes(run: Path) -> bool:
    """True once the checkpoint that ends a run exists."""
    newest = latest_checkpoint(run / "checkpoints")
    return newest is not None and json.loads((newest / "progress.json").read_text())["state"]["after"] is not None


def kill_often(folder: Path, which: str, *, steps: int, before: int, closing: int) -> int:
    """Kill a run at random moments, some during closing, and compare it with one never killed; return the kills."""
    chance, kills = random.Random(which), 0
    whole, killed = (of_everything(folder, name, which, steps) for name in ("whole", "killed"))
    ours, theirs = folder / "killed", folder / "whole"
    with attempts() as attempt:
        counted = attempt(whole, "count")
        for number in range(before):
            moment, most = ("time", counted["milliseconds"]) if number % 2 else ("file", counted["file"])
            kills += attempt(killed, moment, chance.randrange(1 + 2 * most // before))["status"] != 0
        assert kills == before, "it must not end before the kills that are to meet it while it closes"
        for number in range(closing):
            left = counted["closing"] - (counted["saved"] if closes(ours) else 0)
            first = counted["saved"] if number == 1 and not closes(ours) else 0  # after the last checkpoint
            kills += attempt(killed, "closing", chance.randrange(first, left) if number else 0)["status"] != 0
            assert not (ours / "done.json").exists(), (number, left)
        assert closes(ours), "some of the kills came after the last checkpoint"
        for _ in range(2):  # the second time there is nothing to do
            assert attempt(killed, "never")["status"] == 0
    assert_same_run(ours, theirs)
    for name in ("done.json", "checkpoints/best/model.safetensors"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    for inside in (".", "checkpoints", "final"):
        assert {path.name for path in (ours / inside).iterdir()} == {path.name for path in (theirs / inside).iterdir()}
    return kills


def test_kills_at_random_moments_and_while_it_closes_leave_the_same_run(tmp_path: Path) -> None:
    assert kill_often(tmp_path, "ppo-dynamic-sampling", steps=7, before=3, closing=3) == 6


@pytest.mark.slow
@pytest.mark.parametrize("which", EVERYTHING)
def test_forty_kills_leave_the_same_run(tmp_path: Path, which: str) -> None:
    assert kill_often(tmp_path, which, steps=30, before=30, closing=10) == 40
