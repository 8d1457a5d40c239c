"""Errors in names, files and columns are reported before torch is imported, which takes many seconds."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.test_floors import run_blocked

WRONG = {
    "train gone.yaml": "no config 'gone.yaml'",
    "train row.yml": "Did you mean 'rows.yaml'",
    "train quickstrt": "Did you mean 'quickstart'",
    "train taken.yaml": "exists already",
    "train rows.yaml task.options.path=gone.jsonl": "no file or folder 'gone.jsonl'",
    "train rows.yaml task.options.reference_column=anser": "anser",
    "train rows.yaml task.options.verifier=mth": "Did you mean 'math'",
    "train rows.yaml task.name=arithmetc": "Did you mean 'arithmetic'",
    "train rows.yaml engine.name=vlm": "Did you mean 'vllm'",
    "train rows.yaml algorithm.los=clip": "Did you mean 'loss'",
    "train rows.yaml eval.metric=pass@9": "eval.metric must be one of",
    "train rows.yaml model.path=./gone": "does not exist",
    "train rows.yaml model.path=gone/model.gguf --dry-run": "gone/model.gguf",
    "train rows.yaml method=dpo preferences.train=gone.jsonl": "gone.jsonl",
    "train rows.yaml method=sft sft.data=gone.jsonl": "gone.jsonl",
    "preflight rows.yaml model.path=./gone": "does not exist",
    "eval ./gone": "does not exist",
    "eval runs/mistyped": "--task must name a task: runs/mistyped is not a local folder",
    "eval taken": "taken",
    "eval here/mine2": "there is no run here/mine2. Did you mean 'mine'? Runs of here: mine, other.",
    "chat here/mine2": "Did you mean 'mine'?",
    "serve here/unlike": "there is no run here/unlike. Runs of here: mine, other.",
    "eval org/name --task arithmetc": "Did you mean 'arithmetic'",
    "export gone out": "must contain a model",
    "export . taken": "exists already",
    "export . out --dtype float3": "Did you mean 'float32'",
}
PROGRAM = """
import json
from typer.testing import CliRunner
from reasoner.cli import app
found = {}
for command in COMMANDS:
    done = CliRunner().invoke(app, command.split())
    found[command] = [done.exit_code, done.output, repr(done.exception)]
print(json.dumps(found))
"""


def test_a_wrong_name_or_file_is_told_without_torch(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "config.yaml").write_text("")
    for name in ("mine", "other"):
        (tmp_path / "here" / name).mkdir(parents=True)
        (tmp_path / "here" / name / "config.yaml").touch()
    (tmp_path / "rows.jsonl").write_text(
        "".join(f'{{"prompt": "1+{number}=", "reference": "{1 + number}"}}\n' for number in range(20))
    )
    task = "task: {name: dataset, options: {path: rows.jsonl, verifier: math}}\nmodel: org/name\n"
    (tmp_path / "rows.yaml").write_text(f"{task}output: new\n")
    (tmp_path / "taken.yaml").write_text(f"{task}output: taken\n")
    done = run_blocked(f"COMMANDS = {list(WRONG)!r}\n{PROGRAM}", tmp_path)
    assert done.returncode == 0, done.stderr
    for command, (status, output, error) in json.loads(done.stdout).items():
        assert status == 2, (command, output, error)
        assert WRONG[command] in output, (command, output)
