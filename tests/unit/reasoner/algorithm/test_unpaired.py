"""KTO: by hand, against TRL on the same tensors, gradients, and independent of the batching of rows."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import partial
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from reasoner.algorithm.unpaired import kl_baseline, kto
from reasoner.config.sections import KtoSection
from reasoner.data.rows import Encoded
from reasoner.policy.policy import Policy
from reasoner.stages.encoded_labels import EncodedLabel, labels_batch
from reasoner.stages.kto import evaluate_labels, kto_objective
from tests.unit.reasoner.algorithm.test_pairwise import batch_with_ref, fake_scores, stage, variants
from tests.unit.reasoner.policy.test_policy import in_double


def test_by_hand() -> None:
    # s(0.5 * 2 ln 3) = 3/4: of the desirable row 1 - 3/4, of the undesirable one, which is as far ahead, 3/4
    ahead = torch.full((2,), 1.5 + 2 * math.log(3), dtype=torch.float64)
    found = kto(ahead, torch.tensor([True, False]), kl=1.5, beta=0.5, desirable_weight=2.0, undesirable_weight=0.5)
    assert found.tolist() == pytest.approx([2.0 * 0.25, 0.5 * 0.75])
    assert kl_baseline(torch.tensor([3.0, -1.0])) == 1.0
    assert kl_baseline(torch.tensor([-3.0, 1.0])) == 0.0


def test_gradient_equals_finite_differences() -> None:
    ratio = torch.tensor([-3.0, 0.0, 0.7, 9.0], dtype=torch.float64, requires_grad=True)
    label = torch.tensor([True, False, True, False])
    assert torch.autograd.gradcheck(lambda r: kto(r, label, kl=0.4, beta=0.3, undesirable_weight=1.3), ratio, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_infinite_at_the_ends(dtype: torch.dtype) -> None:
    ratio = torch.tensor([-1e4, 0.0, 1e4] * 2, dtype=dtype, requires_grad=True)
    found = kto(ratio, torch.tensor([True] * 3 + [False] * 3), kl=0.0, beta=2.0)
    found.sum().backward()
    assert found.tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0, 0.5, 1.0])
    assert ratio.grad is not None
    assert ratio.grad.tolist() == pytest.approx([0.0, -0.5, 0.0, 0.0, 0.5, 0.0])


def by_trl(logprobs: Tensor, ref: Tensor, other: Tensor, ref_other: Tensor, mask: Tensor, label: Tensor) -> float:
    """TRL's own loss on token log-probabilities of rows and of mismatched ones, all under one mask."""
    from trl import KTOTrainer

    width = mask.shape[1] + 1
    outputs = {}
    for mark, values in ((0, logprobs), (1, other)):
        zeros = torch.zeros_like(values)
        outputs[mark] = SimpleNamespace(log_probs=values * mask, entropy=zeros, mean_logits=zeros)
    trainer = MagicMock(
        model=SimpleNamespace(training=True),
        loss_type="kto",
        calculate_KL=True,
        precompute_ref_logps=True,
        aux_loss_enabled=False,
        beta=0.3,
        desirable_weight=1.5,
        undesirable_weight=0.7,
        accelerator=SimpleNamespace(device="cpu", gather_for_metrics=lambda value: value),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    trainer._compute_kl_logps = partial(KTOTrainer._compute_kl_logps, trainer)
    ids, padded = torch.zeros(len(mask), width, dtype=torch.long), torch.cat([torch.zeros(len(mask), 1), mask], 1)
    inputs = {
        **{"input_ids": ids, "attention_mask": ids + 1, "completion_mask": padded},
        **{"KL_input_ids": ids + 1, "KL_attention_mask": ids + 1, "KL_completion_mask": padded},
        **{"label": label, "ref_logps": (ref * mask).sum(1), "ref_KL_logps": (ref_other * mask).sum(1)},
    }

    def model(**given: Tensor) -> SimpleNamespace:
        return outputs[int(given["input_ids"][0, 0])]

    return KTOTrainer._compute_loss(trainer, model, inputs, False).item()


@pytest.mark.parametrize("ahead", [0.0, 0.6])
@pytest.mark.parametrize("label", [[True, False, True, False, False], [True] * 5, [False] * 5])
def test_loss_equals_trl(ahead: float, label: list[bool]) -> None:
    generator = torch.Generator().manual_seed(2)
    mask = (torch.arange(6) < torch.tensor([6, 1, 3, 2, 5])[:, None]).float()
    scored = [-3 * torch.rand(5, 6, generator=generator) for _ in range(4)]
    scored[2] = scored[2] + ahead  # the mean of the mismatched log-ratios is negative without this
    expected = by_trl(*scored, mask, torch.tensor(label))
    ratio, other = (((scored[at] - scored[at + 1]) * mask).sum(1) for at in (0, 2))
    kl = kl_baseline(other)
    assert (kl > 0) == (ahead > 0)
    found = kto(ratio, torch.tensor(label), kl=kl, beta=0.3, desirable_weight=1.5, undesirable_weight=0.7)
    assert found.mean().item() == pytest.approx(expected, abs=1e-5)


def encoded_row(number: int, ids: list[int], *, desirable: bool) -> EncodedLabel:
    row = Encoded(id=str(number), prompt_ids=(1, 2), completion_ids=tuple(ids), loss_mask=(True,) * len(ids))
    return EncodedLabel(desirable, row, row, number)


def test_gradient_does_not_change_with_micro_batches_packing_padding_or_order() -> None:
    policy = Policy(stage("kto"), accelerator=Accelerator(cpu=True))
    in_double(policy.scorer)
    generator = torch.Generator().manual_seed(3)
    rows = [
        encoded_row(n, torch.randint(0, 256, (1 + 3 * n,), generator=generator).tolist(), desirable=n % 3 == 0)
        for n in range(6)
    ]
    batch = labels_batch(rows)
    ref_N = -5.5 + 0.3 * torch.randn(len(batch.row_N), generator=generator, dtype=torch.float64)
    batch = batch_with_ref(batch, ref_N)
    shuffled = batch.select([4, 0, 5, 2, 1, 3])
    variants(policy, batch, shuffled, kto_objective(KtoSection(undesirable_weight=1.5), batch, kl=0.2))


def test_figures_of_a_step_are_means_by_label() -> None:
    batch = labels_batch([encoded_row(n, [n], desirable=n == 0) for n in range(4)])
    batch = batch_with_ref(batch, torch.zeros(4))
    ratio = torch.tensor([2.0, -1.0, -2.0, -3.0])
    objective = kto_objective(KtoSection(beta=0.5), batch, kl=0.25)
    parts = [objective(fake_scores(ratio[rows]), batch.select(rows)).metrics for rows in ([0, 1], [2, 3])]
    found = {name: sum(float(part[name]) for part in parts) / 4 for name in parts[0]}
    assert found["kto/reward_desirable"] == pytest.approx(1.0)
    assert found["kto/reward_undesirable"] == pytest.approx(-1.0)
    assert found["kto/margin"] == pytest.approx(2.0)
    assert (found["kto/kl"], found["kto/desirable"]) == (0.25, 0.25)


def test_held_out_accuracy_is_the_chance_that_a_desirable_row_is_above_an_undesirable_one() -> None:
    batch = labels_batch([encoded_row(n, [n], desirable=n < 2) for n in range(5)])
    ratio = torch.tensor([2.0, 0.0, -1.0, 0.0, 1.0], dtype=torch.float64)
    found = evaluate_labels(ratio, batch, KtoSection(), kl=0.0)
    assert found.estimates["accuracy"].value == pytest.approx((3 + 1.5) / 6)
    assert found.estimates["accuracy"].low < 0.5 < found.estimates["accuracy"].high
    alone = labels_batch([encoded_row(0, [1], desirable=True)])
    assert evaluate_labels(ratio[:1], alone, KtoSection(), kl=0.0).estimates == {}
