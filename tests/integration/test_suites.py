"""`reasoner eval --suite` on a tiny model: several sets in one run, interrupted and resumed; a run's data."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from reasoner.cli import app
from reasoner.config.load import load_config
from reasoner.config.sections import ModelSection
from reasoner.model.load import load_model
from reasoner.stages.pipeline import run_pipeline
from verifiers import Outcome, Verdict, fixed

pytestmark = pytest.mark.integration
QUESTIONS = [
    f"A shelf holds {n} red and {n + 2} blue books, and half of them are lent; how many stay?" for n in range(4)
]
SHAPE = {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 1024}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    loaded = load_model(ModelSection.model_validate({"from_scratch": SHAPE}), seed=1)
    loaded.model.save_pretrained(folder / "model")
    loaded.tokenizer.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    sets: dict[str, list[dict[str, Any]]] = {
        "gsm8k": [{"question": text, "answer": f"#### {at + 1}"} for at, text in enumerate(QUESTIONS)],
        "aime24": [{"problem": text, "answer": f"0{at}"} for at, text in enumerate(QUESTIONS)],
        "bbh": [
            {"task": name, "input": f"{text} ({name})", "target": "(A)" if name == "snarks" else "no"}
            for name in ("snarks", "navigate")
            for text in QUESTIONS[:2]
        ],
        "ifeval": [
            {
                "key": at,
                "prompt": text,
                "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
                "kwargs": [{"num_words": None}, {"num_words": 1, "relation": "at least"}],
            }
            for at, text in enumerate(QUESTIONS)
        ],
    }
    for name, rows in sets.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [f"--data={name}={folder / name}.jsonl" for name in sets]


@pytest.fixture(autouse=True)
def _torch_is_there_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reasoner.engine.environment.prepare_process", lambda: None)


def evaluate(*arguments: str, code: int = 0) -> tuple[str, str]:
    done = CliRunner().invoke(app, ["eval", *arguments, "--engine", "hf"])
    assert done.exit_code == code, done.output
    return done.stdout, done.stderr


def named(data: list[str], *names: str) -> list[str]:
    return [one for one in data if one.split("=")[1] in names]


def test_several_suites_in_one_go_and_one_json_of_all(tiny: Path, data: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = [str(tiny), "--suite", "gsm8k,aime24,bbh,ifeval", *data, "--output", str(out), "--max-tokens", "8"]
    said, _ = evaluate(*asked, "--samples", "2", "--temperature", "1")
    asked_for = ["gsm8k", "aime24", "bbh", "ifeval"]
    assert [line.split()[0] for line in said.splitlines()[1:6]] == ["suite", *asked_for]
    found = json.loads((out / "suites.json").read_text())
    assert [*found["suites"]] == asked_for
    assert (found["model"], found["engine"], found["seed"]) == (str(tiny), "hf", 0)
    for name, one in found["suites"].items():
        rows = [json.loads(line) for line in (out / name / "eval_rollouts.jsonl").read_text().splitlines()]
        assert len(rows) == 8
        assert {row["task"] for row in rows} == {name}
        assert one["value"] == sum(row["reward"] for row in rows) / 8
        assert (one["problems"], one["samples"], one["metric"]) == (4, 2, "avg@2")
        assert {"problems", "samples", "max_tokens"} <= {each["setting"] for each in one["deviations"]}
        assert one["settings"]["max_tokens"] == 8
        assert one["overlap"] is None
        assert one["sources"]
        assert one["versions"]["torch"]
    followed = found["suites"]["ifeval"]["metrics"]
    assert {"component/punctuation:no_comma", "component/length_constraints:number_words"} <= {*followed}
    printed, _ = evaluate(*asked, "--samples", "2", "--temperature", "1", "--json")
    assert json.loads(printed) == found
    other = [str(tiny), "--suite", "gsm8k", *named(data, "gsm8k"), "--output", str(out), "--max-tokens", "9"]
    assert "samples was 2 and is 1. Give --output another folder" in evaluate(*other, code=2)[1]


def test_an_evaluation_that_is_killed_goes_on_with_what_is_not_finished(
    tiny: Path, data: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    asked = [str(tiny), "--suite", "gsm8k,aime24", *named(data, "gsm8k", "aime24"), "--output", str(out)]
    asked += ["--max-tokens", "700", "--samples", "1"]
    command = [sys.executable, "-m", "reasoner", "eval", *asked, "--engine", "hf"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        begun = time.monotonic()
        while not (out / "gsm8k" / "result.json").exists():
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            assert time.monotonic() - begun < 300
            time.sleep(0.01)
        process.kill()
    assert not (out / "aime24" / "result.json").exists()
    kept = {path: path.read_bytes() for path in (out / "gsm8k").iterdir()}
    times = {path: path.stat().st_mtime_ns for path in kept}
    said, _ = evaluate(*asked)
    assert f"gsm8k: already finished, result kept from {out / 'gsm8k'}" in said
    assert {path: path.stat().st_mtime_ns for path in kept} == times
    evaluate(*asked[:-6], "--output", str(tmp_path / "whole"), *asked[-4:])
    whole, resumed = (json.loads((folder / "suites.json").read_text()) for folder in (tmp_path / "whole", out))
    assert resumed == whole
    for name in ("gsm8k", "aime24"):
        ours, theirs = ((folder / name / "eval_rollouts.jsonl").read_text() for folder in (out, tmp_path / "whole"))
        assert [json.loads(row)["completion"] for row in ours.splitlines()] == [
            json.loads(row)["completion"] for row in theirs.splitlines()
        ]


def test_a_small_context_bounds_the_completions_and_is_recorded(tiny: Path, data: list[str], tmp_path: Path) -> None:
    asked = [str(tiny), "--suite", "gsm8k", *named(data, "gsm8k"), "--output", str(tmp_path), "--problems", "1"]
    said, _ = evaluate(*asked)
    found = json.loads((tmp_path / "suites.json").read_text())["suites"]["gsm8k"]
    tokens = found["settings"]["max_tokens"]
    assert 512 <= tokens < 1024
    assert {"setting": "max_tokens", "definition": 2048, "here": tokens} in found["deviations"]
    assert f"completions end after {tokens} tokens, not 2048: the model's context is 1024" in said


def test_a_run_is_told_how_much_of_a_suite_it_was_trained_on(data: list[str], tmp_path: Path) -> None:
    rows = [{"prompt": text, "reference": "1"} for text in (*QUESTIONS[:2], "What is 2 + 2?", "What is 3 + 4?")]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "output": str(tmp_path / "run"),
        "steps": 1,
        "task": {"name": "dataset", "options": {"path": str(tmp_path / "train.jsonl"), "verifier": "math",
                                                "held_out_share": 0}},
        "model": {"from_scratch": SHAPE},
        "rollout": {"problems_per_step": 2, "group_size": 2, "max_tokens": 8},
        "engine": {"name": "hf"},
        "prompt": {"system": "Think."},
        "eval": {"problems": 0},
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    run_pipeline(load_config(str(tmp_path / "config.yaml")), resume=False)
    asked = [str(tmp_path / "run"), "--suite", "gsm8k", *named(data, "gsm8k"), "--max-tokens", "8"]
    said, _ = evaluate(*asked, "--output", str(tmp_path / "out"))
    assert "gsm8k: 2 of 4 questions appear, completely or mostly, in the 4 training problems" in said
    found = json.loads((tmp_path / "out" / "suites.json").read_text())["suites"]["gsm8k"]
    assert (found["overlap"]["found"], found["overlap"]["training_problems"]) == (2, 4)
    prompts = {each["setting"]: each["here"] for each in found["deviations"]}
    assert prompts["prompt_format"] == {"system": "Think."}


def test_a_suite_that_could_not_be_graded_is_not_finished(
    tiny: Path, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [str(tiny), "--suite", "gsm8k", *named(data, "gsm8k"), "--output", str(tmp_path), "--max-tokens", "4"]
    with monkeypatch.context() as patch:
        patch.setattr("reasoner.rollout.round.GradingPool.submit", _ungraded)
        _, said = evaluate(*asked, code=1)
    assert "4 of 4 rollouts (100%) could not be graded" in said
    assert f"They are in {tmp_path / 'gsm8k' / 'eval_rollouts.jsonl'}" in said
    assert "suite gsm8k is not stored as finished" in said
    assert not (tmp_path / "gsm8k" / "result.json").exists()
    evaluate(*asked)
    assert (tmp_path / "gsm8k" / "result.json").exists()


def _ungraded(*_: object, **__: object) -> Future[Verdict]:
    done: Future[Verdict] = Future()
    done.set_result(fixed(Outcome.VERIFIER_ERROR, "away"))
    return done


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--suite", "math50"], "Did you mean 'math500'?"),
        (["--suite", "gsm8k,gsm8k"], "each once"),
        (["--suite", "gsm8k", "--task", "gsm8k"], "--suite takes no --task"),
        (["--suite", "gsm8k", "--data", "gsm=x.jsonl"], "Did you mean 'gsm8k'?"),
        (["--suite", "gsm8k", "--data", "gsm8k"], "--data must be SUITE=PATH"),
        (["--suite", "gsm8k", "--data", "gsm8k=nowhere.jsonl"], "there is no file or folder 'nowhere.jsonl'"),
        (["--data", "gsm8k=x.jsonl"], "--data needs --suite"),
    ],
)
def test_what_cannot_be_is_said_before_the_model_is_loaded(tiny: Path, arguments: list[str], says: str) -> None:
    assert says in evaluate(str(tiny), *arguments, code=2)[1]


def test_the_suites_are_shown() -> None:
    every, one = (CliRunner().invoke(app, ["suites", *name]).stdout for name in ([], ["gpqa"]))
    assert "avg@32; 32 x, temperature 0.6, top_p 0.95, 32,768 tokens; graded by math" in every
    assert "Answer: $LETTER" in one
    assert "differs from simple-evals" in one
    assert "differs" not in every
