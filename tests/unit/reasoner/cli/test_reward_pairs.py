"""`reasoner eval MODEL --pairs FILE`: twenty rows worked by hand, and a small reward model from training to figures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from typer.testing import CliRunner, Result

from reasoner.cli import app
from reasoner.config.load import resolve
from reasoner.data.pairs import encode_pairs, pair_batch
from reasoner.data.rows import Encoded
from reasoner.graders.reward_model import RewardModel
from reasoner.policy.policy import Policy
from reasoner.stages.pipeline import run_pipeline
from tests.unit.reasoner.algorithm.test_pairwise import SHAPE
from tests.unit.reasoner.runs import make_records, write_run
from tests.unit.reasoner.stages.test_reward_model import PAIRS, base, stage, trained
from verifiers.stats import wilson_interval

__all__ = ["base"]


@pytest.fixture(autouse=True)
def _torch_is_there_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reasoner.engine.environment.prepare_process", lambda: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the command asks no name server


def ask(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def told(*arguments: object) -> dict[str, Any]:
    done = ask(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(*arguments: object) -> str:
    done = ask(*arguments)
    assert done.exit_code != 0, done.output
    return done.stderr


def written(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


LONG = "long long long long"
TWENTY = [
    # subset, reward of the chosen and of the rejected completion, and which of them is longer
    ("alpacaeval-easy", 2, 1, "chosen"),
    ("alpacaeval-easy", 1, 1, "chosen"),
    ("alpacaeval-easy", 0, 1, "chosen"),
    ("alpacaeval-easy", 3, 1, "chosen"),
    ("alpacaeval-easy", 1, 0, "chosen"),
    ("mt-bench-med", 1, 0, "rejected"),
    ("mt-bench-med", 0, 2, "rejected"),
    ("mt-bench-med", 2, 2, "rejected"),
    ("llmbar-natural", 2, 0, "rejected"),
    ("llmbar-natural", 0, 1, "rejected"),
    ("llmbar-natural", 1, 2, "rejected"),
    ("llmbar-natural", 1, 0, "rejected"),
    ("refusals-dangerous", 1, 0, ""),
    ("refusals-dangerous", 3, 0, ""),
    ("refusals-dangerous", 2, 1, ""),
    ("math-prm", 0, 1, ""),
    ("math-prm", 0, 1, ""),
    ("hep-python", 1, 0, ""),
    ("hep-python", 1, 0, ""),
    ("hep-python", 0, 3, ""),
]


@pytest.fixture
def twenty(tmp_path: Path) -> Path:
    """A file in the columns of allenai/reward-bench; a completion begins with the reward that it gets below."""

    def said(reward: int, longer: bool, side: str) -> str:
        return f"{reward} {LONG if longer else ''}{side}"

    return written(
        tmp_path / "twenty.jsonl",
        [
            {"id": n, "prompt": f"ask {n}", "chosen": said(good, longer == "chosen", "a"), "chosen_model": "x",
             "rejected": said(bad, longer == "rejected", "b"), "rejected_model": "y", "subset": subset}
            for n, (subset, good, bad, longer) in enumerate(TWENTY)
        ],
    )  # fmt: skip


@pytest.fixture
def reads_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every reward model give the number with which a completion begins."""

    def outputs(
        self: RewardModel, rows: Sequence[Encoded], *, on_progress: Callable[[int], object] = lambda done: None
    ) -> list[list[float]]:
        on_progress(len(rows))
        return [[float(str(self.tokenizer.decode([*row.completion_ids])).split()[0])] for row in rows]

    monkeypatch.setattr(RewardModel, "outputs", outputs)


