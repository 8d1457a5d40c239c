"""Configs and records of finished runs may name data; only the person who gives the command may name code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reasoner.config.errors import ConfigError
from reasoner.config.found import check_found, graders_of
from reasoner.config.load import dump
from tests.unit.reasoner.runs import stage
from verifiers.row_choice import RowRefused

CODE = "/tmp/anyone/evil.py:v"
URL = "http://127.0.0.1:1/math"


def task(**more: object) -> dict[str, object]:
    return {"task": {"name": "arithmetic", **more}}


REFUSED: list[dict[str, object]] = [
    {"task": CODE},
    {"task": "some.module:Task"},
    {"engine": {"name": CODE}},
    task(verifier={"name": CODE}),
    task(verifier={"name": URL}),
    task(verifier={"name": "all-of", "options": {"parts": ["exact", CODE]}}),
    task(verifier={"name": "code", "options": {"sandbox": "unsafe-host"}}),
    task(verifier={"name": "judge", "options": {"url": "http://127.0.0.1:1/v1", "model": "m", "key_variable": "HOME"}}),
    task(options={"verifier": CODE}),
    task(options={"verifier_options": {"sandbox": "unsafe-host"}}),
    task(options={"verifier": "exact", "allow_row_code": True}),
]
ALLOWED: list[dict[str, object]] = [
    {"task": "arithmetic"},
    {"task": ["arithmetic", {"name": "mbpp_plus", "options": {"path": "x", "verifier_options": {"cpu_seconds": 25}}}]},
    {"engine": {"name": "hf"}},
    task(verifier={"name": "exact", "options": {"ignore_case": True}}),
    task(verifier={"name": "code", "options": {"sandbox": "docker", "cpu_seconds": 10, "packages": ["numpy"]}}),
    task(verifier={"name": "weighted", "options": {"parts": ["exact", {"verifier": "length", "weight": 0.1}]}}),
]


@pytest.mark.parametrize("config", REFUSED)
def test_a_run_s_own_config_names_no_code(config: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="--allow-row-code"):
        check_found(stage(**config), task=None, verifier=None, engine=None)


@pytest.mark.parametrize("config", ALLOWED)
def test_a_run_s_own_config_names_what_is_installed(config: dict[str, object]) -> None:
    check_found(stage(**config), task=None, verifier=None, engine=None)


def test_what_the_user_names_takes_its_place() -> None:
    check_found(stage(task=CODE), task=CODE, verifier=None, engine=None)
    check_found(stage(**task(verifier={"name": CODE})), task=None, verifier="exact", engine=None)
    check_found(stage(engine={"name": CODE}), task=None, verifier=None, engine="hf")
    check_found(stage(task=["arithmetic", CODE]), task="arithmetic", verifier=None, engine=None)


def test_stored_rollouts_are_graded_within_the_limits_of_their_run() -> None:
    own = graders_of(stage(**task(verifier={"name": "code", "options": {"cpu_seconds": 10}})), any_row=False)
    assert own.choice("code", {"cpu_seconds": 10, "reward": "fraction"}) is not None
    assert own.choice("exact", {}) == ("exact", {})
    plus = graders_of(stage(task={"name": "mbpp_plus", "options": {"path": "x"}}), any_row=False)
    assert plus.choice("code", {"cpu_seconds": 20.0}) is not None
    for verifier, options in (
        (CODE, {}),
        (URL, {}),
        ("code", {"cpu_seconds": 30}),
        ("code", {"sandbox": "unsafe-host"}),
    ):
        for graders in (own, plus, graders_of(stage(**task(verifier={"name": CODE})), any_row=False)):
            with pytest.raises(RowRefused):
                graders.choice(verifier, options)  # pyright: ignore[reportArgumentType]
    assert graders_of(stage(), any_row=True).choice(CODE, {}) == (CODE, {})


def test_eval_of_a_run_that_names_code(tmp_path: Path) -> None:
    """The command refuses before it looks for a model, and says how to proceed."""
    mark = tmp_path / "ran"
    (tmp_path / "task.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    for folder in (tmp_path, tmp_path / "final"):
        folder.mkdir(exist_ok=True)
    (tmp_path / "final" / "config.json").write_text("{}")
    (tmp_path / "config.yaml").write_text(dump(stage(task=f"{tmp_path / 'task.py'}:Task")))
    (tmp_path / "metrics.jsonl").write_text("")
    command = [sys.executable, "-m", "reasoner", "eval", str(tmp_path / "final"), "--engine", "hf"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "--allow-row-code" in done.stderr
    assert not mark.exists()
    done = subprocess.run([*command, "--allow-row-code"], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0, "there is no such task in the file"
    assert mark.exists()
