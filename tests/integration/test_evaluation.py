"""An evaluation measures the policy of its step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from reasoner.config.load import resolve
from reasoner.engine import ENGINES
from reasoner.engine.hf import HfEngine
from reasoner.stages.pipeline import run_pipeline
from reasoner.storage.find_model import checkpoint_name

pytestmark = pytest.mark.integration
STEPS = (0, 2, 4)


class CopyingEngine(HfEngine):
    """An engine with its own copy of the weights, as in vLLM: it samples only from weights that are loaded into it."""


def evaluated(folder: Path, method: str) -> tuple[list[dict], Path]:
    """Return rows of the evaluations at STEPS, with the weights of each in the checkpoints."""
    config = {
        "method": method,
        "output": str(folder / "run"),
        "steps": STEPS[-1],
        "task": {"name": "arithmetic", "options": {"digits": 1}},
        "prompt": {"chat": "never"},
        "model": {"from_scratch": {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 64}},
        "rollout": {"problems_per_step": 2, "group_size": 2, "max_tokens": 8},
        "algorithm": {"advantage": "reinforce_pp", "entropy_coef": 0.1},
        "optim": {"lr": 0.01},
        "sft": {"rows_per_step": 4},
        "engine": {"name": "copying", "sync_check": False},
        "eval": {"problems": 4, "every": 2},
        "checkpoint": {"every": 2, "keep": 9},
    }
    run = run_pipeline(resolve(config), resume=False)
    rows = [json.loads(line) for line in (run / "eval_rollouts.jsonl").read_text().split("\n") if line]
    return rows, run / "checkpoints"


@torch.no_grad()
def logprobs(model_folder: Path, row: dict) -> list[float]:
    """Return the log-probabilities of a row's completion by a plain forward pass of the model."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    ids = torch.tensor([row["prompt_ids"] + row["token_ids"]])
    scores = model(ids).logits[0, :-1].log_softmax(-1)
    return scores.gather(1, ids[0, 1:, None])[len(row["prompt_ids"]) - 1 :, 0].tolist()


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_every_evaluated_completion_was_sampled_from_the_weights_of_its_step(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "copying", f"{__name__}:{CopyingEngine.__name__}")  # type: ignore[arg-type]
    rows, checkpoints = evaluated(tmp_path, method)
    assert [row["step"] for row in rows] == [step for step in STEPS for _ in range(4)]
    assert all(row["policy_version"] == row["step"] for row in rows)
    for row in rows:
        by_step = {step: logprobs(checkpoints / checkpoint_name(step) / "model", row) for step in STEPS}
        assert row["rollout_logprobs"] == pytest.approx(by_step.pop(row["step"]), abs=1e-4)
        for other in by_step.values():
            assert row["rollout_logprobs"] != pytest.approx(other, abs=1e-2)
