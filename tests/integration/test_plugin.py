"""Plug-ins: the README's example word for word, the scaffold, a package installed into a fresh environment."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    given = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, env=given)


def reasoner(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from reasoner.cli import main; main()", *arguments]


def test_the_readmes_example_word_for_word(tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text().partition("## Your own reward\n")[2].partition("\n## ")[0]
    name = re.search(r"Save this as `([\w.]+)`", section)
    assert name is not None
    blocks = BLOCK.findall(section)
    code = next(text for language, text in blocks if language == "python")
    (tmp_path / name.group(1)).write_text(code)
    commands = next(text for language, text in blocks if language == "bash").strip().split("\n")
    assert len(commands) == 2
    verify, check = (run(reasoner(*shlex.split(line)[1:]), tmp_path) for line in commands)
    assert verify.returncode == 0, verify.stderr
    assert verify.stdout.startswith("correct  reward 1")
    assert check.returncode == 0, check.stdout
    assert "FAIL" not in check.stdout
    wrong = shlex.split(commands[0].replace("Level", "Label"))[1:]
    assert run(reasoner(*wrong), tmp_path).returncode == 1


def test_a_new_package_passes_its_own_tests(tmp_path: Path) -> None:
    made = run(reasoner("verifiers", "new", "capital-city"), tmp_path)
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "capital-city-verifier"
    tests = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], folder, PYTHONPATH=str(folder))
    assert tests.returncode == 0, tests.stdout
    ruff = [str(Path(sys.executable).parent / "ruff"), "check", "--select", "E,F,UP,B", "--line-length", "120", "."]
    assert run(ruff, folder).returncode == 0
    again = run(reasoner("verifiers", "new", "capital-city"), tmp_path)
    assert (again.returncode, "already exists" in again.stderr) == (2, True)
    taken = run(reasoner("verifiers", "new", "math"), tmp_path)
    assert "a verifier 'math' already exists" in taken.stderr
    assert "must be lower-case letters" in run(reasoner("verifiers", "new", "../x"), tmp_path).stderr


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of a new environment with the example installed; reasoner and its dependencies lie on its path."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    where = run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder)
    site = Path(where.stdout.strip())
    (site / "reasoner-checkout.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    package = folder / "anagram"
    shutil.copytree(ROOT / "examples" / "anagram", package)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
    install = [*pip, "--no-deps", "--no-build-isolation", "--no-index", str(package)]
    done = run(install, folder)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(package)  # from here on the installed one is used, or none
    return python


def cli(python: Path, *arguments: str) -> list[str]:
    return [str(python), "-c", "from reasoner.cli import main; main()", *arguments]


def test_an_installed_package_is_found_by_the_cli(fresh: Path, tmp_path: Path) -> None:
    listed = run(cli(fresh, "verifiers", "list"), tmp_path).stdout
    assert "anagram        anagram-verifier anagram_verifier.verifier:Anagram" in listed
    assert "anagram " not in run(reasoner("verifiers", "list"), tmp_path).stdout
    given = ("verify", "--verifier", "anagram", "--gold", "listen", "--completion")
    assert run(cli(fresh, *given, "The answer is silent."), tmp_path).returncode == 0
    assert run(cli(fresh, *given, "The answer is listen."), tmp_path).returncode == 1
    (tmp_path / "rows.jsonl").write_text('{"completion": "#### tinsel", "reference": "listen"}\n' * 20)
    graded = run(cli(fresh, "verify", "rows.jsonl", "--verifier", "anagram", "--json"), tmp_path)
    assert json.loads(graded.stderr)["correct"] == 20
    checked = run(cli(fresh, "verifiers", "check", "anagram"), tmp_path)
    assert checked.returncode == 0, checked.stdout
    validated = run(cli(fresh, "tasks", "validate", "anagrams"), tmp_path)
    assert "anagrams train: 16 of 16 reference answers accepted" in validated.stdout, validated.stderr


def test_an_installed_package_is_resolved_from_a_training_config(fresh: Path, tmp_path: Path) -> None:
    config = ROOT / "examples" / "anagram" / "train.yaml"
    code = (
        "from reasoner.config.load import load_config\nfrom tasks.registry import get_task\n"
        "from verifiers import get_verifier\n"
        f"stage = load_config({str(config)!r}).stages[0]\n"
        "problem = get_task(stage.task[0].name).problems('train')[0]\n"
        "print(type(get_verifier(problem.verifier)).__module__, problem.prompt.strip())"
    )
    done = run([str(fresh), "-c", code], tmp_path)
    assert done.stdout.strip() == "anagram_verifier.verifier Rearrange the letters: listen", done.stderr


@pytest.mark.slow
def test_an_installed_package_is_trained_on(fresh: Path, tmp_path: Path) -> None:
    config = ROOT / "examples" / "anagram" / "train.yaml"
    done = run(cli(fresh, "train", str(config), f"output={tmp_path / 'run'}"), tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "run" / "rollouts.jsonl").read_text().split("\n") if line]
    assert len(rows) == 2 * 4 * 4
    assert {row["verdict"]["verifier"] for row in rows} == {"anagram"}
    assert "verifier_error" not in {row["verdict"]["outcome"] for row in rows}
