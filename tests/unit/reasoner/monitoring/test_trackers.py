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

    def Table(self, columns: list[str], data: list[list[object]]) -> list[dict[str, object]]:
        return [dict(zip(columns, row, strict=True)) for row in data]

    AlertLevel = SimpleNamespace(ERROR="error", WARN="warn")

    def alert(self, **said: object) -> None:
        self.calls.append(("alert", said))

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
    for purge_step in (None, 3):  # a resumed stage goes on in the same run
        run = opened(tmp_path / "1-grpo", [], purge_step=purge_step)
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


def test_a_folder_that_is_begun_anew_is_a_new_run_with_its_name_group_and_tags(wandb: Wandb, tmp_path: Path) -> None:
    section = {"tensorboard": False, "trackers": ["wandb"], "run": "third try", "group": "g", "tags": ["a", "b"]}
    config = stage(logging=section, name="n")
    for purge_step in (None, 4, None):
        for tracker in open_trackers(config, tmp_path / "run", purge_step=purge_step, note=print):
            tracker.close()
    made = [options for name, options in wandb.calls if name == "init"]
    first, resumed, anew = made
    assert first == resumed
    assert first["id"] != anew["id"]  # type: ignore[index]
    assert [first[key] for key in ("name", "group", "tags")] == ["third try", "g", ["a", "b"]]  # type: ignore[index]


def test_samples_are_tables_and_findings_are_alerts(wandb: Wandb, tmp_path: Path) -> None:
    run = opened(tmp_path / "run", [])
    for step in range(1, 21):
        rows = [
            {"step": step, "problem": f"p{n}", "prompt": "q", "completion": f"c{n}", "reference": [1], "reward": 0.5,
             "verdict": {"outcome": "partial", "answer": None}}
            for n in range(32)
        ]  # fmt: skip
        run.append("rollouts.jsonl", rows[:16])
        run.append("rollouts.jsonl", rows[16:])
    run.append("eval_rollouts.jsonl", [{"step": 7, "problem": "p", "reward": 1.0, "verdict": {"outcome": "correct"}}])
    run.append("alarms.jsonl", [{"step": 7, "alarm": "longer", "sentence": "It writes more."}])
    run.alert("x" * 100, "why", is_fault=False)
    run.close()
    tables = [logged for name, logged in wandb.calls if name == "log"]
    assert [(step, [*table]) for step, table in tables] == [  # type: ignore[misc]
        (10, ["samples/train"]), (20, ["samples/train"]), (7, ["samples/eval"]),
    ]  # fmt: skip
    shown = tables[0][1]["samples/train"]  # type: ignore[index]
    assert len(shown) == 8
    assert shown[1] == {
        "step": 10, "problem": "p2", "prompt": "q", "completion": "c2", "reference": "[1]", "reward": 0.5,
        "outcome": "partial", "answer": None,
    }  # fmt: skip
    alerts = [said for name, said in wandb.calls if name == "alert"]
    assert alerts[0] == {"title": "longer", "text": "It writes more.", "level": "error"}
    assert (len(alerts[1]["title"]), alerts[1]["level"]) == (63, "warn")  # type: ignore[index]
