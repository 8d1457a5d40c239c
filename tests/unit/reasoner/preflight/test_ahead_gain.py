"""What `--dry-run` says of sampling ahead comes from the steps of the run in its folder."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from reasoner.config.load import resolve
from reasoner.preflight.ahead_gain import ahead_line, measured, predicted
from reasoner.preflight.ahead_model import Setting, drawn_from, one_batch, simulate
from reasoner.preflight.dry_run import print_plan

ROWS = 32


def write_run(
    folder: Path, *, speed: float = 3.0, update: float = 2.0, sync: float = 0.5, steps: int = 8, **rollout: int
) -> Path:
    """Write the records of a run whose sampler is as the model has it, but for its speed."""
    folder.mkdir(parents=True)
    sizes = {"problems_per_step": 4, "group_size": ROWS // 4, **rollout}
    engine = {"name": "vllm-server", "options": {"servers": 2}}
    stage = resolve({"task": "arithmetic", "rollout": sizes, "engine": engine, "output": str(folder)}).stages[0]
    (folder / "config.yaml").write_text(json.dumps(stage.model_dump(mode="json")))
    source = random.Random(1)
    with (folder / "metrics.jsonl").open("w") as metrics, (folder / "rollouts.jsonl").open("w") as rollouts:
        for step in range(1, steps + 1):
            lengths = [source.choice((20, 100, 400)) for _ in range(ROWS)]
            sampling = speed * one_batch(Setting(ROWS, 2, 0.0), lengths) * (9 if step == 1 else 1)
            times = {"time/rollout": sampling, "time/sync": sync, "time/step": sampling + update + sync}
            metrics.write(json.dumps({"step": step, **times}) + "\n")
            for length in lengths:
                rollouts.write(json.dumps({"step": step, "tokens": length}) + "\n")
    return folder


def test_the_speed_of_the_sampler_is_that_of_the_run(tmp_path: Path) -> None:
    run = measured(write_run(tmp_path / "run"))
    assert run is not None
    assert (run.steps, run.setting.rows, run.setting.replicas) == (7, ROWS, 2)
    assert run.setting.base == pytest.approx(3 * 0.006)
    assert (run.setting.update, run.setting.sync) == pytest.approx((2.0, 0.5))
    assert run.step_seconds == pytest.approx(run.sampling + 2.5)


def test_the_gain_is_that_of_the_model(tmp_path: Path) -> None:
    run = measured(write_run(tmp_path / "run"))
    assert run is not None
    found = predicted(run)
    assert found["ahead=1"] == pytest.approx(max(run.sampling, 2.0) + 0.5)
    assert found["ahead=4 go_on"] <= found["ahead=2 go_on"] <= found["ahead=1 go_on"] < run.step_seconds
    mean = sum(run.lengths) / len(run.lengths)
    busy = ROWS * mean / 2 * (run.setting.base / 16 + run.setting.row)  # two servers that are never idle, 16 rows each
    assert found["ahead=4 go_on"] > 0.8 * min(busy, 2.5)


def test_a_slow_trainer_leaves_the_sampler_nothing_to_gain(tmp_path: Path) -> None:
    run = measured(write_run(tmp_path / "run", update=100.0))
    assert run is not None
    assert predicted(run) == pytest.approx(dict.fromkeys(predicted(run), 100.5), rel=0.02)


def test_the_dry_run_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run")
    line = ahead_line(folder)
    assert line is not None
    config = resolve({"task": "arithmetic", "output": str(folder)})
    print_plan(config)
    said = " ".join(capsys.readouterr().out.replace("\n# ", "\n").split())
    assert line in said
    assert "rollout.ahead=1 " in line
    assert "devices of their own" in line


@pytest.mark.parametrize("changes", [{"ahead": 1}, {"steps": 4}])
def test_nothing_is_said_of_batches_that_were_sampled_ahead_or_of_a_few_steps(
    tmp_path: Path, changes: dict[str, int]
) -> None:
    assert ahead_line(tmp_path) is None
    assert ahead_line(write_run(tmp_path / "run", **changes)) is None


def test_batches_in_order_train_every_length_as_often_as_it_is_drawn() -> None:
    setting = Setting(64, 2, 1.0, ahead=4, most=16)
    lengths = [10] * 9 + [2000]
    ordered = simulate(setting, drawn_from(lengths, 0), 40)
    first = simulate(Setting(64, 2, 1.0, ahead=4, most=16, first_finished=True), drawn_from(lengths, 0), 40)
    assert ordered["length_trained_over_drawn"] == pytest.approx(1.0, abs=0.1)
    assert first["length_trained_over_drawn"] < ordered["length_trained_over_drawn"]
