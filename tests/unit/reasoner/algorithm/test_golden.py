"""Losses and gradient norms on stored rollouts do not change unnoticed.

The rollouts are from the first step of a real run. After a change that is meant to move these numbers, write them
again with `python -m tests.unit.reasoner.algorithm.test_golden` and say in the commit why they moved.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from reasoner.algorithm.advantage import ESTIMATORS, get_estimator
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.importance import IMPORTANCE
from reasoner.algorithm.loss import POLICY_LOSSES
from reasoner.algorithm.objective import make_objective
from reasoner.config.load import resolve
from reasoner.policy.policy import Policy
from reasoner.records import Completion, FinishReason, Problem, Rollout, Segment
from verifiers import Verdict

CASES = Path(__file__).parents[3] / "cases"
VARIANTS = [
    *({"advantage": name} for name in ESTIMATORS if name != "gae"),
    *({"loss": name} for name in POLICY_LOSSES),
    *({"importance": name} for name in IMPORTANCE),
    *({"aggregation": name} for name in ("sequence", "constant")),
    *({"kl": name, "kl_coef": 0.1} for name in ("k1", "k2", "k3")),
    {"entropy_coef": 0.01},
]


def stored() -> list[tuple[int, Rollout]]:
    rows = [json.loads(line) for line in (CASES / "rollouts.jsonl").read_text().split("\n") if line]
    return [(row["group"], rollout(row)) for row in rows]


def rollout(row: dict) -> Rollout:
    completion = Completion(
        text=row["completion"],
        token_ids=tuple(row["token_ids"]),
        rollout_logprobs=tuple(row["rollout_logprobs"]),
        loss_mask=(True,) * len(row["token_ids"]),
        segments=(Segment(start=0, end=len(row["token_ids"]), origin="policy"),),
        finish_reason=FinishReason(row["finish_reason"]),
        policy_version=0,
    )
    return Rollout(
        problem=Problem(
            id=row["problem"], prompt=row["prompt"], reference=row["reference"], verifier="exact", task="x"
        ),
        prompt_text=row["prompt"],
        prompt_ids=tuple(row["prompt_ids"]),
        completion=completion,
        verdict=Verdict.from_json(row["verdict"]),
        sample_index=row["sample"],
        step=1,
    )


def measure(**algorithm: object) -> tuple[float, float]:
    """(loss, gradient norm) of the stored rollouts under a fixed model one update away from the one that sampled."""
    stage = resolve(
        {
            "task": "arithmetic",
            "model": {
                "from_scratch": {"hidden_size": 64, "layers": 2, "heads": 2, "max_positions": 128},
                "dtype": "float32",
            },
            "rollout": {"max_tokens": 64},
            "algorithm": algorithm,
        }
    ).stages[0]
    policy = Policy(stage, accelerator=Accelerator(cpu=True))
    policy.model.double()
    batch = Batch.of_rollouts(stored(), config=stage)
    old = policy.annotate(batch, needs=frozenset({"old_logprobs"})).old_logprobs_N
    generator = torch.Generator().manual_seed(0)
    assert old is not None

    def noisy(scale: float) -> torch.Tensor:
        return old + scale * torch.randn(len(old), generator=generator)

    from dataclasses import replace

    batch = replace(batch, rollout_logprobs_N=noisy(0.4), old_logprobs_N=noisy(0.3), ref_logprobs_N=noisy(0.3))
    batch = get_estimator(stage.algorithm.advantage).function(batch, **stage.algorithm.advantage_options)
    scorer = policy.accelerator.unwrap_model(policy.scorer)
    terms = make_objective(stage)(scorer(policy.layout(batch), 1.0), batch)
    terms.loss.backward()
    square = sum(float((p.grad.double() ** 2).sum()) for p in scorer.parameters() if p.grad is not None)
    return terms.loss.item(), square**0.5


def key(variant: dict[str, object]) -> str:
    return json.dumps(variant)


@pytest.mark.parametrize("variant", VARIANTS, ids=key)
def test_loss_and_gradient_norm(variant: dict[str, object]) -> None:
    golden = json.loads((CASES / "golden.json").read_text())[key(variant)]
    assert measure(**variant) == pytest.approx(tuple(golden), rel=1e-4)


def test_the_numbers_tell_the_variants_apart() -> None:
    golden = json.loads((CASES / "golden.json").read_text())
    norms = [round(norm, 6) for _, norm in golden.values()]
    assert min(norms) > 0
    # the defaults stand several times: once as each part's default name
    assert len(set(norms)) >= len(norms) - 4


if __name__ == "__main__":
    found = {key(variant): measure(**variant) for variant in VARIANTS}
    (CASES / "golden.json").write_text(json.dumps(found, indent=1) + "\n")
