"""State and last evaluation of a stage, from the ends of its files."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from reasoner.observe.report.listing import root_of, sizes, stage_line, state_of
from tests.unit.reasoner.observe.view.demo import train, write_demo


def locked_by(folder: Path, pid: int, host: str | None = None) -> None:
    (folder / "run.lock").write_text(json.dumps({"host": host or socket.gethostname(), "pid": pid}))


def test_states(tmp_path: Path) -> None:
    run = write_demo(tmp_path / "run", steps=3, done=False)
    assert state_of(run) == "stopped"
    locked_by(run, os.getpid())
    assert state_of(run) == "running"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    locked_by(run, gone.pid)
    assert state_of(run) == "stopped"
    locked_by(run, 1, "another.example")
    assert state_of(run) == "elsewhere"
    (run / "run.lock").unlink()
    (run / "failed.json").write_text(json.dumps({"step": 3, "error": "Diverged", "message": "loss is not finite"}))
    assert state_of(run) == "failed"
    assert stage_line(run)["error"] == "loss is not finite"
    (run / "failed.json").unlink()
    (run / "done.json").write_text("{}")
    assert state_of(run) == "ended"


def test_a_stage_of_several_is_locked_by_its_run(tmp_path: Path) -> None:
    write_demo(tmp_path / "0-sft", steps=2)
    last = write_demo(tmp_path / "1-grpo", steps=2, done=False)
    assert root_of(last) == tmp_path
    locked_by(tmp_path, os.getpid())
    assert [state_of(tmp_path / name) for name in ("0-sft", "1-grpo")] == ["ended", "running"]


def test_step_and_evaluation(tmp_path: Path) -> None:
    run = write_demo(tmp_path / "run", steps=22, done=False)
    before, line = sizes(run), stage_line(run)
    assert (line["method"], line["steps"], line["of"], line["error"]) == ("grpo", 22, 60, None)
    assert line["evaluation"]["metric"] == "avg@1"
    assert [row[:2] for row in line["evaluation"]["values"]] == [[0, 0.25], [20, 0.75]]
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 23, "reward')  # still being written
    assert stage_line(run)["steps"] == 22
    assert sizes(run) != before


def test_a_metric_over_all_sets_is_the_main_one_and_losses_come_last(tmp_path: Path) -> None:
    run = write_demo(tmp_path / "run", steps=1, done=False)
    both = {"sums/avg@1": [0.1, 0.0, 0.2], "pooled/avg@1": [0.3, 0.2, 0.4]}
    (run / "evals.jsonl").write_text(json.dumps({"step": 0, "loss": 1.5, "metrics": both}) + "\n")
    assert stage_line(run)["evaluation"] == {"metric": "pooled/avg@1", "values": [[0, 0.3, 0.2, 0.4]]}
    (run / "evals.jsonl").write_text(json.dumps({"step": 0, "loss": 1.5}) + "\nnot a record\n")
    assert stage_line(run)["evaluation"] == {"metric": "loss", "values": [[0, 1.5]]}
    (run / "evals.jsonl").unlink()
    assert stage_line(run)["evaluation"] is None
    train(run, 2)
    assert stage_line(run)["steps"] == 2
