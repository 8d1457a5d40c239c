"""The last lines of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasoner.cli.closing import figure, print_closing
from reasoner.config.kept_prompt import KeptPrompt, write_kept_prompt
from reasoner.config.load import resolve
from reasoner.config.stage import RunConfig
from reasoner.session.kept_model import recorded_environment
from tests.unit.reasoner.observe.analysis.test_rounds import completion
from tests.unit.reasoner.runs import make_records, write_run


@pytest.mark.parametrize(
    ("estimate", "like", "says"),
    [
        ([0.5, 0.4, 0.6], [0.2, 0.1, 0.3], "50.0% [40.0%, 60.0%]"),
        ([0.0, 0.0, 1.0], [1.0, 0.0, 1.0], "0.0% [0.0%, 100.0%]"),
        ([-0.5, -0.6, -0.4], [0.2, 0.1, 0.3], "-0.500 [-0.600, -0.400]"),
        ([0.5, 0.4, 0.6], [1.2, 1.1, 1.3], "0.500 [0.400, 0.600]"),
        ([0.9, 0.8, 1.0001], [0.9, 0.8, 1.0], "0.900 [0.800, 1.000]"),
    ],
    ids=["shares", "0 and 1 are shares", "no share", "the other is no share", "its interval is none"],
)
def test_shares_are_percent_where_both_are_shares(estimate: list[float], like: list[float], says: str) -> None:
    assert figure(estimate, like=like) == says


def run_of(folder: Path, *, stages: list[str]) -> RunConfig:
    one: dict[str, object] = {"task": "arithmetic", "model": "somewhere", "output": str(folder)}
    return resolve({**one, "stages": [{"method": method} for method in stages]} if len(stages) > 1 else one)


def finish(folder: Path, before: dict[str, list[float]], after: dict[str, list[float]]) -> Path:
    write_run(folder, make_records(steps=3, accuracy=lambda step: 0.5))
    (folder / "done.json").write_text(json.dumps({"steps": 3, "before": before, "after": after}))
    return folder


def printed(run: RunConfig, capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_closing(run)
    return capsys.readouterr().out.splitlines()


def test_one_stage_says_what_changed_and_where_everything_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path / "run", stages=["grpo"])
    folder = finish(
        tmp_path / "run",
        {"avg@1": [0.25, 0.125, 0.5]},
        {"avg@1": [0.75, 0.5, 0.875], "row_loss": [1.5, 1.25, 2.0]},
    )
    lines = printed(run, capsys)
    assert lines[:2] == [
        "grpo: held-out avg@1 25.0% [12.5%, 50.0%] -> 75.0% [50.0%, 87.5%]",
        "grpo: held-out row_loss 1.500 [1.250, 2.000]",
    ]
    assert lines[2] == f"grpo {folder}: 3 of 20 steps, 144 rollouts, complete"
    assert lines[-3:] == [
        f"records  {folder}/rollouts.jsonl, metrics.jsonl",
        f"report   reasoner report {folder}",
        f"model    {folder}/final",
    ]


@pytest.mark.parametrize(("environment", "talks"), [(None, 1), ("guess", 0)])
def test_a_model_is_offered_to_talk_to_where_no_environment_answered_it(
    environment: str | None, talks: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path, stages=["grpo"])
    folder = finish(tmp_path, {}, {})
    if environment is not None:
        (folder / "rollouts.jsonl").write_text(json.dumps({"step": 1, "environment": f"/games/{environment}"}) + "\n")
    (folder / "final").mkdir()
    found = recorded_environment(folder) if environment else None
    assert found == environment
    write_kept_prompt(folder / "final", KeptPrompt(environment=found))
    finish(tmp_path, {}, {})
    assert sum(line.startswith("talk ") for line in printed(run, capsys)) == talks


def test_a_loss_that_crosses_1_is_no_percentage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    high, low = [1.5, 1.25, 2.0], [0.5, 0.25, 0.75]
    run = run_of(tmp_path, stages=["grpo"])
    finish(tmp_path, {"falls": high, "rises": low}, {"falls": low, "rises": high})
    assert printed(run, capsys)[:2] == [
        "grpo: held-out falls 1.500 [1.250, 2.000] -> 0.500 [0.250, 0.750]",
        "grpo: held-out rises 0.500 [0.250, 0.750] -> 1.500 [1.250, 2.000]",
    ]


def test_several_stages_come_in_order_and_the_last_ones_model_is_the_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path, stages=["sft", "grpo"])
    for name, value in (("0-sft", 0.25), ("1-grpo", 0.5)):
        finish(tmp_path / name, {}, {"avg@1": [value, 0.0, 1.0]})
    lines = printed(run, capsys)
    assert [line for line in lines if "held-out" in line] == [
        "sft: held-out avg@1 25.0% [0.0%, 100.0%]",
        "grpo: held-out avg@1 50.0% [0.0%, 100.0%]",
    ]
    assert [line for line in lines if line.startswith("grpo /")] == [
        f"grpo {tmp_path / name}: 3 of 20 steps, 144 rollouts, complete" for name in ("0-sft", "1-grpo")
    ]
    assert lines[-2:] == [f"report   reasoner report {tmp_path}", f"model    {tmp_path}/1-grpo/final"]


def test_rounds_stand_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path, stages=["grpo", "grpo"])
    for number, won in enumerate([[0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]]):
        folder = finish(tmp_path / f"{number}-grpo", {}, {})
        (folder / "final").mkdir()
        rewards = {0: [0.0, 1.0, 0.0, 0.0], 3: won}
        rows = [completion(step, at, value, "p") for step, values in rewards.items() for at, value in enumerate(values)]
        (folder / "eval_rollouts.jsonl").write_text("".join(row + "\n" for row in rows))
    lines = printed(run, capsys)
    at = lines.index("rounds, each on the same 4 held-out problems:")
    assert lines[at + 1].split() == ["avg@1", *"win rate against the start, ties half".split()]
    assert lines[at + 2] == "  before 0-grpo  30.0% [20.0%, 42.0%]"
    assert lines[at + 3].startswith("  0-grpo         70.0% [58.0%, 80.0%]  62.5% [")
    assert lines[at + 4].startswith("  1-grpo         70.0% [58.0%, 80.0%]  87.5% [")
