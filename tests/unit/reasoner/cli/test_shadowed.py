"""A project's own `tasks.py`, and another distribution's `verifiers`, are reported in one sentence."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from reasoner.shadowed import foreign_package

ROOT = Path(__file__).resolve().parents[4]
COMMAND = ["-m", "reasoner", "verify", "--verifier", "exact", "--gold", "1", "--completion", "1"]


def started(folder: Path, *, path: list[Path], arguments: Sequence[str] = COMMAND) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=given, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["tasks.py", "sandbox/__init__.py", "verifiers/__init__.py", "tasks/notes.txt"])
def test_a_project_with_such_names_in_the_working_directory_does_no_harm(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise SystemExit('theirs')")
    done = started(tmp_path, path=[ROOT])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("correct")


def test_a_package_that_another_one_overwrote_and_took_along_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    (site / "verifiers").mkdir(parents=True)
    left = ModuleSpec("verifiers", None, is_package=True)  # files of ours that the other one did not have
    left.submodule_search_locations = [str(site / "verifiers")]
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: left if name == "verifiers" else real(name))
    assert "another package is installed as 'verifiers'" in str(foreign_package())
    (site / "reasoner").mkdir()
    (site / "reasoner" / "shadowed.py").touch()
    said = str(foreign_package())
    assert "'verifiers' of reasoner is damaged" in said
    assert "--force-reinstall --no-deps reasoner-rl" in said


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("lib", "leads to"),
        ("lib/site-packages", "another package is installed as 'verifiers'"),
    ],
)
def test_another_package_that_comes_first_is_told(place: str, says: str, tmp_path: Path) -> None:
    other = tmp_path / place / "verifiers" / "__init__.py"
    other.parent.mkdir(parents=True)
    other.write_text("raise SystemExit('theirs')")
    done = started(tmp_path, path=[tmp_path / place, ROOT])
    assert done.returncode == 1, done.stdout
    assert says in done.stderr
    assert str(other) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["verifiers", "tasks", "sandbox"])
@pytest.mark.parametrize("used", ["import reasoner; reasoner.run", "from reasoner import Run"])
def test_another_package_is_told_to_a_program_that_runs_or_reads_a_run(name: str, used: str, tmp_path: Path) -> None:
    other = tmp_path / "site-packages" / name / "__init__.py"
    other.parent.mkdir(parents=True)
    other.write_text("def load_environment(): ...\n")
    done = started(tmp_path, path=[other.parents[1], ROOT], arguments=["-c", used])
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"ImportError: another package is installed as {name!r} ({other})")
    assert said.endswith("Install the two in separate environments.")
    assert "During handling" not in done.stderr


def test_what_needs_none_of_them_works_beside_another_package(tmp_path: Path) -> None:
    (tmp_path / "verifiers.py").write_text("raise SystemExit('theirs')")
    used = "import reasoner; print(reasoner.__version__, hasattr(reasoner, 'no_such'))"
    done = started(tmp_path, path=[tmp_path, ROOT], arguments=["-c", used])
    assert done.stdout.split()[1:] == ["False"], done.stderr
