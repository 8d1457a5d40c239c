"""Kill a run with an environment anywhere: it ends with the records of one that never was killed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.integration.test_resume import assert_same_run, records, run, write_config

pytestmark = pytest.mark.integration
MIRROR = str(Path(__file__).parents[1] / "unit" / "reasoner" / "rollout" / "mirrors.py") + ":Mirror"
"""An environment that a model with random weights plays for several turns."""
MOMENTS = ("generation", "grading", "records", "annotate", "update", "sync", "checkpoint", "metrics")


def changes(**further: object) -> dict[str, object]:
    task = {"name": "arithmetic", "options": {"digits": 1}, "environment": {"name": MIRROR}}
    return {
        "task": task,
        "steps": 8,
        "rollout": {"problems_per_step": 4, "group_size": 4, "max_tokens": 48},
        "eval": {"problems": 4, "every": 4},
        **further,
    }


def kills(count: int) -> list[tuple[str, int]]:
    """Moments and how often a process passes them before it dies; replies are submitted as rows to grade are."""
    source = random.Random(11)
    passes = {"generation": 12, "grading": 120}
    return [(moment, source.randrange(passes.get(moment, 4))) for moment in source.choices(MOMENTS, k=count)]


def killed_as_whole(folder: Path, count: int) -> None:
    whole, killed = write_config(folder, "whole", **changes()), write_config(folder, "killed", **changes())
    assert run(whole) == 0
    for moment, passes in kills(count):
        if run(killed, moment, passes) == 0:
            break
    assert run(killed) == 0
    assert_same_run(folder / "killed", folder / "whole")
    rows = records(folder / "whole", "rollouts.jsonl")
    assert sum(row["turns"] is not None for row in rows) > len(rows) / 4


def test_a_run_with_an_environment_resumes_bit_for_bit(tmp_path: Path) -> None:
    killed_as_whole(tmp_path, 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills(tmp_path: Path) -> None:
    killed_as_whole(tmp_path, 20)


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    one = write_config(tmp_path, "one", **changes(steps=3, grading={"workers": 1}))
    four = write_config(tmp_path, "four", **changes(steps=3, grading={"workers": 4}))
    assert (run(one), run(four)) == (0, 0)
    for name in ("rollouts.jsonl", "updates.jsonl"):
        assert records(tmp_path / "one", name) == records(tmp_path / "four", name)
