"""`reasoner eval RUN` evaluates as the run did; several tasks have a figure each, everywhere that figures go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from reasoner.cli import app
from reasoner.cli.closing import print_closing
from reasoner.config.load import load_config
from reasoner.observe.report.evaluations import before_after, evaluation_charts
from reasoner.policy.checkpoint import load_progress
from reasoner.stages.pipeline import run_pipeline
from reasoner.storage.history import read_history

pytestmark = pytest.mark.integration
ASCII_FIRST = {"name": "format", "options": {"pattern": "[ -~].*"}}
"""A verifier that an untrained model satisfies by chance."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval")
    config = {
        "output": str(folder / "run"),
        "seed": 7,
        "steps": 2,
        "task": [
            {"name": "arithmetic", "options": {"digits": 2}, "verifier": ASCII_FIRST},
            {"name": "countdown", "verifier": ASCII_FIRST, "weight": 2},
        ],
        "prompt": {"chat": "never", "template": "Q: {prompt}"},
        "model": {"from_scratch": {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 256}},
        "rollout": {"problems_per_step": 2, "group_size": 2, "max_tokens": 8},
        "optim": {"lr": 0.01},
        "engine": {"name": "hf"},
        "eval": {"problems": 9, "samples": 2, "every": 1, "temperature": 0.5, "max_tokens": 6,
                 "metric": "countdown/avg@2"},
        "checkpoint": {"every": 1},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    run_pipeline(load_config(str(folder / "config.yaml")), resume=False)
    return folder / "run"


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_each_set_and_all_problems_have_a_figure(run: Path) -> None:
    last, done = rows(run, "evals.jsonl")[-1], rows(run, "eval_rollouts.jsonl")
    assert {name: part["problems"] for name, part in last["sets"].items()} == {"arithmetic": 5, "countdown": 4}
    of_last = [row for row in done if row["step"] == last["step"]]
    for name, part in {"pooled": of_last, **{t: [r for r in of_last if r["task"] == t] for t in last["sets"]}}.items():
        mean = sum(row["reward"] for row in part) / len(part)
        assert last["metrics"][f"{name}/avg@2"][0] == pytest.approx(mean), name
    assert "avg@2" not in last["metrics"], "a figure over several sets is named as such"


def test_the_figures_of_sets_reach_trackers_closing_and_report(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evals = rows(run, "evals.jsonl")
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    for name in ("pooled/avg@2", "arithmetic/avg@2", "countdown/pass@2"):
        sent = [(event.step, round(event.value, 5)) for event in board.Scalars(f"eval/{name}")]
        assert sent == [(row["step"], round(row["metrics"][name][0], 5)) for row in evals]
    print_closing(load_config(str(run / "config.yaml"), [f"output={run}"]))
    assert "grpo: held-out arithmetic/avg@2 " in capsys.readouterr().out
    history = read_history(run)
    table = {row["metric"]: row["behind"] for row in before_after(history)}
    assert (table["pooled/avg@2"], table["arithmetic/avg@2"], table["countdown/avg@2"]) == (9, 5, 4)
    chart = next(chart for chart in evaluation_charts(history) if chart["title"] == "Held-out avg@2")
    assert [line["name"] for line in chart["series"]] == [
        f"eval/{name}/avg@2" for name in ("pooled", "arithmetic", "countdown")
    ]
    assert chart["x"] == [0, 1, 2]


def test_the_best_model_is_that_of_the_named_set(run: Path) -> None:
    after = {row["step"]: row["metrics"]["countdown/avg@2"][0] for row in rows(run, "evals.jsonl") if row["step"]}
    assert load_progress(run / "checkpoints" / "step-000002").state.best == max(after.values())


@pytest.fixture(autouse=True)
def _torch_is_there_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reasoner.engine.environment.prepare_process", lambda: None)


def evaluate(*arguments: str) -> tuple[dict[str, Any], str]:
    done = CliRunner().invoke(app, ["eval", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_a_run_is_evaluated_as_it_evaluated_itself(run: Path, tmp_path: Path) -> None:
    found, said = evaluate(str(run), "--output", str(tmp_path))
    last = rows(run, "evals.jsonl")[-1]
    assert found["metrics"] == last["metrics"]
    ours, theirs = rows(tmp_path, "eval_rollouts.jsonl"), rows(run, "eval_rollouts.jsonl")[-18:]
    assert [row["completion"] for row in ours] == [row["completion"] for row in theirs]
    assert "9 problems x 2, temperature 0.5, top_p 1, at most 6 tokens, seed 7, engine hf" in said
    assert "task arithmetic test {'digits': 2}, verifier:" in said
    assert "verifier: format {'pattern': '[ -~].*'}" in said
    assert "prompt: {'template': 'Q: {prompt}', 'chat': 'never'}" in said


def test_what_is_given_wins(run: Path) -> None:
    found, said = evaluate(
        str(run), "--task", "arithmetic", "--problems", "3", "--samples", "1", "--temperature", "0",
        "--verifier-option", "pattern=.*", "--max-tokens", "4", "prompt.template=Ask {prompt}",
    )  # fmt: skip
    assert found["metrics"]["avg@1"][0] == 1.0
    assert (found["problems"], found["task"]) == (3, "arithmetic")
    assert "3 problems x 1, temperature 0, top_p 1, at most 4 tokens" in said
    assert "verifier: format {'pattern': '.*'}" in said
    assert "'template': 'Ask {prompt}'" in said
    never = ("--verifier", "format", "--verifier-option", "pattern=zzz")
    other, _ = evaluate(str(run), "--task", "countdown", *never, "--problems", "2")
    assert other["metrics"]["avg@2"][0] == 0.0


def test_a_model_of_no_run_needs_a_task(run: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.symlink_to(run / "final")
    done = CliRunner().invoke(app, ["eval", str(model)])
    assert done.exit_code != 0
    assert "--task must name a task" in done.output
