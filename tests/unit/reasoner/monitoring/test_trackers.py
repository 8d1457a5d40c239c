from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from reasoner.config.errors import ConfigError
from reasoner.monitoring.trackers import open_trackers
from reasoner.storage.files import RunError
from reasoner.storage.run_folder import RunFolder
from tests.unit.reasoner.runs import stage


def test_a_tracker_gets_the_numbers_of_metrics_jsonl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[str, object]] = []
    module = ModuleType("wandb")
    module.init = lambda **options: calls.append(("init", options))  # type: ignore[attr-defined]
    module.log = lambda metrics, step: calls.append(("log", (step, metrics)))  # type: ignore[attr-defined]
    module.finish = lambda: calls.append(("finish", None))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    config = stage(logging={"tensorboard": False, "trackers": ["wandb"], "project": "p"}, name="n")
    for _ in range(2):  # a resumed stage goes on in the same run
        run = RunFolder(tmp_path / "1-grpo", config)
        run.begin(offsets={}, environment={})
        run.trackers = open_trackers(config, run.path, purge_step=None)
        run.log(3, {"reward/mean": 0.5})
        run.close()
    names = [name for name, _ in calls]
    assert names == ["init", "log", "finish"] * 2
    first, second = calls[0][1], calls[3][1]
    assert first == second
    assert first["project"] == "p"  # type: ignore[index]
    assert first["name"] == "n-1-grpo"  # type: ignore[index]
    assert calls[1][1] == (3, {"reward/mean": 0.5})


def test_a_tracker_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    config = stage(logging={"tensorboard": False, "trackers": ["trackio"]})
    with pytest.raises(ConfigError, match="pip install trackio"):
        open_trackers(config, tmp_path, purge_step=None)


def test_records_shorter_than_at_the_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rollouts.jsonl").write_text("{}\n")
    run = RunFolder(tmp_path, stage(logging={"tensorboard": False}))
    with pytest.raises(RunError, match=r"rollouts.jsonl must hold the 100 bytes that it had .* it has 3. Restore it"):
        run.begin(offsets={"rollouts.jsonl": 100}, environment={})
    run.close()
    assert (tmp_path / "rollouts.jsonl").read_text() == "{}\n"
