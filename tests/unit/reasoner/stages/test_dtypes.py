"""Stages of one run may differ in dtype, and the hf engine samples under autocast."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from reasoner.config.load import resolve
from reasoner.stages.pipeline import run_pipeline


@pytest.fixture
def own_state() -> Iterator[None]:
    """Restore the precision, which the last stage sets for the process: other tests must not see it."""
    yield
    AcceleratorState._reset_state()


SCRATCH = {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 64}


def run(tmp_path: Path, *stages: dict[str, object]) -> bool:
    config = {
        "output": str(tmp_path / "run"),
        "steps": 1,
        "task": {"name": "arithmetic", "options": {"digits": 1, "train_size": 20, "test_size": 4}},
        "prompt": {"chat": "never"},
        "rollout": {"problems_per_step": 2, "group_size": 2, "max_tokens": 4},
        "engine": {"name": "hf"},
        "eval": {"problems": 0},
        "logging": {"tensorboard": False},
        "stages": list(stages),
    }
    return (run_pipeline(resolve(config), resume=False) / "done.json").is_file()


@pytest.mark.usefixtures("own_state")
def test_a_float32_stage_is_followed_by_a_bfloat16_one(tmp_path: Path) -> None:
    first = {"method": "sft", "model": {"dtype": "float32", "from_scratch": SCRATCH}}
    assert run(tmp_path, first, {"method": "grpo", "model": {"dtype": "bfloat16"}})


@pytest.mark.usefixtures("own_state")
@pytest.mark.parametrize("trunk", ["shared", "separate"])
def test_values_alone_are_learned_in_bfloat16(tmp_path: Path, trunk: str) -> None:
    model = {"dtype": "bfloat16", "from_scratch": SCRATCH, "lora": {"rank": 2}}
    assert run(tmp_path, {"method": "ppo", "model": model, "value": {"trunk": trunk, "warmup_steps": 1}})
