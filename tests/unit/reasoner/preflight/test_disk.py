"""The bytes that a run will write, compared with the free space of its disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reasoner.config.load import resolve
from reasoner.config.stage import RunConfig
from reasoner.preflight.disk import check_space, disk_estimate, disk_line, space_line
from reasoner.storage.files import DiskError

MIB = 1 << 20


def run_of(folder: Path, **changes: Any) -> RunConfig:
    base = {"task": "gsm8k", "model": "org/Model-100M", "output": str(folder / "run"), "steps": 100, "method": "grpo"}
    return resolve({**base, **changes})


def with_free(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr("reasoner.preflight.disk.free_bytes", lambda path: int(free))


@pytest.mark.parametrize(
    ("changes", "count", "checkpoint"),
    [
        ({}, 3, {"weights": 4e8, "optimizer": 8e8}),
        ({"checkpoint": {"keep": 9, "every": 50}}, 3, {"weights": 4e8, "optimizer": 8e8}),
        ({"checkpoint": {"keep": 4, "every": 1}}, 5, {"weights": 4e8, "optimizer": 8e8}),
        ({"method": "ppo"}, 3, {"weights": 8e8, "optimizer": 16e8}),
        ({"method": "ppo", "value": {"trunk": "shared"}}, 3, {"weights": 4e8, "optimizer": 8e8}),
        ({"method": "pairs"}, 3, {"weights": 4e8, "optimizer": 0.0}),
    ],
)
def test_checkpoints_hold_weights_and_two_moments_of_each(
    changes: dict[str, Any], count: int, checkpoint: dict[str, float], tmp_path: Path
) -> None:
    found = disk_estimate(run_of(tmp_path, **changes).stages[0])
    assert found is not None
    assert found.checkpoints == count
    assert found.checkpoint == pytest.approx(checkpoint, rel=0.1)


def test_an_adapter_is_small_and_the_model_that_it_makes_is_not(tmp_path: Path) -> None:
    found = disk_estimate(run_of(tmp_path, model={"path": "org/Model-100M", "lora": {"rank": 8}}).stages[0])
    assert found is not None
    assert sum(found.checkpoint.values()) < 30 * MIB
    assert found.models["final"] == pytest.approx(4e8, rel=0.1)
    assert found.models["start"] == 0


def test_records_follow_the_rollouts_and_evaluations(tmp_path: Path) -> None:
    one, twice, never = (
        disk_estimate(run_of(tmp_path, rollout={"group_size": size}, eval={"problems": problems}).stages[0])
        for size, problems in ((8, 256), (16, 256), (8, 0))
    )
    assert one is not None
    assert twice is not None
    assert never is not None
    assert twice.records > 1.9 * one.records > 1.9 * never.records
    assert never.models["best"] == 0 < one.models["best"]


def test_a_run_that_cannot_fit_is_refused_and_one_whose_records_may_not_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path)
    found = disk_estimate(run.stages[0])
    assert found is not None
    models = sum(found.models.values())
    with_free(monkeypatch, found.total + 1)
    assert check_space(run) is None
    assert space_line(run).endswith("fits")
    with_free(monkeypatch, models + 1)
    assert "its records fit only if" in (check_space(run) or "")
    assert space_line(run).endswith("records may not fit")
    with_free(monkeypatch, models - MIB)
    with pytest.raises(DiskError, match=r"lower checkpoint\.keep, or set output to a folder on a larger disk"):
        check_space(run)
    assert space_line(run).endswith("DOES NOT FIT")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "training.pt").write_bytes(bytes(2 * MIB))
    assert check_space(run) is not None, "what is there already is not written again"


def test_a_model_of_unknown_size_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 1)
    run = run_of(tmp_path, model="org/some-model")
    assert check_space(run) is None
    assert disk_line(run.stages[0]) == "on disk: unknown until the model is available"
    assert space_line(run).startswith("disk: ")
