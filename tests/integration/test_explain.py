"""`explain` on real runs: the loop, the engine and the records as they are, with one thing broken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

GAPS = {"top-p-unaccounted", "temperature-mismatch", "weights-not-synced", "engine-trainer-gap", "sampling-sharper"}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    script = Path(__file__).with_name("planted.py")
    command = [sys.executable, str(script), str(tmp_path_factory.mktemp("planted"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("top-p", "top-p-unaccounted"),
        ("temperature", "temperature-mismatch"),
        ("stale", "weights-not-synced"),
        ("advantage flipped", "advantage-sign-flipped"),
        ("loss flipped", "descends"),
    ],
)
def test_the_cause_is_named_first(said: dict[str, list[str]], fault: str, code: str) -> None:
    assert said[fault][0] == code


def test_without_a_fault_engine_and_trainer_agree(said: dict[str, list[str]]) -> None:
    assert not GAPS & set(said["none"])
    assert "advantage-sign-flipped" not in said["none"]
    assert "descends" not in said["none"]
