"""Grading without torch: with torch blocked in every process, and in an environment that never had it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
ROWS = [
    {"completion": r"\boxed{\frac{1}{2}}", "reference": "0.5", "verifier": "math"},
    {"completion": "The answer is (B).", "reference": "B", "verifier": "choice"},
    {"completion": "#### p = true", "reference": {"kind": "model", "formulas": ["p"]}, "verifier": "logic"},
    {"completion": '{"x": 1}', "reference": {"type": "object"}, "verifier": "json_schema"},
    {"completion": "#### 7", "reference": "8", "verifier": "exact"},
]
BLOCKED = ("torch", "transformers", "datasets", "accelerate", "peft", "vllm")


def run(python: str, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [python, "-c", "from reasoner.cli import main; main()", *arguments]
    given = os.environ | environment
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, env=given)


def write_rows(folder: Path) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return "rows.jsonl"


def test_every_command_of_grading_works_with_torch_blocked(tmp_path: Path) -> None:
    """Block torch by packages of these names that cannot be imported, which also affects the workers."""
    blocked = tmp_path / "blocked"
    for name in BLOCKED:
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text("raise ImportError('blocked by the test')\n")
    path = {"PYTHONPATH": str(blocked)}
    graded = run(sys.executable, tmp_path, "verify", write_rows(tmp_path), "--output", "out.jsonl", "--json", **path)
    assert graded.returncode == 0, graded.stderr
    assert json.loads(graded.stdout)["outcomes"] == {"correct": 4, "incorrect": 1}
    for arguments in (("verifiers", "list"), ("tasks", "list"), ("tasks", "validate", "countdown", "--split", "test")):
        done = run(sys.executable, tmp_path, *arguments, **path)
        assert done.returncode == 0, done.stderr


def test_one_answer_is_graded_at_once() -> None:
    """Grading takes at most about five times the CPU time of importing the command line's libraries, workers
    included.
    """

    def used(*arguments: str) -> float:
        def total() -> float:
            children = resource.getrusage(resource.RUSAGE_CHILDREN)
            return children.ru_utime + children.ru_stime

        before = total()
        assert subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, timeout=280).returncode == 0
        return total() - before

    graded = ("-m", "reasoner", "verify", "--verifier", "math", "--gold", "1/2", "--completion", r"\boxed{0.5}")
    pairs = [(used(*graded), used("-c", "import typer, pydantic, rich.console")) for _ in range(3)]
    assert min(whole for whole, _ in pairs) < 9 * min(bare for _, bare in pairs)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_environment_that_never_had_torch(tmp_path: Path) -> None:
    """`pip install .` without extras, from the package index, into a new environment."""
    venv.create(tmp_path / "env", with_pip=True)
    python = str(tmp_path / "env" / "bin" / "python")
    pip = [python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(ROOT)]
    installed = subprocess.run(pip, capture_output=True, text=True, timeout=900)
    assert installed.returncode == 0, installed.stderr[-2000:]
    missing = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True)
    assert "No module named 'torch'" in missing.stderr
    graded = run(python, tmp_path, "verify", write_rows(tmp_path), "--output", "out.jsonl", "--json")
    assert graded.returncode == 0, graded.stderr
    assert json.loads(graded.stdout)["outcomes"] == {"correct": 4, "incorrect": 1}
    ours = subprocess.run(
        [python, "-c", "import verifiers, sandbox, tasks; print(verifiers.__file__)"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert str(tmp_path / "env") in ours.stdout, ours.stderr
