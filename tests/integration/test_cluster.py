"""`reasoner train cluster.*`: parts on this machine, and on the nodes of a Ray cluster, any of which may be killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from reasoner.storage.cluster_file import Places, read_places
from tests.integration.test_resume import assert_same_run, records, run, write_config
from tests.unit.reasoner.cluster.living import marked, until

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]
MARK = "REASONER_TEST_MARK"
"""Environment variable by which all processes of a command are found; parts get every variable of this beginning."""


@contextmanager
def command(config: Path, *overrides: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `reasoner train` beside the test; whatever it started is gone at the end."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", MARK: str(log)}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "reasoner", "train", str(config), *overrides],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        until(lambda: not marked(str(log)), 60)


def steps(folder: Path) -> int:
    with suppress(OSError):
        return (folder / "metrics.jsonl").read_bytes().count(b"\n")
    return 0


def places(folder: Path) -> Places:
    return read_places(folder / "cluster" / "cluster.json")


def raylet_of(pid: int) -> int:
    """Return the raylet under which a command was started, which Ray names in the environment of its workers."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return int(next(one for one in variables if one.startswith(b"RAY_RAYLET_PID=")).split(b"=")[1])


def descendants(pid: int) -> list[int]:
    """Return a process and all below it; none if it is gone."""
    with suppress(psutil.Error):
        found = psutil.Process(pid)
        return [pid, *(child.pid for child in found.children(recursive=True))]
    return []


def kill_part(folder: Path, role: str) -> None:
    pid = places(folder).of(role)[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_parts_that_are_killed_leave_the_run_of_one_process(tmp_path: Path) -> None:
    config = write_config(tmp_path, "parts", steps=12)
    folder, log = tmp_path / "parts", tmp_path / "log"
    with command(config, "cluster.graders=1", "grading.workers=0", log=log) as process:
        until(lambda: steps(folder) >= 4 or process.poll() is not None, 300)
        assert process.poll() is None, log.read_text()
        kill_part(folder, "grader")
        kill_part(folder, "trainer")
        assert process.wait(300) == 0, log.read_text()
    found = places(folder)
    assert [part.state for part in (*found.trainers, *found.graders)] == ["ended", "ended"]
    assert (found.trainers[0].restarts, found.graders[0].restarts, found.trainers[0].version) == (1, 1, "12")
    said = log.read_text()
    assert "trainer-0 was killed (SIGKILL); it is started again" in said
    assert "grader-0 was killed (SIGKILL); it is started again" in said
    alone = write_config(tmp_path, "alone", steps=12)
    assert run(alone) == 0
    assert_same_run(folder, tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_fifty_kills_of_any_part_leave_the_same_records(tmp_path: Path) -> None:
    """Two trainers, two graders; killed are torchrun, ranks, keepers, graders, their workers, and the command."""
    few = {"steps": 60, "checkpoint": {"every": 2}, "eval": {"problems": 0}}
    whole, killed = write_config(tmp_path, "whole", **few), write_config(tmp_path, "killed", **few)
    given = ("cluster.trainers=2", "cluster.graders=2", "grading.workers=0", "cluster.restarts=30")
    with command(whole, *given, log=tmp_path / "whole.log") as process:
        assert process.wait(600) == 0, (tmp_path / "whole.log").read_text()
    folder, log, draw, kills = tmp_path / "killed", tmp_path / "log", random.Random(0), 0
    while True:
        with command(killed, *given, "--resume", log=log) as process:
            while process.poll() is None:
                time.sleep(draw.uniform(0.5, 6.0))
                targets = marked(str(log))
                if kills < 50 and process.poll() is None and steps(folder) < 58:
                    target = process.pid if draw.random() < 0.06 or not targets else draw.choice(targets)
                    with suppress(ProcessLookupError):
                        os.kill(target, signal.SIGKILL)
                        kills += 1
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, log.read_text()[-3000:]
    assert kills == 50, f"the run was over after {kills} kills"
    assert_same_run(folder, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_kills_of_vllm_samplers_and_of_everything_else_lose_no_rollout(tmp_path: Path) -> None:
    """Two vLLM servers with their engine processes, a grader, the trainer, the command; a third hit servers."""
    pytest.importorskip("vllm")
    config = write_config(
        tmp_path,
        "killed",
        steps=40,
        model={"from_scratch": {"hidden_size": 64, "layers": 1, "heads": 2, "max_positions": 128}},
        engine={"name": "vllm-server"},
        checkpoint={"every": 1},
        eval={"problems": 0},
    )
    given = ("cluster.samplers=2", "cluster.graders=1", "grading.workers=0", "cluster.restarts=30")
    folder, log, draw, kills = tmp_path / "killed", tmp_path / "log", random.Random(1), Counter[str]()
    while True:
        with command(config, *given, "--resume", log=log) as process:
            while process.poll() is None:
                begun = steps(folder)
                until(lambda begun=begun: steps(folder) > begun or process.poll() is not None, 600)
                time.sleep(draw.uniform(0.0, 2.0))
                if kills.total() == 15 or process.poll() is not None:
                    continue
                kind = "sampler" if kills.total() % 3 == 0 else "any"
                if kind == "sampler":
                    place = draw.choice(places(folder).samplers)
                    family = [] if place.pid is None else descendants(place.pid)
                else:
                    family = marked(str(log))
                target = process.pid if draw.random() < 0.06 or not family else draw.choice(family)
                with suppress(ProcessLookupError):
                    os.kill(target, signal.SIGKILL)
                    kills[kind] += 1
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, log.read_text()[-3000:]
    assert kills.total() == 15, f"the run was over after {kills}"
    rows = records(folder, "rollouts.jsonl")
    assert [(row["step"], row["group"], row["sample"]) for row in rows] == [
        (step, group, sample) for step in range(1, 41) for group in range(4) for sample in range(4)
    ]
    alone = write_config(tmp_path, "alone", steps=40, eval={"problems": 0})  # the same problems, by another engine
    assert run(alone) == 0
    assert [row["problem"] for row in rows] == [row["problem"] for row in records(tmp_path / "alone", "rollouts.jsonl")]
    assert all(row["verdict"]["outcome"] not in ("verifier_error", "bad_reference") for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_ray_node_that_dies_in_the_middle_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three raylets; the one with a trainer is killed: its parts go to the others, and the records are complete."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    nodes: list[Any] = [cluster.add_node(num_cpus=2) for _ in range(2)]
    try:
        config = write_config(tmp_path, "ray", steps=30, eval={"problems": 0})
        folder, log = tmp_path / "ray", tmp_path / "log"
        given = (f"cluster.address={cluster.address}", "cluster.trainers=2", "cluster.trainer_machines=2")
        with command(config, *given, "cluster.graders=2", "grading.workers=0", log=log) as process:
            until(lambda: steps(folder) >= 5 or process.poll() is not None, 400)
            assert process.poll() is None, log.read_text()
            raylets = {node.all_processes["raylet"][0].process.pid: node for node in nodes}
            of_trainers = {raylet_of(int(part.pid or 0)) for part in places(folder).trainers}
            ours = [node for pid, node in raylets.items() if pid in of_trainers]
            assert ours, "a trainer is not on the node of the command"
            cluster.remove_node(ours[0], allow_graceful=False)
            assert process.wait(600) == 0, log.read_text()
    finally:
        cluster.shutdown()
    rows = records(folder, "rollouts.jsonl")
    assert len(rows) == 30 * 16
    assert [row["step"] for row in records(folder, "metrics.jsonl")] == list(range(1, 31))
    assert max(part.restarts for part in places(folder).trainers) >= 1, json.dumps(str(places(folder)))