@pytest.mark.usefixtures("reads_rewards")
def test_twenty_rows_by_hand(base: Path, twenty: Path, tmp_path: Path) -> None:
    trained(stage(base), tmp_path / "rm", steps=0)
    found = told(tmp_path / "rm", "--pairs", twenty, "--output", tmp_path / "out")
    # 3 + 1 + 2 + 3 + 0 + 2 right; equal rewards are wrong
    assert found["metrics"]["accuracy"] == pytest.approx([11 / 20, 0.342085, 0.741803], abs=1e-6)
    assert found["equal_pairs"] == 2
    assert {name: (one["rows"], one["value"]) for name, one in found["subsets"].items()} == {
        "alpacaeval-easy": (5, pytest.approx(3 / 5)),
        "mt-bench-med": (3, pytest.approx(1 / 3)),
        "llmbar-natural": (4, pytest.approx(2 / 4)),
        "refusals-dangerous": (3, pytest.approx(3 / 3)),
        "math-prm": (2, pytest.approx(0 / 2)),
        "hep-python": (3, pytest.approx(2 / 3)),
    }
    assert [found["subsets"]["alpacaeval-easy"][end] for end in ("low", "high")] == pytest.approx(wilson_interval(3, 5))
    # weights 100 and 40; 984 and 164
    assert {name: one["value"] for name, one in found["sections"].items()} == pytest.approx(
        {"Chat": 11 / 21, "Chat Hard": 1 / 2, "Safety": 1.0, "Reasoning": 2 / 21}
    )
    assert (found["benchmark"], "score" in found["metrics"], len(found["missing_subsets"])) == (
        "RewardBench",
        False,
        17,
    )
    # |d| = 0: 2 pairs, none right; 1: 8 of 13; 2: 2 of 3; 3: 1 of 2; confidence s(|d|)
    by_hand = (2 * 0.5 + 13 * (0.7310586 - 8 / 13) + 3 * (0.8807971 - 2 / 3) + 2 * (0.9525741 - 1 / 2)) / 20
    assert found["calibration_error"] == pytest.approx(by_hand, abs=1e-6)
    assert [(one["pairs"], one["accuracy"]) for one in found["reliability"]] == [
        (2, 0.0), (13, pytest.approx(8 / 13)), (3, pytest.approx(2 / 3)), (2, 0.5)
    ]  # fmt: skip
    # 22 and 17 in sum; the margins add up to 5, their squares to 43
    rewards = found["rewards"]
    assert (rewards["chosen"]["mean"], rewards["rejected"]["mean"]) == pytest.approx((1.1, 0.85))
    assert (rewards["margin"]["mean"], rewards["margin"]["std"]) == pytest.approx((0.25, math.sqrt(43 / 20 - 0.0625)))
    length = found["length"]
    assert length["accuracy_when_longer_is_better"] == pytest.approx(3 / 5)
    assert length["accuracy_when_shorter_is_better"] == pytest.approx(3 / 7)
    assert length["labels_prefer_longer"] == pytest.approx(5 / 12)
    rows = [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").read_text().splitlines()]
    assert [(row["subset"], *row["scores_chosen"], *row["scores_rejected"]) for row in rows] == [
        (subset, good, bad) for subset, good, bad, _ in TWENTY
    ]
    assert [row["id"] for row in rows] == [str(n) for n in range(20)]
    assert sum(row["right"] for row in rows) == 11
    assert json.loads((tmp_path / "out" / "evals.jsonl").read_text()) == found
    shown = ask(tmp_path / "rm", "--pairs", twenty).stdout
    assert "alpacaeval-easy                     5     60.0%  [23.1%, 88.2%]" in shown
    assert "all rows                           20     55.0%  [34.2%, 74.2%]" in shown
    assert (
        "no RewardBench score: 17 of its subsets are missing (alpacaeval-length, alpacaeval-hard, mt-bench-easy"
        in shown
    )
    assert "2 of 20 pairs have equal rewards" in shown
    assert "accuracy 60.0% where the right completion is longer, 42.9% where it is shorter" in shown


@pytest.mark.usefixtures("reads_rewards")
def test_lists_of_completions_ties_and_what_is_left_out(base: Path, tmp_path: Path) -> None:
    trained(stage(base), tmp_path / "rm", steps=0)
    rows = [
        {"id": "a", "prompt": "p", "chosen": ["2 a"], "rejected": ["2 b", "0 c", "1 d"], "subset": "Math"},
        {"id": "tied:0", "prompt": "p", "chosen": ["5 a", "4 b"], "rejected": ["2 c", "1 d"], "subset": "Ties"},
        {"id": "ref:0", "prompt": "p", "chosen": ["5 a"], "rejected": ["2 c", "1 d"], "subset": "Ties"},
        {"id": "long", "prompt": "p", "chosen": ["9 " + "x" * 200], "rejected": ["1 b", "2 c"], "subset": "Math"},
        {"id": "none", "prompt": "p", "chosen": [], "rejected": ["1 b"], "subset": "Math"},
    ]
    done = ask(tmp_path / "rm", "--pairs", written(tmp_path / "f.jsonl", rows), "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "2 of 5 rows cannot be used" in done.stdout
    assert "best of 4                           1     50.0%" in done.stdout
    assert "Ties                                1    100.8%" in done.stdout
    assert "no RewardBench 2 score: 4 of its subsets are missing" in done.stdout
    bad = (tmp_path / "out" / "bad_rows.tsv").read_text()
    assert "over the limit of 128" in bad
    assert "chosen must have at least one completion" in bad


def test_a_reward_model_from_training_to_figures(tmp_path: Path) -> None:
    """Good is better than bad: trained from scratch by a run, named by its folder, and measured on other words."""
    rows = [{"prompt": f"ask {n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(24)]
    config = resolve(
        {
            "name": "rm",
            "output": str(tmp_path / "run"),
            "method": "reward_model",
            "steps": 20,
            "model": {"from_scratch": {**SHAPE, "layers": 1}, "dtype": "float32"},
            "preferences": {"train": [str(written(tmp_path / "train.jsonl", rows))], "held_out_share": 0},
            "reward_model": {"pairs_per_step": 8, "heads": 2, "probe_pairs": 0},
            "optim": {"lr": 3e-3},
            "logging": {"tensorboard": False},
        }
    )
    run_pipeline(config, resume=False)
    measured = [
        {"prompt": [{"role": "user", "content": f"new {n}"}], "chosen": ["good " * (n % 3 + 1)],
         "rejected": ["bad", "bad " * (n + 2)], "subset": f"s{n % 2}"}
        for n in range(8)
    ]  # fmt: skip
    file = written(tmp_path / "pairs.jsonl", measured)
    found = told(tmp_path / "run", "--pairs", file, "--output", tmp_path / "out")
    assert found["metrics"]["accuracy"][0] == 1.0
    assert (found["rows"], found["pairs"], found["best_of"]["3"]["rows"]) == (8, 16, 8)
    assert found["heads_disagree"] > 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").read_text().splitlines()]
    model = RewardModel(str(tmp_path / "run" / "final"))
    again = told(tmp_path / "run" / "final", "--pairs", tmp_path / "out" / "scores.jsonl")  # its own rows
    assert again["metrics"] == found["metrics"]
    assert again["rewards"] == found["rewards"]
    assert abs(model.card.std - 1) > 0.1  # otherwise the next line could not tell raw rewards from rescaled ones
    assert found["rewards"]["margin"]["mean"] == pytest.approx(
        sum(good - bad for row in rows for good in row["scores_chosen"] for bad in row["scores_rejected"]) / 16
    )
    fewer = told(tmp_path / "run", "--pairs", file, "--problems", 4)
    assert (fewer["rows"], fewer["of_rows"]) == (4, 8)
    assert "gives scores and no completions" in refused(tmp_path / "run", "--task", "arithmetic")


def test_rewards_are_those_of_the_loss(base: Path, tmp_path: Path) -> None:
    policy = trained(stage(base), tmp_path / "rm")  # its card has mean 0.3 and std 2
    encoded, _ = encode_pairs(PAIRS, policy.tokenizer, policy.config.prompt, limit=128)
    expected = policy.rewards(pair_batch(encoded)).mean(1).tolist()
    rows = [{"prompt": pair.prompt, "chosen": pair.first, "rejected": pair.second} for pair in PAIRS]
    told(tmp_path / "rm", "--pairs", written(tmp_path / "f.jsonl", rows), "--output", tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").read_text().splitlines()]
    assert [one for row in lines for one in (*row["scores_chosen"], *row["scores_rejected"])] == pytest.approx(
        expected, abs=1e-5
    )
    plain = told(tmp_path / "rm", "--pairs", tmp_path / "f.jsonl", "--template", "Q: {prompt}")
    assert plain["rewards"] != told(tmp_path / "rm", "--pairs", tmp_path / "f.jsonl")["rewards"]


def test_what_is_no_reward_model_or_no_setting_of_it_is_refused(twenty: Path, tmp_path: Path) -> None:
    config = resolve({"task": "gsm8k", "model": {"from_scratch": SHAPE, "dtype": "float32"}}).stages[0]
    Policy(config, accelerator=Accelerator(cpu=True)).save(tmp_path / "writer")
    assert "must have a trained `score` head" in refused(tmp_path / "writer", "--pairs", twenty)
    run = write_run(tmp_path / "run", make_records(steps=1, problems=2, seed=1))
    Policy(config, accelerator=Accelerator(cpu=True)).save(run / "final")
    assert "was trained with method grpo" in refused(run, "--pairs", twenty)
    told_off = refused(tmp_path / "writer", "--pairs", twenty, "--samples", 2, "--task", "gsm8k")
    assert "--pairs takes no --task, --samples: nothing is sampled" in told_off
    assert "got 'eval.samples=2'" in refused(tmp_path / "writer", "eval.samples=2", "--pairs", twenty)
    assert "nothing.jsonl" in refused(tmp_path / "writer", "--pairs", tmp_path / "nothing.jsonl")
    ties = written(tmp_path / "ties.jsonl", [{"prompt": "p", "first": "a", "second": "b", "label": "tie"}])
    assert "are labelled as ties" in refused(tmp_path / "writer", "--pairs", ties)
    bad = written(tmp_path / "bad.jsonl", [{"prompt": "p", "chosen": "a"}])
    assert "no value in column 'rejected'" in refused(tmp_path / "writer", "--pairs", bad)
