"""Printed commands name the program as it was started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reasoner.config.load import resolve
from reasoner.stages.going_on import resume_command
from verifiers.terminal.program import program


def installed(folder: Path) -> str:
    script = folder / "bin" / "reasoner"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    return str(script)


def test_by_its_path_where_the_shell_would_not_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = installed(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, "train", "mine.yaml", "seed=1"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == [script]
    stage = resolve({"task": "gsm8k"}).stages[0]
    assert resume_command(stage, tmp_path) == f"{script} train mine.yaml seed=1 --resume"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bin/reasoner", "train"])
    assert program() == ["bin/reasoner"]


def test_by_its_name_where_the_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = installed(tmp_path)
    monkeypatch.setattr(sys, "argv", [script])
    monkeypatch.setenv("PATH", str(Path(script).parent))
    assert program() == ["reasoner"]
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(sys, "argv", [installed(other)])
    assert program() == [sys.argv[0]]


@pytest.mark.parametrize(
    ("started", "named"),
    [
        ("/site-packages/reasoner/__main__.py", [sys.executable, "-m", "reasoner"]),
        ("/site-packages/pytest/__main__.py", ["reasoner"]),
        ("my_script.py", ["reasoner"]),
        ("reasoner", ["reasoner"]),
        ("", ["reasoner"]),
    ],
)
def test_of_another_program_the_name_is_the_command(
    started: str, named: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    assert program() == named
