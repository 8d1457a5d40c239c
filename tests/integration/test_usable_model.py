"""A trained model answers alike through `reasoner chat`, transformers and vLLM's server, as its model card says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from reasoner.cli import app
from reasoner.config.load import load_config
from reasoner.stages.pipeline import run_pipeline
from verifiers.serve.addresses import free_port

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages, and one that leaves no model: sums as plain text, ended by a stop string."""
    folder = tmp_path_factory.mktemp("usable")
    config = {
        "name": "usable",
        "output": str(folder / "run"),
        "task": {"name": "arithmetic", "options": {"digits": 1, "test_size": 40}},
        "prompt": {"chat": "never", "system": "Add.", "stop": ["###"]},
        "rollout": {"problems_per_step": 12, "group_size": 2, "max_tokens": 16},
        "engine": {"name": "hf"},
        "eval": {"problems": 12, "temperature": 0.5},
        "logging": {"tensorboard": False},
        "stages": [
            {
                "method": "sft",
                "model": {"from_scratch": {"hidden_size": 64, "layers": 1, "heads": 2, "max_positions": 128}},
                "steps": 80,
                "optim": {"lr": 3e-3},
                "sft": {"demonstrations": 80, "rows_per_step": 16},
            },
            {"method": "grpo", "steps": 1},
            {"method": "pairs", "steps": 1},
        ],
    }
    (folder / "usable.yaml").write_text(yaml.safe_dump(config))
    run_pipeline(load_config(str(folder / "usable.yaml")), resume=False)
    return folder / "run"


@pytest.fixture(autouse=True)
def _torch_is_there_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reasoner.engine.environment.prepare_process", lambda: None)


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "reasoner", "serve", str(run), "--name", "MODEL", "--port", str(port)]
    log = run.parent / "serve.log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--", "--max-model-len", "64"], stdout=out, stderr=out, cwd=ROOT, env=environment
        )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert process.poll() is None, log.read_text()[-2000:]
            try:
                if httpx.get(f"{url}/health", timeout=2).is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.3)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def card_blocks(run: Path) -> dict[str, str]:
    card = (run / "final" / "README.md").read_text()
    return {found[1]: found[2] for found in re.finditer(r"```(\w+)\n(.*?)\n```", card[card.index("## Use") :], re.S)}


def chat(*arguments: str, entered: str = "") -> str:
    done = CliRunner().invoke(app, ["chat", *arguments], input=entered)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_model_of_a_run_is_that_of_its_last_stage_that_has_one(run: Path) -> None:
    assert str((run / "final").readlink()) == "1-grpo/final"
    row = json.loads((run / "final" / "prompt.json").read_text())
    assert row["prompt"] == {"chat": "never", "system": "Add.", "stop": ["###"]}
    assert (row["ending"], row["sampling"]["temperature"]) == ("=?\n", 0.5)
    generation = json.loads((run / "final" / "generation_config.json").read_text())
    assert (generation["do_sample"], generation["temperature"], generation["top_k"]) == (True, 0.5, 0)


def test_chat_transformers_and_the_server_give_one_answer(run: Path, server: str) -> None:
    from transformers import pipeline

    said = chat(str(run), "--temperature", "0", "--prompt", "2+5").removesuffix("\n")
    assert said
    assert chat(str(run / "final"), "--temperature", "0", "--prompt", "2+5=?\n").removesuffix("\n") == said
    bare = run / "1-grpo" / "checkpoints" / "step-000001"  # by the records of the run
    assert not (bare / "model" / "prompt.json").exists()
    assert chat(str(bare), "--temperature", "0", "--prompt", "2+5").removesuffix("\n") == said

    blocks = card_blocks(run)
    assert "pipeline" in blocks["python"]
    code = blocks["python"].replace("MODEL", str(run / "final")).replace("\npipe(", "\nfound = pipe(")
    code = re.sub(r'"content": ".*?"', '"content": "2+5"', code)
    names: dict[str, Any] = {"pipeline": pipeline}
    exec(code, names)
    assert names["found"][0]["generated_text"][-1]["content"] == said

    curl = shlex.split(blocks["sh"].partition("\n")[2].replace("\\\n", ""))
    body = json.loads(curl[curl.index("-d") + 1])
    body["messages"] = [{"role": "user", "content": "2+5"}]
    del body["stop"], body["include_stop_str_in_output"]  # the server adds them
    path = curl[1].partition(":8000")[2]
    answer = httpx.post(server + path, json=body, timeout=60).json()
    assert answer["choices"][0]["message"]["content"] == said
    assert said.endswith("###") is (answer["choices"][0]["stop_reason"] == "###")


def test_the_server_refuses_what_training_never_saw(run: Path, server: str) -> None:
    turns = [{"role": role, "content": "1+1"} for role in ("user", "assistant", "user")]
    answer = httpx.post(f"{server}/v1/chat/completions", json={"model": "MODEL", "messages": turns}, timeout=60)
    assert answer.status_code == 400
    assert "single prompts" in answer.text


def test_a_conversation_ends_with_its_input_and_single_prompts_keep_no_turns(run: Path) -> None:
    out = chat(str(run), "--temperature", "0", entered="2+5\n\n/new\n2+5\n")
    first, second = out[: len(out) // 2], out[len(out) // 2 :]
    assert first == second != ""
    assert "\x1b" not in out


def test_a_folder_without_its_run_is_evaluated_as_it_was_prompted(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(run), str(tmp_path / "model")])
    assert done.exit_code == 0, done.output
    for name in ("README.md", "prompt.json", "chat_template.jinja"):
        assert (tmp_path / "model" / name).read_bytes() == (run / "final" / name).read_bytes()
    task = ["--task", "arithmetic", "-o", "digits=1", "-o", "test_size=40", "--engine", "hf", "--problems", "12"]
    found = CliRunner().invoke(app, ["eval", str(tmp_path / "model"), *task, "--output", str(tmp_path / "out")])
    assert found.exit_code == 0, found.output
    assert "by the settings kept with the model" in found.stderr
    ours = [json.loads(line) for line in (tmp_path / "out" / "eval_rollouts.jsonl").read_text().splitlines()]
    theirs = [json.loads(line) for line in (run / "1-grpo" / "eval_rollouts.jsonl").read_text().splitlines()]
    after = [row for row in theirs if row["step"] == 1]
    assert [row["prompt_ids"] for row in ours] == [row["prompt_ids"] for row in after]
    assert [row["completion"] for row in ours] == [row["completion"] for row in after]
