from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import get_args

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reasoner.config.errors import ConfigError
from reasoner.config.sections import TrackerName
from reasoner.monitoring.trackers import open_trackers
from reasoner.storage.files import RunError
from reasoner.storage.run_folder import RunFolder
from tests.unit.reasoner.runs import stage


class Wandb(ModuleType):
    """A stand-in for the parts of wandb that accelerate calls; every call is recorded."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.calls: list[tuple[str, object]] = []
        self.config = SimpleNamespace(update=lambda values, **_: self.calls.append(("config", values)))
        self.broken = False

    def init(self, **options: object) -> Wandb:
        self.calls.append(("init", options))
        return self

    def log(self, metrics: object, step: int) -> None:
        if self.broken:
            raise ConnectionError("the server is away")
        self.calls.append(("log", (step, metrics)))

    def finish(self) -> None:
        self.calls.append(("finish", None))


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def opened(folder: Path, notes: list[str], *, tensorboard: bool = False, purge_step: int | None = None) -> RunFolder:
    named = [] if tensorboard else ["wandb"]
    config = stage(logging={"tensorboard": tensorboard, "trackers": named, "project": "p"}, name="n")
    trackers = open_trackers(config, folder, purge_step=purge_step, note=notes.append)
    run = RunFolder(folder, config)
    run.begin(offsets={}, environment={})
    run.trackers = trackers
    return run


def test_a_tracker_gets_the_numbers_of_metrics_jsonl(wandb: Wandb, tmp_path: Path) -> None:
    for _ in range(2):  # a resumed stage goes on in the same run
        run = opened(tmp_path / "1-grpo", [])
        run.log(3, {"reward/mean": 0.5})
        run.track(3, {"eval/avg@1": 0.25})
        run.close()
    names = [name for name, _ in wandb.calls]
    assert names == ["init", "config", "log", "log", "finish"] * 2
    (_, first), (_, config), (_, logged), (_, evaluated), _, (_, second), *_ = wandb.calls
    assert first == second
    assert (first["project"], first["name"]) == ("p", "n-1-grpo")  # type: ignore[index]
    assert config["method"] == "grpo"  # type: ignore[index]
    assert (logged, evaluated) == ((3, {"reward/mean": 0.5}), (3, {"eval/avg@1": 0.25}))
    assert (tmp_path / "1-grpo" / "metrics.jsonl").read_text().count("\n") == 1, "evaluations have a file of their own"


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(wandb: Wandb, tmp_path: Path) -> None:
    notes: list[str] = []
    run = opened(tmp_path / "run", notes)
    wandb.broken = True
    run.log(1, {"reward/mean": 0.5})
    run.log(2, {"reward/mean": 0.6})
    run.close()
    (note,) = notes
    assert "wandb did not take step 1 (ConnectionError: the server is away)" in note
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 2
    assert ("finish", None) not in wandb.calls


def test_a_tracker_that_does_not_begin_is_said_before_the_run(wandb: Wandb, tmp_path: Path) -> None:
    def init(**_: object) -> Wandb:
        raise RuntimeError("no API key")

    wandb.init = init  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"wandb, which does not start: RuntimeError: no API key"):
        opened(tmp_path / "run", [])


def test_tensorboard_drops_what_a_killed_run_wrote_after_its_checkpoint(tmp_path: Path) -> None:
    for purge, value in ((None, 0.1), (2, 0.9)):
        run = opened(tmp_path, [], tensorboard=True, purge_step=purge)
        for step in (1, 2, 3) if purge is None else (3,):
            run.log(step, {"reward/mean": value})
        run.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(e.step, round(e.value, 3)) for e in board.Scalars("reward/mean")] == [(1, 0.1), (3, 0.9)]


def test_every_tracker_of_the_config_is_one_that_accelerate_knows() -> None:
    assert {*get_args(TrackerName), "tensorboard"} == LOGGER_TYPE_TO_CLASS.keys()


def test_a_tracker_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    config = stage(logging={"tensorboard": False, "trackers": ["trackio"]})
    with pytest.raises(ConfigError, match="pip install trackio"):
        open_trackers(config, tmp_path, purge_step=None, note=print)


def test_records_shorter_than_at_the_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rollouts.jsonl").write_text("{}\n")
    run = RunFolder(tmp_path, stage(logging={"tensorboard": False}))
    with pytest.raises(RunError, match=r"rollouts.jsonl must have at least the 100 bytes .* it has 3. Restore it"):
        run.begin(offsets={"rollouts.jsonl": 100}, environment={})
    run.close()
    assert (tmp_path / "rollouts.jsonl").read_text() == "{}\n"
