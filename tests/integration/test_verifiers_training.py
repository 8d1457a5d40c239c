"""Runs with a failing verifier: they train on the rest and say so, and stop above the configured share of failures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.test_bad_input import config_file, reasoner

pytestmark = [pytest.mark.integration, pytest.mark.slow]
FLAKY = f"{Path(__file__).parent / 'flaky.py'}:Flaky"


def with_verifier(tmp_path: Path, verifier: dict[str, object], **changes: object) -> Path:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n}+1?", "reference": str(n + 1)}) + "\n" for n in range(40)))
    task = {"name": "dataset", "options": {"path": str(rows), "verifier": "math"}, "verifier": verifier}
    rollout = {"problems_per_step": 8, "group_size": 8, "max_tokens": 8}
    return config_file(tmp_path, task=task, rollout=rollout, eval={"problems": 0}, steps=3, **changes)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def test_a_verifier_that_fails_on_a_tenth_leaves_the_rest_to_train_on(tmp_path: Path) -> None:
    done = reasoner("train", str(with_verifier(tmp_path, {"name": FLAKY, "options": {"percent": 10}})))
    assert done.returncode == 0, done.stderr[-2000:]
    rollouts = lines(tmp_path / "run" / "rollouts.jsonl")
    failed = [row for row in rollouts if row["reward"] is None]
    assert len(rollouts) == 3 * 64
    assert 0.03 < len(failed) / len(rollouts) < 0.2
    reasons = {row["verdict"]["detail"]["reason"][:40] for row in failed}  # pyright: ignore
    assert (
        reasons == {"ValueError: this one is too much for me ", "the grading worker exited with status 9 "}
        or len(reasons) == 2
    )
    assert all(row["verdict"]["outcome"] == "verifier_error" for row in failed)  # pyright: ignore
    updates = lines(tmp_path / "run" / "updates.jsonl")
    dropped = [row for row in updates if row.get("dropped") == "verifier_error"]
    assert len(dropped) == len(failed)
    keys = {(row["step"], row["group"], row["sample"]) for row in failed}
    assert keys == {(row["step"], row["group"], row["sample"]) for row in dropped}
    kept = [row for row in updates if "advantage" in row]
    assert len(kept) > 0.6 * len(rollouts)
    for step in (1, 2, 3):  # the failed ones are in no group's mean: kept advantages of a group still sum to zero
        for group in {row["group"] for row in kept if row["step"] == step}:
            total = sum(float(str(r["advantage"])) for r in kept if r["step"] == step and r["group"] == group)
            assert abs(total) < 1e-4
    metrics = lines(tmp_path / "run" / "metrics.jsonl")
    shares = [float(str(row["grading/ungraded"])) for row in metrics]
    assert sum(shares) / 3 == pytest.approx(len(failed) / len(rollouts))


def test_above_the_share_the_run_stops_with_the_cause(tmp_path: Path) -> None:
    config = with_verifier(tmp_path, {"name": FLAKY, "options": {"percent": 60}})
    done = reasoner("train", str(config))
    assert done.returncode == 1
    assert "could not be graded, above grading.max_ungraded_share=20%" in done.stderr
    assert "this one is too much for me" in done.stderr
    assert "Fix the verifier, then --resume" in done.stderr
    assert len(lines(tmp_path / "run" / "rollouts.jsonl")) == 64  # what was seen is on disk
    more = reasoner("train", str(config), "--resume", "grading.max_ungraded_share=0.9")
    assert more.returncode == 0, more.stderr[-2000:]


def test_components_of_a_composed_reward_are_logged_by_name(tmp_path: Path) -> None:
    parts = [
        {"verifier": FLAKY, "options": {"percent": 0}, "name": "digest", "weight": 0.7},
        {"verifier": "length", "options": {"soft": 0, "hard": 20, "unit": "characters"}, "weight": 0.3},
    ]
    done = reasoner("train", str(with_verifier(tmp_path, {"name": "weighted", "options": {"parts": parts}})))
    assert done.returncode == 0, done.stderr[-2000:]
    for row in lines(tmp_path / "run" / "rollouts.jsonl"):
        components = row["components"]
        assert isinstance(components, dict)
        assert set(components) == {"digest", "length"}
        assert row["reward"] == pytest.approx(0.7 * components["digest"] + 0.3 * components["length"])
    for row in lines(tmp_path / "run" / "metrics.jsonl"):
        assert {"component/digest", "component/length"} <= row.keys()
