"""The table of a run's rounds: what is compared with what, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasoner.config.load import dump
from reasoner.observe.analysis.rounds import rounds
from tests.unit.reasoner.runs import stage

START = [0.0, 0.5, 1.0, 1.0]


def completion(step: int, place: int, reward: float, prefix: str) -> str:
    verdict = {"outcome": "correct" if reward == 1 else "partial", "reward": reward}
    row = {"step": step, "group": place, "sample": 0, "problem": f"{prefix}{place}", "task": "topics"}
    return json.dumps(
        {**row, "completion": "c", "reward": reward, "tokens": 1, "finish_reason": "stop", "verdict": verdict}
    )


def write_stage(folder: Path, method: str, evaluations: dict[int, list[float]], *, prefix: str = "p") -> None:
    """Write a stage whose evaluations gave these rewards, by step."""
    folder.mkdir(parents=True)
    data = {"preferences": {"train": "pairs.jsonl"}} if method in ("dpo", "reward_model") else {}
    (folder / "config.yaml").write_text(dump(stage(method=method, task="topics", **data)))
    texts = [
        completion(s, place, value, prefix) for s, rewards in evaluations.items() for place, value in enumerate(rewards)
    ]
    (folder / "eval_rollouts.jsonl").write_text("".join(text + "\n" for text in texts))
    records = [
        *({"step": step, "metrics": {"accuracy": [1.0, 0.5, 1.0]}, "pairs": 9} for step in evaluations),
        *(
            {"step": s, "problems": len(r), "metrics": {"avg@1": [sum(r) / len(r), 0.0, 1.0]}}
            for s, r in evaluations.items()
        ),
    ]
    (folder / "evals.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_each_round_is_compared_with_the_policy_before_the_first(tmp_path: Path) -> None:
    write_stage(tmp_path / "0-sft", "sft", {0: [0.0] * 4, 9: [0.25] * 4})
    write_stage(tmp_path / "1-pairs", "pairs", {})
    write_stage(tmp_path / "2-dpo", "dpo", {0: START, 5: [0.0] * 4, 10: [1.0, 0.5, 1.0, 0.0]})
    write_stage(tmp_path / "10-dpo", "dpo", {0: [0.0] * 4, 10: [1.0, 1.0, 1.0, 1.0]})
    start, first, second = rounds(tmp_path)
    assert (start.stage, start.step, start.estimate, start.against_start) == ("2-dpo", 0, (0.625, 0.0, 1.0), None)
    assert (first.stage, first.step, first.estimate) == ("2-dpo", 10, (0.625, 0.0, 1.0))
    assert first.against_start is not None
    assert first.against_start.win_rate == 0.5  # one win, one loss, two ties
    assert second.against_start is not None
    assert (second.stage, second.against_start.win_rate, second.against_start.problems) == ("10-dpo", 0.75, 4)
    assert second.to_json()["win_rate"] == [0.75, second.against_start.win_low, second.against_start.win_high]


def test_stages_on_other_problems_or_without_a_policy_are_no_rounds(tmp_path: Path) -> None:
    write_stage(tmp_path / "0-dpo", "dpo", {0: START, 3: START})
    write_stage(tmp_path / "1-reward_model", "reward_model", {0: START, 3: START})
    write_stage(tmp_path / "2-dpo", "dpo", {0: START, 3: START}, prefix="other")
    write_stage(tmp_path / "3-dpo", "dpo", {0: START})  # still running
    assert rounds(tmp_path) == []  # of a single stage, before and after say the same
    write_stage(tmp_path / "4-grpo", "grpo", {0: START, 3: [1.0] * 4})
    assert [(one.stage, one.step) for one in rounds(tmp_path)] == [("0-dpo", 0), ("0-dpo", 3), ("4-grpo", 3)]


@pytest.mark.parametrize("alone", [True, False])
def test_one_stage_has_no_rounds(tmp_path: Path, alone: bool) -> None:
    write_stage(tmp_path / ("run" if alone else "run/0-dpo"), "dpo", {0: START, 3: START})
    assert rounds(tmp_path / "run") == []
