"""The conformance kit: it accepts what is sound, and finds each fault that a verifier can have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from verifiers.kit.conformance import check_verifier

pytestmark = pytest.mark.integration
CARELESS = f"{Path(__file__).parents[1] / 'unit' / 'verifiers' / 'careless.py'}"


@pytest.mark.parametrize("name", ["choice", "json_schema", "logic", "numeric"])
def test_the_kit_accepts_built_in_verifiers(name: str) -> None:
    report = check_verifier(name)
    assert not report.failures, report.failures
    assert {attempt.trick for attempt in report.attempts} >= {
        "restates the question",
        "lists every answer",
        "an empty box",
        "trust me",
        "prompt injection",
    }
    assert max(attempt.reward or 0 for attempt in report.attempts) == 0


@pytest.mark.parametrize(
    ("name", "check", "said"),
    [
        ("Unlabelled", "carries examples", "0 right, 0 wrong"),
        ("Wrong", "accepts its gold", "is incorrect, not correct"),
        ("Moody", "says the same twice", "then"),
        ("Forgetful", "says the same twice", "then"),
        ("Fragile", "never raises", "ValueError"),
        ("Picky", "uses or refuses any reference", "TypeError"),
        ("Slow", "never raises", "longer than 1 s"),
        ("Gullible", "rewards no trick", "lists every answer"),
        ("Trusting", "rewards no trick", "trust me"),
        ("Uneven", "grades a batch as its rows", "in a batch"),
    ],
)
def test_the_kit_finds(name: str, check: str, said: str) -> None:
    report = check_verifier(f"{CARELESS}:{name}")
    found = [finding for finding in report.failures if finding.check.startswith(check)]
    assert found, report.findings
    assert said in found[0].detail


def test_check_prints_what_each_trick_got_and_exits_1() -> None:
    command = [
        sys.executable,
        "-c",
        "from reasoner.cli import main; main()",
        "verifiers",
        "check",
        f"{CARELESS}:Trusting",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "FAIL     rewards no trick" in done.stdout
    assert "    1  correct        trust me\n" in done.stdout
