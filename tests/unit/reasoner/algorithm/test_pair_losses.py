"""Losses on pairs without a reference, against TRL; and gradients, soft labels and extremes of every loss on pairs."""

from __future__ import annotations

import math
from functools import partial
from itertools import product
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor

from reasoner.algorithm.pairwise import DPO_LOSSES, PairScores, cpo, orpo, simpo
from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.pair_losses import PAIR_TRAITS
from reasoner.config.stage import StageConfig
from reasoner.data.pairs import pair_batch
from reasoner.stages.dpo import check_loss, dpo_objective, implicit_rewards, pair_scores
from tests.unit.reasoner.algorithm.test_pairwise import batch_with_ref, encoded_pair, fake_scores

EVERY = sorted(DPO_LOSSES)


def stage(**dpo: object) -> StageConfig:
    made = {"method": "dpo", "model": {"from_scratch": {}}, "preferences": {"train": "x.jsonl"}, "dpo": dpo}
    return resolve(made).stages[0]


def pair(first: float, second: float, *, lengths: tuple[int, int] = (1, 1), target: float = 1.0) -> PairScores:
    one = partial(torch.tensor, dtype=torch.float64)
    return PairScores(one([first]), one([second]), one([float(lengths[0])]), one([float(lengths[1])]), one([target]))


def test_each_loss_says_what_it_compares() -> None:
    assert set(PAIR_TRAITS) == set(DPO_LOSSES)


def test_by_hand() -> None:
    # per token the first is likelier by ln 2, so that s(2 ln 2 - ln 2) = 2/3
    ahead = pair(-2 * math.log(2), -2 * math.log(2) * 2, lengths=(2, 2))
    assert simpo(ahead, beta=2.0, gamma=math.log(2)).item() == pytest.approx(math.log(1.5))
    # p = 1/2 and 1/4: odds of 1 and 1/3, s(ln 3) = 3/4
    odds = pair(3 * math.log(1 / 2), 2 * math.log(1 / 4), lengths=(3, 2))
    assert orpo(odds, beta=0.2).item() == pytest.approx(math.log(2) + 0.2 * math.log(4 / 3))
    # sums of -2 ln 2 and -4 ln 2, s(2 ln 2) = 4/5; the chosen one's NLL is ln 2 per token
    assert cpo(ahead, beta=1.0).item() == pytest.approx(math.log(5 / 4) + math.log(2))
    with pytest.raises(ValueError, match="gamma must be >= 0 for the simpo loss; got -1"):
        simpo(ahead, beta=1.0, gamma=-1)


# ------------------------------------------------------------------------------------------------------- TRL

CHOSEN, REJECTED, VOCABULARY = [4, 4, 4], [2, 6, 5], 11


