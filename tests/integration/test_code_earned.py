"""Every case of tests/cases/code_earned.jsonl on the isolated backends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.backends import ISOLATED, opened
from verifiers import get_verifier
from verifiers.verdict import JSON

pytestmark = pytest.mark.integration
CASES = Path(__file__).parents[1] / "cases"
ROWS: list[dict[str, JSON]] = [
    json.loads(line) for line in (CASES / "code_earned.jsonl").read_text().split("\n") if line
]
CORE = 16


@pytest.mark.parametrize("backend", ISOLATED)
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=str(row["id"]), marks=() if n % CORE == 0 else pytest.mark.slow)
        for n, row in enumerate(ROWS)
    ],
)
def test_verdict(backend: str, row: dict[str, JSON]) -> None:
    opened(backend, workers=1).close()
    options = row.get("options") or {}
    assert isinstance(options, dict)
    verifier = get_verifier("code", sandbox=backend, block="whole", **options)
    verdict = verifier.verify(completion=str(row["program"]), reference=row["reference"])
    busy = verdict.outcome == "verifier_error" and "too busy" in verdict.reason
    assert verdict.outcome == row["outcome"] or busy, verdict


UNSEEN: list[dict[str, JSON]] = [
    json.loads(line) for line in (CASES / "code_unseen.jsonl").read_text().split("\n") if line
]
"""Programs written from the documentation alone: forgeries, honest programs similar to them, and bad references."""


@pytest.mark.parametrize("backend", ISOLATED)
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=str(row["id"]), marks=() if n % CORE == 0 else pytest.mark.slow)
        for n, row in enumerate(UNSEEN)
    ],
)
def test_verdict_on_what_was_written_from_the_documentation(backend: str, row: dict[str, JSON]) -> None:
    opened(backend, workers=1).close()
    verifier = get_verifier("code", sandbox=backend)
    verdict = verifier.verify(completion=str(row["completion"]), reference=row["reference"])
    want = row["want"]
    assert verdict.outcome == want or (want == "not_correct" and verdict.reward == 0), verdict
    if "honest" in row:
        honest = verifier.verify(completion=str(row["honest"]), reference=row["reference"])
        assert honest.outcome == "correct", honest
