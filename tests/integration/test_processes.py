"""Two processes (gloo, on the CPU) learn what one learns: the gradient of every loss, the records of a run."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.integration.test_resume import records, stage, write_config

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


def run(count: int, *arguments: str, sharded: bool = False) -> str:
    script = [str(ROOT / "tests/integration/several.py"), *arguments]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    accelerate = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "configs/accelerate/fsdp2.yaml")]
    accelerate += ["--num_processes", str(count), "--main_process_port", "0"]
    launch = accelerate if sharded else torchrun if count > 1 else []
    done = subprocess.run(
        [sys.executable, *launch, *script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def found(output: str) -> dict[str, list[float]]:
    return json.loads(output.split("FOUND ")[1].split("\n")[0])


def test_every_loss_has_the_gradient_of_one_process() -> None:
    alone, together = (found(run(count, "gradients")) for count in (1, 2))
    assert list(alone) == list(together)
    assert len({round(value[1], 12) for value in alone.values()}) > len(alone) // 2, "the variants differ"
    for variant, values in alone.items():
        assert together[variant] == pytest.approx(values, rel=1e-9, abs=1e-9), variant


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, list[float]]]:
    """Run one process; return its folder and metrics."""
    folder = str(tmp_path_factory.mktemp("one"))
    return folder, found(run(1, "learned", folder))


@pytest.mark.parametrize("sharded", [pytest.param(False, marks=pytest.mark.slow), True])
def test_every_form_of_policy_learns_and_resumes_as_in_one_process(
    sharded: bool, one: tuple[str, dict[str, list[float]]], tmp_path: Path
) -> None:
    (folder, alone), two = one, str(tmp_path)
    together = found(run(2, "learned", two, sharded=sharded))
    for form, figures in alone.items():
        assert together[form] == pytest.approx(figures, rel=1e-6, abs=1e-9), form
    # each goes on from the other's checkpoints
    for again in (run(1, "resumed", two), run(2, "resumed", folder, sharded=sharded)):
        for form, figures in found(again).items():
            assert figures == pytest.approx(alone[form][-len(figures) :], rel=1e-6, abs=1e-9), form


@pytest.mark.slow
def test_sharded_log_probabilities_are_not_rounded_to_bfloat16() -> None:
    alone, together = found(run(1, "bfloat16")), found(run(2, "bfloat16", sharded=True))
    for form, figures in alone.items():
        assert together[form] == pytest.approx(figures, rel=2e-3), form
        logprobs = torch.tensor(together[form][2:])
        assert (logprobs.bfloat16().float() != logprobs).float().mean() > 0.9, form


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


@pytest.mark.parametrize("trunk", ["shared", pytest.param("separate", marks=pytest.mark.slow)])
def test_ppo_of_two_processes_leaves_the_records_of_one(trunk: str, tmp_path: Path) -> None:
    """A value head on the policy's trunk, with its own adapter: distributed, and also sharded."""
    shape = {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 64}
    changes = {
        "method": "ppo",
        "model": {"from_scratch": shape} | ({} if trunk == "shared" else {"lora": {"rank": 4}}),
        "value": {"trunk": trunk, "warmup_steps": 2},
        "eval": {"problems": 8, "every": 3},
        "optim": {"lr": 1e-3, "inner_epochs": 2, "updates_per_step": 2},
    }
    for count, name in ((1, "one"), (2, "two"), (2, "sharded")):
        run(count, "train", str(write_config(tmp_path, name, steps=5, **changes)), sharded=name == "sharded")
    for name, file in itertools.product(
        ("two", "sharded"), ("rollouts.jsonl", "updates.jsonl", "metrics.jsonl", "evals.jsonl")
    ):
        ours, theirs = (records(stage(tmp_path, run), file) for run in (name, "one"))
        assert len(ours) == len(theirs)
        assert_close(ours, theirs, f"{name} {file}")


EXITS = """
import os, sys
import torch.distributed as dist
from reasoner import processes

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
failed = 0
for number in range(20):
    if child := os.fork():
        failed += os.waitpid(child, 0)[1] != 0
        continue
    before = set(os.listdir("/proc/self/task"))
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/{number}", rank=0, world_size=1)
    for thread in set(os.listdir("/proc/self/task")) - before:  # as on a busy machine: it comes after all others
        os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
    for _ in range(3):
        dist.all_gather_object([None], {})
    processes.leave()
    sys.exit()
print(failed)
"""


def test_a_process_that_leaves_the_others_ends_in_order(tmp_path: Path) -> None:
    """Without leaving the process group, more than half of the twenty are aborted when the interpreter exits."""
    arguments = [sys.executable, "-c", EXITS, str(tmp_path)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.stdout == "0\n", done.stderr[-3000:]


LATE = """
import os, sys, time
from datetime import timedelta
import torch.distributed as dist
from reasoner import processes

rank = 1 if os.fork() else 0
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/store", rank=rank, world_size=2)
processes.connect(wait_seconds=4)
try:
    processes.gather(rank)  # both have connected
    if rank == 0 and sys.argv[2] == "dead":
        os._exit(0)
    time.sleep(10 * (rank == 0))
    processes.gather(rank)
except processes.ProcessError as error:
    print(error, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(("case", "said"), [("late", "raise processes.wait_seconds"), ("dead", "which has ended")])
def test_a_process_that_does_not_arrive_is_not_waited_for_without_end(case: str, said: str, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", LATE, str(tmp_path), case]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert "process 1 waited for another one" in done.stdout, done.stderr[-2000:]
    assert said in done.stdout


VANISHED = """
import os, subprocess, sys, time
import torch.distributed as dist
from reasoner import processes

processes.CHECK_SECONDS = 1
rank = 1 if os.fork() else 0
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/store", rank=rank, world_size=2)
processes.connect(wait_seconds=600)
processes.gather(rank)
if rank == 0:
    time.sleep(6)  # longer than the checks take: a process that computes is not lost
    subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
    time.sleep(600)
before = time.monotonic()
processes.gather(rank)
"""


def test_a_machine_that_vanishes_ends_the_processes_on_the_others(tmp_path: Path) -> None:
    """The network of both goes down under their connection: no packet says so."""
    script = 'ip link set lo up && exec "$@"'
    command = ["unshare", "-r", "-n", "sh", "-c", script, "sh", sys.executable, "-c", VANISHED, str(tmp_path)]
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=100, env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    )
    assert done.returncode == -signal.SIGKILL
    assert 6 < time.monotonic() - began < 60
    assert "process 0 at localhost has not answered for 4 s (" in done.stderr, done.stderr[-2000:]
    assert "This process ends too; continue with --resume." in done.stderr


def assert_close(ours: object, theirs: object, where: str) -> None:
    """Compare numbers that may differ in the last bits, by sums taken in another order."""
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