def rows_of_trl(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Rows of one prompt token and a completion: (ids, labels), padded to 7 tokens."""
    generator = torch.Generator().manual_seed(sum(lengths))
    ids = torch.randint(1, VOCABULARY, (len(lengths), 7), generator=generator)
    real = torch.arange(7) <= torch.tensor(lengths)[:, None]
    labels = torch.where(real & (torch.arange(7) > 0), ids, -100)
    return torch.where(real, ids, 0), labels


def by_trl(trainer_class: type, scored: list[tuple[Tensor, Tensor]], logits: Tensor, **settings: object) -> float:
    """TRL's own `get_batch_loss_metrics`, on given logits."""
    trainer = MagicMock(
        is_encoder_decoder=False,
        aux_loss_enabled=False,
        padding_value=0,
        accelerator=SimpleNamespace(device="cpu", gather_for_metrics=lambda value: value),
        get_batch_logps=trainer_class.get_batch_logps,
        concatenated_inputs=trainer_class.concatenated_inputs,
        **settings,
    )
    for name in ("concatenated_forward", "cpo_loss", "odds_ratio_loss"):
        if hasattr(trainer_class, name):
            setattr(trainer, name, partial(getattr(trainer_class, name), trainer))
    batch: dict[str, Tensor] = {}
    for side, (ids, labels) in zip(("chosen", "rejected"), scored, strict=True):
        mask = (labels != -100).long()
        mask[:, 0] = 1
        batch |= {f"{side}_input_ids": ids, f"{side}_labels": labels, f"{side}_attention_mask": mask}
    found = trainer_class.get_batch_loss_metrics(trainer, lambda *_, **__: SimpleNamespace(logits=logits), batch)
    return found[0].item()


def ours(scored: list[tuple[Tensor, Tensor]], logits: Tensor) -> PairScores:
    sums, counts = [], []
    for (_, labels), part in zip(scored, logits.chunk(2), strict=True):
        mask, aimed = labels[:, 1:] != -100, labels[:, 1:].clamp(min=0)
        logprobs = part[:, :-1].log_softmax(-1).gather(2, aimed[..., None])[..., 0]
        sums.append((logprobs * mask).sum(1))
        counts.append(mask.sum(1).float())
    return PairScores(sums[0], sums[1], counts[0], counts[1], torch.ones(len(sums[0])))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loss", ["simpo", "cpo", "orpo"])
def test_losses_without_a_reference_equal_trl(loss: str) -> None:
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    scored = [rows_of_trl(CHOSEN), rows_of_trl(REJECTED)]
    logits = 2 * torch.randn(6, 7, VOCABULARY, generator=torch.Generator().manual_seed(5))
    if loss == "simpo":
        settings = {"loss_type": "simpo", "simpo_gamma": 0.7, "cpo_alpha": 0.0}
    else:
        settings = {"loss_type": "sigmoid", "cpo_alpha": 1.0}
    trainer_class = ORPOTrainer if loss == "orpo" else CPOTrainer
    expected = by_trl(trainer_class, scored, logits, beta=0.3, alpha=0.0, label_smoothing=0.0, **settings)
    options = {"gamma": 0.7} if loss == "simpo" else {}
    found = DPO_LOSSES[loss](ours(scored, logits), beta=0.3, **options).mean().item()
    assert found == pytest.approx(expected, abs=1e-5)


# ----------------------------------------------------------------------------------------- what holds for each loss


@pytest.mark.parametrize("loss", EVERY)
def test_gradients_equal_finite_differences(loss: str) -> None:
    def of(first: Tensor, second: Tensor) -> Tensor:
        tokens = torch.tensor([4.0, 2.0, 1.0, 3.0], dtype=torch.float64)
        target = torch.tensor([1.0, 0.8, 0.5, 0.0], dtype=torch.float64)
        return DPO_LOSSES[loss](PairScores(first, second, tokens, tokens.flip(0), target), beta=0.3)

    first = torch.tensor([-1.5, -0.2, -3.0, -2.0], dtype=torch.float64, requires_grad=True)
    second = torch.tensor([-0.5, -0.4, -0.3, -7.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(of, (first, second), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("loss", EVERY)
def test_a_soft_label_is_the_expectation_over_the_label(loss: str) -> None:
    def at(target: float) -> float:
        return DPO_LOSSES[loss](pair(-1.5, -4.0, lengths=(3, 5), target=target), beta=0.3).item()

    constant = (1 - 0.6**2) / (2 * 0.3) ** 2 if loss == "ipo" else 0.0  # the variance of ipo's goal
    assert at(0.8) == pytest.approx(0.8 * at(1.0) + 0.2 * at(0.0) - constant, abs=1e-12)


@pytest.mark.parametrize("loss", EVERY)
def test_a_tie_of_equal_completions_moves_neither_apart_from_the_other(loss: str) -> None:
    tie = pair(-3.0, -3.0, lengths=(4, 4), target=0.5)
    first, second = tie.first_C.requires_grad_(), tie.second_C.requires_grad_()
    DPO_LOSSES[loss](tie, beta=0.3).sum().backward()
    assert first.grad is not None
    assert second.grad is not None
    assert first.grad.item() == pytest.approx(second.grad.item(), abs=1e-12)
    likelier = loss in ("orpo", "cpo")  # both have the likelihood of what the label chooses: half of each
    assert (first.grad.item() < 0) == likelier


@pytest.mark.parametrize("loss", EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_infinite_at_the_ends(loss: str, dtype: torch.dtype) -> None:
    ends, lengths = (-1e4, -1e-9, 0.0), [(0, 0), (1, 0), (0, 1), (1, 1), (1, 4096)]
    cases = [(*case, target) for case in product(ends, ends, lengths) for target in (0.0, 0.5, 1.0)]
    first, second = (torch.tensor([case[side] for case in cases], dtype=dtype, requires_grad=True) for side in (0, 1))
    tokens = torch.tensor([case[2] for case in cases], dtype=dtype)
    target = torch.tensor([case[3] for case in cases], dtype=dtype)
    value = DPO_LOSSES[loss](PairScores(first, second, tokens[:, 0], tokens[:, 1], target), beta=2.0)
    value.sum().backward()
    for found in (value, first.grad, second.grad):
        assert found is not None
        assert found.isfinite().all()


# --------------------------------------------------------------------------------------------------- in the stage


@pytest.mark.parametrize("loss", EVERY)
def test_only_losses_with_a_reference_read_it(loss: str) -> None:
    section = stage(loss=loss).dpo
    batch = pair_batch([encoded_pair(0, [1, 2], [3]), encoded_pair(1, [4], [5, 6])])
    logprobs = torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0])
    objective = dpo_objective(section, pairs=2, chosen_tokens=3)
    if section.has_reference:
        with pytest.raises(AssertionError):
            objective(fake_scores(logprobs), batch)
        return
    bare = objective(fake_scores(logprobs), batch)
    given = objective(fake_scores(logprobs), batch_with_ref(batch, torch.full((6,), -9.0)))
    assert bare.loss.item() == given.loss.item()
    seen = pair_scores(logprobs, batch, reference=False)
    assert seen.first_C.tolist() == [-3.0, -4.0]
    rewards = [value / section.beta for value in implicit_rewards(seen, section)[0].tolist()]
    assert rewards == pytest.approx([-3.0, -4.0] if loss == "cpo" else [-1.5, -4.0])


def test_beta_has_a_default_for_each_loss() -> None:
    assert [stage(loss=loss).dpo.beta for loss in ("sigmoid", "sigmoid_norm", "simpo", "orpo")] == [0.1, 5.0, 2.0, 0.1]
    assert stage(loss="simpo", beta=0.5).dpo.beta == 0.5
    assert stage(loss="my:loss").dpo.beta == 0.1


@pytest.mark.parametrize(
    ("dpo", "says"),
    [
        ({"loss": "simpo", "reference": "start"}, "dpo.reference must be none for dpo.loss simpo"),
        ({"loss": "sigmoid", "reference": "none"}, "dpo.reference must be start for dpo.loss sigmoid"),
        ({"loss": "simpo", "loss_options": {"gamma": -0.1}}, "gamma must be >= 0 for the simpo loss; got -0.1"),
        ({"loss": "orpo", "loss_options": {"gamma": 1.0}}, "DPO loss 'orpo' has no option 'gamma'"),
        ({"loss": "cpo", "beta": 0}, "greater than 0"),
        ({"loss": "simp"}, "Did you mean 'simpo'"),
    ],
)
def test_what_does_not_fit_a_loss_is_refused(dpo: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_loss(stage(**dpo))


@pytest.mark.parametrize("loss", EVERY)
def test_each_loss_follows_the_labels_at_the_start(loss: str) -> None:
    check_loss(stage(loss=loss))
    assert stage(loss="my:loss", reference="none").dpo.has_reference is False
