"""The arrows never run up: each floor imports without torch and without the floors above."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY = {
    "sandbox": set(),
    "verifiers": {"sandbox"},
    "tasks": {"verifiers", "sandbox"},
    "reasoner": {"tasks", "verifiers", "sandbox"},
}
BLOCKED = ("torch", "transformers", "vllm", "accelerate", "peft")


@pytest.mark.parametrize("floor", ["sandbox", "verifiers", "tasks"])
def test_every_module_imports_with_torch_blocked(floor: str) -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / floor).rglob("*.py"))
        if path.name != "__main__.py" and path.parent.name != "guest"  # which runs inside a sandbox, by other names
    ]
    code = (
        f"import sys\nfor name in {BLOCKED!r}: sys.modules[name] = None\n"
        f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
        f"import {floor}; print({floor}.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == ROOT / floor  # ours, not a distribution of the same name


@pytest.mark.parametrize("floor", list(MAY))
def test_no_import_runs_up(floor: str) -> None:
    for path in (ROOT / floor).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                assert top not in MAY or top == floor or top in MAY[floor], f"{path}: {name}"


def test_grading_one_answer_needs_neither_torch_nor_long() -> None:
    code = (
        "import sys\nfor name in ('torch', 'sympy', 'datasets'): sys.modules[name] = None\n"
        "sys.argv = ['reasoner', 'verify', '--verifier', 'math', '--gold', '1/2', '--completion', r'so \\boxed{0.5}']\n"
        "from reasoner.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "correct" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    ["train quickstart", "eval x --task arithmetic", "preflight quickstart", "export x y"],
)
def test_a_command_that_needs_torch_says_what_brings_it(arguments: str, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name in {BLOCKED!r}: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"sys.argv = {['reasoner', *arguments.split()]!r}\n"
        "from reasoner.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: this needs \w+, which is not installed: pip install 'reasoner\[train\]'\.\n", done.stderr
    )


def test_tasks_are_listed_with_what_they_are_and_what_they_take() -> None:
    command = [sys.executable, "-c", "from reasoner.cli import main; main()", "tasks", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Questions such as `47+85=?`" in done.stdout
    assert "options: family: str = 'addition', digits: int = 2, " in done.stdout


def test_the_package_ships_its_configs() -> None:
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "configs*" in settings["packages"]["find"]["include"]
    assert "*.yaml" in settings["package-data"]["*"]
