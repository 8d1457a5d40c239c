"""The divergence of GKD in NumPy float64, against TRL on the same tensors and by finite differences; the advantages of
on-policy distillation by hand.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from reasoner.algorithm.advantage import get_estimator, student_gap
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.distillation import NO_TOKEN_LOGPROB, generalized_jsd, readable, with_teacher
from reasoner.algorithm.loss import policy_loss
from tests.unit.reasoner.policy.test_policy import config_with, make_batch

BETAS = [0.0, 0.1, 0.5, 0.9, 1.0]


def logits(seed: int, *, tokens: int = 6, vocabulary: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(tokens, vocabulary, generator=generator, dtype=torch.float64)


def numpy_jsd(student_NV: np.ndarray, teacher_NV: np.ndarray, beta: float) -> np.ndarray:
    q, p = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (student_NV, teacher_NV))

    def kl(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return (left * np.log(left / right)).sum(-1)

    if beta in (0, 1):
        return kl(p, q) if beta == 0 else kl(q, p)
    m = beta * p + (1 - beta) * q
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


@pytest.mark.parametrize("beta", BETAS)
def test_divergence_equals_numpy(beta: float) -> None:
    student, teacher = logits(0), logits(1)
    found = generalized_jsd(student.log_softmax(-1), teacher.log_softmax(-1), beta=beta)
    np.testing.assert_allclose(found.numpy(), numpy_jsd(student.numpy(), teacher.numpy(), beta), atol=1e-12)
    same = generalized_jsd(student.log_softmax(-1), student.log_softmax(-1), beta=beta)
    assert same.abs().max() < 1e-12


@pytest.mark.parametrize("beta", BETAS)
def test_divergence_equals_trl_in_value_and_gradient(beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.gkd import GKDTrainer

    ours, theirs = (logits(0).float().requires_grad_() for _ in range(2))
    teacher = logits(1).float()
    found = generalized_jsd((ours / 0.9).log_softmax(-1), (teacher / 0.9).log_softmax(-1), beta=beta).mean()
    labels = torch.zeros(1, len(teacher), dtype=torch.long)
    expected = GKDTrainer.generalized_jsd_loss(theirs[None], teacher[None], labels=labels, beta=beta, temperature=0.9)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    assert found.item() > 0.01
    found.backward()
    expected.backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert (ours.grad - theirs.grad).abs().max() < 1e-5
    assert ours.grad.abs().max() > 1e-3


@pytest.mark.parametrize("beta", BETAS)
def test_gradient_equals_finite_differences(beta: float) -> None:
    teacher = logits(1, tokens=3, vocabulary=5).log_softmax(-1)
    start = logits(0, tokens=3, vocabulary=5).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda student: generalized_jsd(student.log_softmax(-1), teacher, beta=beta), (start,), atol=1e-7
    )


def test_near_the_ends_it_is_a_multiple_of_the_kl_at_the_end() -> None:
    student, teacher = logits(0).log_softmax(-1), logits(1).log_softmax(-1)
    for beta, end in ((1e-6, 0.0), (1 - 1e-6, 1.0)):
        near = generalized_jsd(student, teacher, beta=beta) / 1e-6
        assert near.tolist() == pytest.approx(generalized_jsd(student, teacher, beta=end).tolist(), rel=1e-3)


def taught(batch: Batch, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return replace(batch, teacher_logprobs_N=-3 + torch.randn(len(batch.row_N), generator=generator))


def test_advantage_is_the_gap_to_the_teacher_of_each_token() -> None:
    batch = taught(make_batch(config_with(), rows=3))
    assert batch.old_logprobs_N is not None
    assert batch.teacher_logprobs_N is not None
    found = get_estimator("reverse_kl").function(batch, center=False).advantages_N
    assert found.tolist() == pytest.approx((batch.teacher_logprobs_N - batch.old_logprobs_N).tolist(), abs=1e-6)
    assert student_gap(batch).tolist() == pytest.approx((-found).tolist(), abs=1e-6)
    sampled = replace(batch, old_logprobs_N=None)
    found = get_estimator("reverse_kl").function(sampled, center=False).advantages_N
    gap = batch.teacher_logprobs_N - batch.rollout_logprobs_N
    assert found.tolist() == pytest.approx(gap.tolist(), abs=1e-6)


def test_centred_advantages_of_trained_tokens_have_mean_zero() -> None:
    batch = taught(make_batch(config_with(), rows=3))
    assert 0 < int((~batch.loss_mask_N).sum()) < len(batch.row_N)
    plain = get_estimator("reverse_kl").function(batch, center=False).advantages_N
    centred = get_estimator("reverse_kl").function(batch).advantages_N
    assert plain is not None
    assert centred is not None
    assert centred[batch.loss_mask_N].double().mean().item() == pytest.approx(0.0, abs=1e-6)
    assert (plain - centred).tolist() == pytest.approx([plain[batch.loss_mask_N].mean().item()] * len(plain), abs=1e-5)
    untrained = replace(batch, loss_mask_N=torch.zeros_like(batch.loss_mask_N))
    found = get_estimator("reverse_kl").function(untrained).advantages_N
    assert found.tolist() == pytest.approx(plain.tolist(), abs=1e-6)


def test_a_reward_beside_the_teacher_is_centred_in_its_group() -> None:
    batch = replace(
        taught(make_batch(config_with(), rows=4)), reward_B=torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    )
    alone = get_estimator("reverse_kl").function(batch).advantages_N
    both = get_estimator("reverse_kl").function(batch, reward_coef=0.2).advantages_N
    rewards = torch.tensor([0.1, -0.1, -0.1, 0.1])[batch.row_N]
    assert (both - alone).tolist() == pytest.approx(rewards.tolist(), abs=1e-6)


def test_without_a_teacher_it_is_an_error() -> None:
    with pytest.raises(ValueError, match="Name a teacher"):
        get_estimator("reverse_kl").function(make_batch(config_with()))


def test_the_expected_gradient_is_that_of_the_reverse_kl() -> None:
    """Over all tokens of a small vocabulary, each weighted by its probability."""
    vocabulary = 7
    student = logits(0, tokens=1, vocabulary=vocabulary)[0].requires_grad_()
    teacher_V = logits(1, tokens=1, vocabulary=vocabulary)[0].log_softmax(-1)
    student_V = student.log_softmax(-1)
    base = make_batch(config_with(importance="none"), rows=vocabulary)
    batch = replace(
        base.select(range(vocabulary)),
        input_ids=tuple(torch.tensor([0, token]) for token in range(vocabulary)),
        prompt_lengths_B=torch.ones(vocabulary, dtype=torch.long),
        row_N=torch.arange(vocabulary),
        loss_mask_N=torch.ones(vocabulary, dtype=torch.bool),
        weights_N=student_V.detach().exp(),
        rollout_logprobs_N=student_V.detach(),
        old_logprobs_N=None,
        ref_logprobs_N=None,
        advantages_N=None,
        teacher_logprobs_N=teacher_V,
    )
    batch = get_estimator("reverse_kl").function(batch)
    batch = replace(batch, advantages_N=batch.advantages_N.double())
    entropy_N = torch.zeros(vocabulary, dtype=torch.float64)
    loss = policy_loss(
        student_V,
        entropy_N,
        batch,
        loss="clip",
        loss_options={},
        importance="none",
        importance_options={},
        kl="k3",
        kl_coef=0.0,
        entropy_coef=0.0,
    ).loss
    (found,) = torch.autograd.grad(loss, student, retain_graph=True)
    kl = generalized_jsd(student_V[None], teacher_V[None], beta=1.0).sum()
    (expected,) = torch.autograd.grad(kl, student)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert expected.abs().max() > 0.01


def test_ids_that_no_token_has_are_not_shown_to_the_teacher_and_count_as_improbable() -> None:
    batch = make_batch(config_with(), rows=2)
    first = batch.input_ids[0].clone()
    first[-1] = 300
    batch = replace(batch, input_ids=(first, batch.input_ids[1]))
    shown = readable(batch, tokens=259)
    assert [int(ids.max()) < 259 for ids in shown.input_ids] == [True, True]
    assert torch.equal(shown.input_ids[0][:-1], first[:-1])
    assert readable(shown, tokens=259) is shown
    said = torch.full((len(batch.row_N),), -1.5)
    found = with_teacher(batch, said, tokens=259).teacher_logprobs_N
    assert found is not None
    last = batch.row_starts()[1] - 1
    assert found[last].item() == NO_TOKEN_LOGPROB
    assert found.tolist().count(-1.5) == len(found) - 1
