"""Kill a run that samples ahead anywhere: it ends with the records of one that never was killed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.integration.test_resume import assert_same_run, records, run, write_config

pytestmark = pytest.mark.integration
EVENS = {"name": str(Path(__file__).parent / "evens.py")}
MOMENTS = ("generation", "grading", "records", "annotate", "update", "sync", "checkpoint", "metrics")


def changes(**further: object) -> dict[str, object]:
    rollout = {"problems_per_step": 4, "group_size": 4, "max_tokens": 8, "ahead": 1}
    return {"steps": 8, "rollout": rollout, "reward": EVENS, "eval": {"problems": 4, "every": 4}, **further}


def killed_as_whole(folder: Path, count: int) -> None:
    whole, killed = write_config(folder, "whole", **changes()), write_config(folder, "killed", **changes())
    assert run(whole) == 0
    source = random.Random(5)
    passes = {"generation": 12, "grading": 60}
    died = 0
    for moment in source.choices(MOMENTS, k=count):
        if run(killed, moment, source.randrange(passes.get(moment, 4))) == 0:
            break
        died += 1
    assert died > count / 2
    assert run(killed) == 0
    assert_same_run(folder / "killed", folder / "whole")
    lags = [row.get("lag/max") for row in records(folder / "whole", "metrics.jsonl")]
    assert {lag for lag in lags if lag is not None} <= {0.0, 1.0}
    assert 1.0 in lags
    assert len({row["policy/step_kl"] for row in records(folder / "whole", "metrics.jsonl")}) == 8  # it learns


def test_a_run_that_samples_ahead_resumes_bit_for_bit(tmp_path: Path) -> None:
    killed_as_whole(tmp_path, 2)


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    killed_as_whole(tmp_path, 20)
