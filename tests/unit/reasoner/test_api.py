"""Runs from Python: in a program, a thread and a running event loop; their records as data frames."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import reasoner
from reasoner.config.errors import ConfigError
from reasoner.errors import ReasonerError
from reasoner.storage.files import RunError

TINY = {
    "task": {"name": "arithmetic", "options": {"digits": 1, "train_size": 40, "test_size": 10}},
    "model": {"from_scratch": {"hidden_size": 16, "layers": 1, "heads": 2, "max_positions": 64}},
    "engine": {"name": "hf"},
    "prompt": {"chat": "never"},
    "rollout": {"problems_per_step": 2, "group_size": 2, "max_tokens": 4},
    "eval": {"problems": 4},
    "logging": {"tensorboard": False},
    "steps": 1,
}


def test_a_run_in_an_event_loop_a_thread_and_the_main_program(tmp_path: Path) -> None:
    async def inside() -> reasoner.Run:
        return reasoner.run(TINY, output=tmp_path / "loop")

    done = [
        asyncio.run(inside()),
        ThreadPoolExecutor().submit(reasoner.run, TINY, output=str(tmp_path / "thread")).result(),
        reasoner.run(TINY, steps=2, optim={"lr": 1e-3}, **{"rollout.group_size": 3}, output=str(tmp_path / "main")),
    ]
    assert [list(run.metrics().step) for run in done] == [[1], [1], [1, 2]]
    rollouts = done[-1].rollouts()
    assert len(rollouts) == 2 * 2 * 3
    assert set(rollouts["verdict.reward"]) <= {0.0, 1.0}
    assert len(done[0].evals()) == 2
    assert len(done[0].eval_rollouts()) == 2 * 4
    assert (done[0].model / "config.json").is_file()
    settings = (Path(done[-1].folder) / "config.yaml").read_text()
    assert "lr: 0.001" in settings
    with pytest.raises(RunError, match="exists already"):
        reasoner.run(TINY, output=str(tmp_path / "main"))
    assert list(reasoner.run(TINY, steps=2, output=str(tmp_path / "loop"), resume=True).metrics().step) == [1, 2]


def test_frames_of_several_stages_of_a_run_that_goes_on(tmp_path: Path) -> None:
    for place, name in enumerate(("0-sft", "1-grpo")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("")
        rows = "".join(json.dumps({"step": step, "loss": place}) + "\n" for step in (1, 2))
        (tmp_path / name / "metrics.jsonl").write_text(rows + '{"step": 3, "lo')
    frame = reasoner.Run(tmp_path).metrics()
    assert frame.to_dict("list") == {"stage": ["0-sft"] * 2 + ["1-grpo"] * 2, "step": [1, 2] * 2, "loss": [0, 0, 1, 1]}
    assert reasoner.Run(tmp_path).rollouts().empty


def test_what_is_wrong_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ReasonerError, match="must be a run folder"):
        reasoner.Run(tmp_path).metrics()
    with pytest.raises(ReasonerError, match=r"unknown key 'optim\.lrr'"):
        reasoner.run(TINY, optim={"lrr": 1})
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = reasoner.trian  # pyright: ignore[reportAttributeAccessIssue]


def test_parts_of_a_run_are_started_by_the_command_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"only the command does: `reasoner train CONFIG`"):
        reasoner.run("quickstart", output=str(tmp_path / "run"), cluster={"trainers": 2})
    assert not (tmp_path / "run").exists()
