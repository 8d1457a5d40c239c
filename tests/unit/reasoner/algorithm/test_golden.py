"""Losses and gradient norms on stored rollouts do not change unnoticed.

The rollouts are from the first step of a real run. After a change that is meant to move these numbers, write them
again with `python -m tests.unit.reasoner.algorithm.test_golden` and say in the commit why they moved.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from reasoner.algorithm.advantage import ESTIMATORS, get_estimator
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.importance import IMPORTANCE
from reasoner.algorithm.loss import POLICY_LOSSES
from reasoner.algorithm.objective import TokenScores, make_objective
from reasoner.config.load import resolve
from reasoner.config.stage import StageConfig
from reasoner.policy.policy import Policy
from reasoner.records import Completion, FinishReason, Problem, Rollout, Segment
from verifiers import Verdict

CASES = Path(__file__).parents[3] / "cases"
VARIANTS = [
    *({"advantage": name} for name in ESTIMATORS if name not in ("gae", "reverse_kl")),
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


def configured(**algorithm: object) -> StageConfig:
    raw: dict[str, object] = {
        "task": "arithmetic",
        "model": {
            "from_scratch": {"hidden_size": 64, "layers": 2, "heads": 2, "max_positions": 128},
            "dtype": "float32",
        },
        "rollout": {"max_tokens": 64},
        "algorithm": algorithm,
    }
    return resolve(raw).stages[0]


def advised(stage: StageConfig, batch: Batch, logprobs_N: torch.Tensor) -> Batch:
    """Return the rollouts with advantages, and with random log-probabilities of engine, old policy and reference near
    the given ones.
    """
    generator = torch.Generator().manual_seed(0)

    def noisy(scale: float) -> torch.Tensor:
        return logprobs_N + scale * torch.randn(len(logprobs_N), generator=generator)

    batch = replace(batch, rollout_logprobs_N=noisy(0.4), old_logprobs_N=noisy(0.3), ref_logprobs_N=noisy(0.3))
    return get_estimator(stage.algorithm.advantage).function(batch, **stage.algorithm.advantage_options)


def measure(**algorithm: object) -> tuple[float, float]:
    """Return (loss, gradient norm) of the stored rollouts under a fixed model one update away from the one that
    sampled.
    """
    stage = configured(**algorithm)
    policy = Policy(stage, accelerator=Accelerator(cpu=True))
    policy.model.double()
    batch = Batch.of_rollouts(stored(), config=stage)
    old = policy.annotate(batch, needs=frozenset({"old_logprobs"})).old_logprobs_N
    assert old is not None
    batch = advised(stage, batch, old)
    scorer = policy.accelerator.unwrap_model(policy.scorer)
    terms = make_objective(stage)(scorer(policy.layout(batch), 1.0), batch)
    terms.loss.backward()
    square = sum(float((p.grad.double() ** 2).sum()) for p in scorer.parameters() if p.grad is not None)
    return terms.loss.item(), square**0.5


def slopes(**algorithm: object) -> torch.Tensor:
    """Return the [2N] derivatives of the loss in each token's log-probability and entropy, without a model."""
    stage = configured(**algorithm)
    batch = Batch.of_rollouts(stored(), config=stage)
    logprobs_N, entropy_N = batch.rollout_logprobs_N, torch.ones(len(batch.row_N))
    batch = advised(stage, batch, logprobs_N)
    scores = TokenScores(logprobs_N.clone().requires_grad_(), entropy_N.requires_grad_())
    make_objective(stage)(scores, batch).loss.backward()
    found = [torch.zeros_like(one) if one.grad is None else one.grad for one in (scores.logprobs_N, scores.entropy_N)]
    return torch.cat(found)


def key(variant: dict[str, object]) -> str:
    return json.dumps(variant)


@pytest.mark.parametrize("variant", VARIANTS, ids=key)
def test_loss_and_gradient_norm(variant: dict[str, object]) -> None:
    golden = json.loads((CASES / "golden.json").read_text())[key(variant)]
    assert measure(**variant) == pytest.approx(tuple(golden), rel=1e-4)


def test_every_variant_pulls_in_a_direction_of_its_own() -> None:
    default = slopes()
    found = {key(variant): slopes(**variant) for variant in VARIANTS}
    assert found.keys() == json.loads((CASES / "golden.json").read_text()).keys()
    for variant in ({"advantage": "grpo"}, {"loss": "clip"}, {"importance": "truncated"}):
        assert torch.equal(found.pop(key(variant)), default)
    for (name, one), (other_name, other) in itertools.combinations({"the default": default, **found}.items(), 2):
        assert (one - other).norm() > 1e-3 * one.norm(), (name, other_name)


if __name__ == "__main__":
    found = {key(variant): measure(**variant) for variant in VARIANTS}
    (CASES / "golden.json").write_text(json.dumps(found, indent=1) + "\n")
