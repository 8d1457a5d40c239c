"""The environment that ordinary programs find in a job: a stack to raise, a private loopback, time zones, locales."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.pool import PooledSandbox
from tests.backends import ISOLATED, opened, python

pytestmark = pytest.mark.integration
CASES = Path(__file__).parents[1] / "cases" / "sandbox_environment.jsonl"
ROWS = [json.loads(line) for line in CASES.read_text().split("\n") if line]


@pytest.fixture(scope="module", params=ISOLATED)
def sandbox(request: pytest.FixtureRequest) -> Iterator[PooledSandbox]:
    with opened(request.param, workers=1) as found:
        yield found


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_a_program_finds_what_it_would_elsewhere(sandbox: PooledSandbox, row: dict[str, str]) -> None:
    result = sandbox.run(python(row["program"], cpu_seconds=5.0, wall_seconds=15.0))
    assert (result.outcome, result.stdout.decode()) == (row["outcome"], row["stdout"]), result
