"""`reasoner report` on runs of every method, whole, killed early and empty."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from reasoner.config.load import resolve
from reasoner.config.methods import METHODS
from reasoner.observe.report import build_report, write_report
from reasoner.stages.pipeline import run_pipeline
from tests.integration.test_report import open_page
from tests.unit.reasoner.observe.report.test_report import unpack

pytestmark = pytest.mark.integration
TASK = {"name": "covering", "options": {"train_size": 200, "test_size": 40}}
PAIRS = {"preferences": {"train": "stages:pairs", "held_out_share": 0.3}}
ROUND = [
    {"method": "pairs", "steps": 1, "rollout": {"group_size": 2}, "eval": {"problems": 0}},
    {"method": "reward_model", "model": "stage:sft", "steps": 2, "reward_model": {"pairs_per_step": 4}, **PAIRS},
    {
        "method": "ppo",
        "steps": 2,
        "reward": {"name": "reward-model", "options": {"model": "stage:reward_model"}},
        "algorithm": {"kl_coef": 0.1, "kl_in": "reward"},
    },
    {"method": "dpo", "steps": 2, "dpo": {"pairs_per_step": 4}, **PAIRS},
    {"method": "kto", "steps": 2, "kto": {"rows_per_step": 4, "split_pairs": True}, **PAIRS},
]
STAGES = [
    {
        "method": "sft",
        "steps": 2,
        "model": {"from_scratch": {"hidden_size": 16, "layers": 1, "heads": 2, "max_positions": 512}},
        "sft": {"rows_per_step": 16, "held_out": 8},
    },
    {"repeat": 2, "stages": ROUND},
    {"method": "constitutional", "steps": 1, "rollout": {"problems_per_step": 2, "group_size": 2}},
    {"method": "grpo", "steps": 1, "rollout": {"group_size": 2}},
    {"method": "distill", "steps": 1, "teacher": "stage:sft"},
    {"method": "gkd", "steps": 1, "teacher": "stage:sft", "sft": {"rows_per_step": 16, "held_out": 8}},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("methods") / "run"
    raw: dict[str, object] = {
        "name": "r",
        "output": str(folder),
        "task": TASK,
        "prompt": {"chat": "never"},
        "rollout": {"problems_per_step": 8, "group_size": 1, "max_tokens": 8},
        "engine": {"name": "hf"},
        "optim": {"lr": 1e-3},
        "eval": {"problems": 8, "every": 1},
        "watch": {"scorer": {"name": "own"}},
        "logging": {"tensorboard": False},
        "stages": STAGES,
    }
    run_pipeline(resolve(raw), resume=False)
    return folder


def stages_of(page: str) -> dict[str, dict[str, Any]]:
    head: Any = unpack(page, "head")
    return {stage["name"].partition("-")[2] or stage["name"]: stage for stage in head["stages"]}


def drawn(stage: dict[str, Any]) -> dict[str, list[float | None]]:
    return {line["name"]: line["values"] for chart in stage["curves"] for line in chart["series"]}


def test_every_method_shows_what_it_measured(run: Path) -> None:
    stages = stages_of(build_report(run, audit=5))
    assert stages.keys() == METHODS.keys()
    shown = {method: drawn(stage) for method, stage in stages.items()}
    watched = {"watch/proxy", "watch/held_out", "watch/agreement", "watch/repetition", "watch/length"}
    assert watched | {"kl/ref", "kl/coef", "value/error", "value/error_squared", "eval/avg@1"} <= shown["ppo"].keys()
    assert {"eval/loss", "eval/accuracy", "eval/calibration_error"} <= shown["reward_model"].keys()
    assert {"eval/loss", "eval/accuracy", "eval/avg@1", "dpo/margin", "dpo/reward_rejected"} <= shown["dpo"].keys()
    assert {"eval/loss", "eval/perplexity", "eval/avg@1"} <= shown["sft"].keys()
    assert {"eval/loss", "eval/accuracy", "kto/kl"} <= shown["kto"].keys()
    assert "constitutional/changed" in shown["constitutional"]
    assert "teacher/reverse_kl" in shown["distill"]
    losses = [json.loads(line).get("loss") for line in (run / "0-sft" / "evals.jsonl").read_text().splitlines()]
    assert shown["sft"]["eval/loss"] == [loss for loss in losses if loss is not None]
    table = {row["metric"]: row for row in stages["dpo"]["before_after"]}
    assert table["avg@1"]["before"] is not None, "held-out rows were measured last, answers before them"
    assert (table["loss"]["share"], table["accuracy"]["share"]) == (False, True)
    probed = {row["probe"]: row for row in stages["reward_model"]["probes"]}
    assert {"flattery", "padding", "bullets", "opinion (shift of the margin)"} <= probed.keys()
    assert probed["flattery"]["behind"] > 0
    assert stages["dpo"]["probes"] == []
    told = {name for chart in stages["ppo"]["curves"] for name, _, _ in chart["help"]}
    assert {"kl/ref", "watch/proxy", "policy/clip_fraction_low", "eval/avg@1"} <= told


def test_the_browser_shows_the_rounds(run: Path, tmp_path: Path, browser: Any) -> None:
    write_report(run, tmp_path / "report.html", audit=0)
    page, problems, _ = open_page(browser, tmp_path / "report.html")
    text = page.inner_text("#overview").replace("\xa0", " ")
    assert "Rounds, on the same held-out problems" in text
    rows = [line.split("\t") for line in text.splitlines() if line.startswith(("before 3-ppo\t", "9-dpo\t"))]
    assert [(row[0], "[" in row[1], "[" in row[2], row[3]) for row in rows] == [
        ("before 3-ppo", True, False, "–"),
        ("9-dpo", True, True, "8"),
    ]
    assert problems == []


def test_a_stage_killed_after_a_step_and_one_before_its_first(run: Path, tmp_path: Path) -> None:
    for place, folder in enumerate(sorted(run.glob("[0-9]*-*"))):
        killed = tmp_path / f"{place}" / "run"
        shutil.copytree(folder, killed, ignore=shutil.ignore_patterns("checkpoints", "final", "done.json"))
        for file in killed.glob("*.jsonl"):
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        assert not stages_of(build_report(killed))["run"]["complete"]
        for file in killed.glob("*.jsonl"):
            file.write_bytes(b"") if place % 2 else file.unlink()
        empty = stages_of(build_report(killed))["run"]
        assert (empty["steps"], empty["curves"], empty["before_after"]) == (0, [], [])


def test_the_browser_shows_alarms_losses_and_a_loss_that_is_not_finite(run: Path, tmp_path: Path, browser: Any) -> None:
    stage = next(run.glob("*-ppo"))
    copied = tmp_path / "run"
    shutil.copytree(stage, copied, ignore=shutil.ignore_patterns("checkpoints", "final"))
    behind = [{"group": 3, "sample": 0, "prompt": "p", "completion": "c", "reward": 1.0, "held_out": -1.0}]
    alarm = {"step": 2, "alarm": "length", "sentence": "completions grew", "evidence": {"to": 9.5}, "rollouts": behind}
    (copied / "alarms.jsonl").write_text(json.dumps(alarm) + "\n")
    with (copied / "evals.jsonl").open("a") as file:
        file.write(
            json.dumps({"step": 2, "metrics": {"row_loss": [float("nan")] * 3}, "loss": 0.693, "rows": 4}) + "\n"
        )
    write_report(copied, tmp_path / "report.html", audit=0)
    page, problems, _ = open_page(browser, tmp_path / "report.html")
    text = page.inner_text("#overview")
    assert "Step 2, length: completions grew" in text
    assert "loss\t–\t0.693" in text.replace("\xa0", " ")
    assert page.get_attribute("#overview .finding.warning a[href$='2/3/0']", "href") == "#/0/rollout/2/3/0"
    page.click("text=Curves")
    assert page.locator(".chart").count() > 20
    assert problems == []


def test_the_browser_shows_the_probes_of_a_reward_model(run: Path, tmp_path: Path, browser: Any) -> None:
    stage = next(run.glob("*-reward_model"))
    write_report(stage, tmp_path / "report.html", audit=0)
    page, problems, _ = open_page(browser, tmp_path / "report.html")
    text = page.inner_text("#overview")
    assert "Changes that should not matter to the reward model" in text
    (row,) = [line for line in text.splitlines() if line.startswith("flattery\t")]
    assert "[" in row.split("\t")[1]
    assert problems == []
