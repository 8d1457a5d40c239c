"""Stages of one run may differ in dtype, and the hf engine samples under autocast."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from reasoner.config import resolve
from reasoner.pipeline import run_pipeline


@pytest.fixture
def own_state() -> Iterator[None]:
    """The precision of the last stage stays with the process: other tests must not see it."""
    yield
    AcceleratorState._reset_state()


@pytest.mark.usefixtures("own_state")
def test_a_float32_stage_is_followed_by_a_bfloat16_one(tmp_path: Path) -> None:
    config = {
        "output": str(tmp_path / "run"),
        "steps": 1,
        "task": {"name": "arithmetic", "options": {"digits": 1, "train_size": 20, "test_size": 4}},
        "prompt": {"chat": "never"},
        "rollout": {"problems_per_step": 2, "group_size": 2, "max_tokens": 4},
        "engine": {"name": "hf"},
        "eval": {"problems": 0},
        "logging": {"tensorboard": False},
        "stages": [
            {
                "method": "sft",
                "model": {
                    "dtype": "float32",
                    "from_scratch": {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 64},
                },
            },
            {"method": "grpo", "model": {"dtype": "bfloat16"}},
        ],
    }
    last = run_pipeline(resolve(config), resume=False)
    assert (last / "done.json").is_file()
