"""Tokens that an environment wrote change nothing: no loss, gradient, advantage, KL, value target or metric."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from reasoner.algorithm.advantage import ESTIMATORS
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.importance import IMPORTANCE
from reasoner.algorithm.kl import KL
from reasoner.algorithm.loss import POLICY_LOSSES, policy_loss, value_loss
from reasoner.algorithm.token_weights import token_weights

AGGREGATIONS = ("token", "sequence", "constant")
ROWS = ("ppeepp", "pep", "pppp", "pepepp", "p", "peeeep", "pp", "ppep")
"""Turns of each row: p a token of the policy, e one of the environment."""


def noise(generator: torch.Generator, count: int) -> Tensor:
    return -1 + 0.3 * torch.randn(count, generator=generator, dtype=torch.float64)


def batch_of(rows: tuple[str, ...], aggregation: str) -> tuple[Batch, Tensor, Tensor]:
    """A batch, the log-probabilities of its policy and the entropies; equal at policy tokens for any turns."""
    generator = torch.Generator().manual_seed(5)
    policy = sum(row.count("p") for row in ROWS)
    mask_N = torch.tensor([kind == "p" for row in rows for kind in row])
    row_N = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([len(row) for row in rows]))
    columns: list[Tensor] = []
    for _ in range(7):
        column_N = torch.zeros(len(mask_N), dtype=torch.float64)
        column_N[mask_N] = noise(generator, policy)
        columns.append(column_N)
    rollout_N, old_N, ref_N, values_N, now_N, entropy_N, teacher_N = columns
    batch = Batch(
        input_ids=tuple(torch.zeros(1 + len(row), dtype=torch.long) for row in rows),
        prompt_lengths_B=torch.ones(len(rows), dtype=torch.long),
        row_N=row_N,
        loss_mask_N=mask_N,
        reward_B=torch.tensor([1.0, 0.0, 0.5, 1.0, 0.0, 0.0, 1.0, 0.25], dtype=torch.float64),
        quality_B=torch.tensor([1.0, 0.0, 0.5, 1.0, 0.0, 0.0, 1.0, 0.25], dtype=torch.float64),
        group_B=torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]),
        weights_N=token_weights(mask_N, row_N, rows=len(rows), mode=aggregation, max_tokens=16, tokens=None).double(),
        rollout_logprobs_N=rollout_N,
        old_logprobs_N=old_N,
        ref_logprobs_N=ref_N,
        values_N=values_N,
        teacher_logprobs_N=teacher_N,
    )
    return batch, now_N, -entropy_N


def with_noise(batch: Batch, now_N: Tensor, entropy_N: Tensor) -> tuple[Batch, Tensor, Tensor]:
    """The same with other numbers wherever the environment wrote."""
    generator = torch.Generator().manual_seed(77)
    env_N = ~batch.loss_mask_N

    def disturbed(values_N: Tensor) -> Tensor:
        found_N = values_N.clone()
        found_N[env_N] = 3 * noise(generator, int(env_N.sum()))
        return found_N

    names = ("rollout_logprobs_N", "old_logprobs_N", "ref_logprobs_N", "values_N", "teacher_logprobs_N")
    changed = {name: disturbed(getattr(batch, name)) for name in names}
    return replace(batch, **changed), disturbed(now_N), disturbed(entropy_N)


def compacted(batch: Batch, now_N: Tensor, entropy_N: Tensor) -> tuple[Batch, Tensor, Tensor]:
    """The same without the environment's tokens."""
    keep_N = batch.loss_mask_N
    changed = {
        field.name: getattr(batch, field.name)[keep_N]
        for field in fields(batch)
        if field.name.endswith("_N") and getattr(batch, field.name) is not None
    }
    ids = tuple(torch.zeros(1 + int(keep_N[batch.row_N == row].sum()), dtype=torch.long) for row in range(len(batch)))
    return replace(batch, input_ids=ids, **changed), now_N[keep_N], entropy_N[keep_N]


def everything(
    batch: Batch, now_N: Tensor, entropy_N: Tensor, *, estimator: str, loss: str, importance: str, kl: str
) -> dict[str, Tensor]:
    """All that a step computes, at the policy's tokens."""
    options = {"kl_coef": 0.05} if estimator in ("gae", "reinforce_pp") else {}
    batch = ESTIMATORS[estimator].function(batch, **options)
    now_N, entropy_N = now_N.clone().requires_grad_(), entropy_N.clone().requires_grad_()
    terms = policy_loss(
        now_N,
        entropy_N,
        batch,
        loss=loss,
        loss_options={},
        importance=importance,
        importance_options={},
        kl=kl,
        kl_coef=0.1,
        entropy_coef=0.01,
    )
    gradient_N, entropy_gradient_N = torch.autograd.grad(terms.loss, (now_N, entropy_N))
    assert not gradient_N[~batch.loss_mask_N].any()
    assert not entropy_gradient_N[~batch.loss_mask_N].any()
    assert batch.advantages_N is not None
    found = {
        "loss": terms.loss.detach(),
        "gradient": gradient_N[batch.loss_mask_N],
        "entropy gradient": entropy_gradient_N[batch.loss_mask_N],
        "advantages": batch.advantages_N[batch.loss_mask_N].double(),
        **{name: torch.as_tensor(value).detach() for name, value in terms.metrics.items()},
    }
    if batch.returns_N is not None and batch.values_N is not None:
        values_N = (batch.values_N + 0.1).requires_grad_()
        value = value_loss(values_N, batch)
        (value_gradient_N,) = torch.autograd.grad(value.loss, values_N)
        assert not value_gradient_N[~batch.loss_mask_N].any()
        found |= {
            "value loss": value.loss.detach(),
            "value gradient": value_gradient_N[batch.loss_mask_N],
            "returns": batch.returns_N[batch.loss_mask_N].double(),
        }
    return found


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_environment_tokens_change_nothing(estimator: str, aggregation: str) -> None:
    base = batch_of(ROWS, aggregation)
    for loss, importance in itertools.product(POLICY_LOSSES, IMPORTANCE):
        kl = [*KL][(len(loss) + len(importance)) % len(KL)]
        expected = everything(*base, estimator=estimator, loss=loss, importance=importance, kl=kl)
        for other in (with_noise(*base), compacted(*base)):
            found = everything(*other, estimator=estimator, loss=loss, importance=importance, kl=kl)
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9, msg=f"{loss} {importance}: {name}")


def test_the_reward_of_a_row_with_replies_reaches_its_first_token() -> None:
    batch, _, _ = batch_of(ROWS, "token")
    batch = replace(batch, values_N=torch.zeros(len(batch.row_N)))
    found = ESTIMATORS["gae"].function(batch, gamma=1.0, lam=1.0, whiten=False)
    assert found.advantages_N is not None
    for start, reward in zip(batch.row_starts()[:-1], batch.reward_B.tolist(), strict=True):
        assert found.advantages_N[start].item() == pytest.approx(reward, abs=1e-6)


@pytest.mark.parametrize("estimator", ["gae", "reinforce_pp"])
def test_a_mask_that_is_off_by_one_would_be_seen(estimator: str) -> None:
    batch, now_N, entropy_N = batch_of(ROWS, "token")
    wrong = replace(batch, loss_mask_N=torch.roll(batch.loss_mask_N, 1))
    names = {"estimator": estimator, "loss": "clip", "importance": "none", "kl": "k3"}
    right = everything(batch, now_N, entropy_N, **names)
    off = everything(wrong, now_N, entropy_N, **names)
    assert (right["loss"] - off["loss"]).abs() > 1e-6
