"""Contents of a stage's checkpoints, and the reading of those with an earlier layout."""

from __future__ import annotations

import json

import pytest

from reasoner.algorithm.kl_control import KLState
from reasoner.policy.progress import BestModel, Progress, StageState
from reasoner.records import Estimate

ESTIMATE = Estimate(0.5, 0.4, 0.6)


def test_everything_a_checkpoint_keeps_comes_back() -> None:
    progress = Progress(
        step=7,
        sampler={"drawn": [7], "parts": [{"epoch": 1, "position": 2}]},
        offsets={"metrics.jsonl": 120},
        difficulty={"step": 7, "counts": {"sums/1": [1.5, 0.5, 7]}},
        state=StageState(
            data={"pairs": "3 rows"},
            first_eval={"avg@1": ESTIMATE},
            best=0.5,
            validation={"accuracy": ESTIMATE},
            best_model=BestModel(loss=float("inf"), step=5, estimates={"accuracy": ESTIMATE}, stale=2),
            ended=True,
            kl=KLState(coef=0.2, last_within=6, over_budget=True),
            alarms=["length"],
        ),
    )
    back = Progress.from_json(json.loads(json.dumps(progress.to_json())))
    assert back == progress
    assert isinstance(back.state.first_eval["avg@1"], Estimate)


def test_a_checkpoint_from_before_the_records_is_read() -> None:
    row = {
        "step": 9,
        "sampler": {"epoch": 0, "position": 4},
        "offsets": {"metrics.jsonl": 5},
        "best": 0.25,
        "extra": {
            "first_eval": {"avg@1": [0.5, 0.4, 0.6]},
            "held_out": {"accuracy": [0.5, 0.4, 0.6]},
            "difficulty": {"step": 9, "counts": {}},
            "state": {
                "data/training problems": "8 rows",
                "kl_coef": 0.3,
                "kl_within": 8,
                "kl_over": False,
                "alarms": ["length"],
                "best_loss": 1.5,
                "best_step": 6,
                "stale": 1,
                "best": {"accuracy": [0.5, 0.4, 0.6]},
                "ended": True,
            },
        },
    }
    assert Progress.from_json(row) == Progress(
        step=9,
        sampler={"epoch": 0, "position": 4},
        offsets={"metrics.jsonl": 5},
        difficulty={"step": 9, "counts": {}},
        state=StageState(
            data={"training problems": "8 rows"},
            first_eval={"avg@1": ESTIMATE},
            best=0.25,
            validation={"accuracy": ESTIMATE},
            best_model=BestModel(loss=1.5, step=6, estimates={"accuracy": ESTIMATE}, stale=1),
            ended=True,
            kl=KLState(coef=0.3, last_within=8, over_budget=False),
            alarms=["length"],
        ),
    )
    assert Progress.from_json({**row, "extra": None}).state == StageState(best=0.25)


@pytest.mark.parametrize("change", [{"step": "many"}, {"offsets": [1]}, {"state": {"kl": 3}}])
def test_a_damaged_row_is_refused(change: dict[str, object]) -> None:
    row = Progress(step=1, sampler={}, offsets={}).to_json()
    with pytest.raises(ValueError, match=next(iter(change))):
        Progress.from_json({**row, **change})
    with pytest.raises(ValueError, match="offsets"):
        Progress.from_json({"step": 1, "sampler": {}})
