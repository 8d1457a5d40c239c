"""Tab completes names and runs, and imports nothing that makes a person wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reasoner.cli import app

RUN = CliRunner()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("runs/first", "runs/second", "runs/second/1-grpo", "other/deep/third"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
    (tmp_path / "runs" / "no_run").mkdir()
    for name in ("mine.yaml", "own.py", "rows.jsonl"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def completed(typed: str) -> list[str]:
    words = typed.split()
    place = len(words) if typed.endswith(" ") else len(words) - 1
    given = {"_REASONER_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(place)}
    return RUN.invoke(app, [], env=given, prog_name="reasoner", complete_var="_REASONER_COMPLETE").stdout.split()


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("reasoner tra", ["train"]),
        ("reasoner verifiers ch", ["check"]),
        ("reasoner train quic", ["quickstart"]),
        ("reasoner train min", ["mine.yaml"]),
        ("reasoner preflight gsm8k_lora", ["gsm8k_lora_grpo"]),
        ("reasoner doctor rows", []),  # the shell's own: files
        ("reasoner chat ", ["runs/first", "runs/second"]),
        ("reasoner report ru", ["runs/first", "runs/second"]),
        ("reasoner explain runs/s", ["runs/second"]),
        ("reasoner export runs/second/", ["runs/second/1-grpo"]),
        ("reasoner serve other/", ["other/deep/third"]),
        ("reasoner rescore nowhere/", []),
        ("reasoner compare runs/first runs/second/1", ["runs/second/1-grpo"]),
        ("reasoner eval runs/first --task gsm", ["gsm8k"]),
        ("reasoner eval runs/first --engine ", ["hf", "vllm"]),
        ("reasoner tasks validate arith", ["arithmetic"]),
        ("reasoner verify --verifier math", ["math", "math-verify"]),
        ("reasoner verifiers check ow", ["own.py"]),
        ("reasoner label --blind runs/f", ["runs/first"]),
    ],
)
def test_tab_completes(typed: str, found: list[str], folder: Path) -> None:
    assert completed(typed) == found


def test_completing_imports_nothing_heavy(folder: Path) -> None:
    program = (
        "import sys, json; from reasoner.cli import complete;"
        "complete.configs(''); complete.runs(''); complete.tasks(''); complete.verifiers('');"
        "import reasoner.cli.train, reasoner.cli.evaluate, reasoner.cli.verify;"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=True)
    heavy = {"torch", "transformers", "vllm", "datasets", "pyarrow", "pydantic", "numpy", "rich", "sympy", "z3"}
    assert not heavy & set(json.loads(done.stdout))
