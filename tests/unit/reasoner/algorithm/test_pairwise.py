"""Losses on pairs: by hand in NumPy float64, against TRL on the same tensors, and independent of the batching of
rows.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import partial
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from reasoner.algorithm.pairwise import DPO_LOSSES, PairScores, bradley_terry, ipo, robust, sigmoid
from reasoner.config.load import resolve
from reasoner.config.sections import DpoSection
from reasoner.config.stage import StageConfig
from reasoner.data.pairs import EncodedPair, pair_batch
from reasoner.data.preferences import Pair
from reasoner.data.rows import Encoded
from reasoner.policy.kinds import PairPolicy
from reasoner.policy.layout import packed, padded, unpadded
from reasoner.policy.policy import Policy
from reasoner.policy.reward import RewardPolicy
from reasoner.stages.dpo import dpo_objective, pair_scores
from reasoner.stages.reward_model import bootstrap, bradley_terry_objective
from tests.unit.reasoner.policy.test_policy import in_double

SHAPE = {"hidden_size": 32, "layers": 2, "heads": 2, "max_positions": 128}


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.log1p(np.exp(-x))


def doubles(*rows: list[float]) -> list[Tensor]:
    return [torch.tensor(row, dtype=torch.float64) for row in rows]


FIRST, SECOND = [1.5, -0.2, 0.3, 2.0], [0.5, 0.4, 0.3, -1.0]
TARGET, MARGIN = [1.0, 0.8, 0.5, 0.0], [0.0, 0.5, 0.7, 1.0]


def test_bradley_terry_equals_numpy_in_value_and_gradient() -> None:
    first, second, target, margin = doubles(FIRST, SECOND, TARGET, MARGIN)
    first.requires_grad_()
    loss = bradley_terry(first, second, target, margin_C=margin, centre_coef=0.01)
    a, b, t = np.array(FIRST), np.array(SECOND), np.array(TARGET)
    m = np.array(MARGIN) * (t != 0.5)
    d = a - b
    expected = -t * log_sigmoid(d - m) - (1 - t) * log_sigmoid(-d - m) + 0.01 * (a + b) ** 2
    assert loss.tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    loss.sum().backward()
    gradient = -t / (1 + np.exp(d - m)) + (1 - t) / (1 + np.exp(-d - m)) + 0.02 * (a + b)
    assert first.grad is not None
    assert first.grad.tolist() == pytest.approx(gradient.tolist(), abs=1e-12)


def test_a_tie_is_least_where_both_rewards_are_equal() -> None:
    zero, one, half = doubles([0.0], [1.0], [0.5])
    assert bradley_terry(zero, zero, half).item() == pytest.approx(math.log(2))
    assert bradley_terry(one, zero, half).item() > math.log(2)


def scores() -> PairScores:
    tokens = doubles([4.0, 2.0, 7.0, 3.0], [5.0, 6.0, 2.0, 3.0])
    return PairScores(*doubles(FIRST, SECOND), *tokens, torch.tensor(TARGET, dtype=torch.float64))


def numpy_dpo(name: str, beta: float, e: float = 0.0) -> np.ndarray:
    a, b, t = np.array(FIRST), np.array(SECOND), np.array(TARGET)
    d = a - b

    def plain(target: np.ndarray) -> np.ndarray:
        return -target * log_sigmoid(beta * d) - (1 - target) * log_sigmoid(-beta * d)

    if name == "sigmoid":
        return plain((1 - e) * t + e * (1 - t))
    mean = a / np.array([4.0, 2.0, 7.0, 3.0]) - b / np.array([5.0, 6.0, 2.0, 3.0])
    if name == "sigmoid_norm":
        return -t * log_sigmoid(beta * mean) - (1 - t) * log_sigmoid(-beta * mean)
    if name == "robust":
        return ((1 - e) * plain(t) - e * plain(1 - t)) / (1 - 2 * e)
    if name == "hinge":
        return t * np.maximum(0, 1 - beta * d) + (1 - t) * np.maximum(0, 1 + beta * d)
    return (mean - (2 * t - 1) / (2 * beta)) ** 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sigmoid", {}),
        ("sigmoid", {"label_smoothing": 0.2}),
        ("sigmoid_norm", {}),
        ("robust", {"label_smoothing": 0.2}),
        ("hinge", {}),
        ("ipo", {}),
    ],
)
def test_dpo_losses_equal_numpy(name: str, options: dict[str, float]) -> None:
    found = DPO_LOSSES[name](scores(), beta=0.3, **options)
    expected = numpy_dpo(name, 0.3, options.get("label_smoothing", 0.0))
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-12)


def test_dpo_losses_by_hand() -> None:
    zero, ln2 = torch.tensor([0.0]), torch.tensor([math.log(2)])
    one = PairScores(ln2, zero, torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([1.0]))
    # s(ln 2) = 2/3
    assert sigmoid(one, beta=1.0).item() == pytest.approx(math.log(1.5))
    assert sigmoid(one, beta=1.0, label_smoothing=0.5).item() == pytest.approx(
        0.5 * math.log(1.5) + 0.5 * math.log(3.0)
    )
    assert ipo(one, beta=1.0, average=False).item() == pytest.approx((math.log(2) - 0.5) ** 2)
    assert ipo(one, beta=1.0).item() == pytest.approx((math.log(2) / 2 - 0.5) ** 2)
    with pytest.raises(ValueError, match=r"must be in \[0, 0.5\)"):
        robust(one, beta=1.0, label_smoothing=0.5)


# ------------------------------------------------------------------------------------------------------- TRL


def trl_dpo(kind: str, logprobs: Tensor, ref: Tensor, mask: Tensor, *, beta: float, label_smoothing: float) -> Tensor:
    """TRL's own loss code on given token log-probabilities: rows chosen first, then rejected."""
    from trl import DPOTrainer

    outputs = MagicMock()
    outputs.log_probs = logprobs * mask
    outputs.entropy = outputs.mean_logits = torch.zeros_like(logprobs)
    outputs.is_top1 = torch.zeros_like(logprobs, dtype=torch.bool)
    trainer = MagicMock(
        loss_types=[kind],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=label_smoothing,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        aux_loss_enabled=False,
        use_weighting=False,
        accelerator=SimpleNamespace(device="cpu", gather_for_metrics=lambda value: value, gather=lambda value: value),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    pairs = len(logprobs) // 2
    ref_sums = (ref * mask).sum(1)
    padding = torch.zeros(len(mask), 1)
    inputs = {
        "input_ids": torch.zeros(len(mask), mask.shape[1] + 1, dtype=torch.long),
        "attention_mask": torch.ones(len(mask), mask.shape[1] + 1),
        "completion_mask": torch.cat([padding, mask], 1),
        "ref_chosen_logps": ref_sums[:pairs],
        "ref_rejected_logps": ref_sums[pairs:],
    }
    return DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)


@pytest.mark.parametrize(
    ("ours", "theirs", "smoothing"),
    [
        ("sigmoid", "sigmoid", 0.0),
        ("sigmoid_norm", "sigmoid_norm", 0.0),
        ("hinge", "hinge", 0.0),
        ("ipo", "ipo", 0.0),
        ("robust", "robust", 0.1),
    ],
)
def test_dpo_losses_equal_trl(ours: str, theirs: str, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [5, 2, 7, 3, 4, 6]  # three chosen, then three rejected
    mask = torch.zeros(6, 8)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    logprobs = -torch.rand(6, 8, generator=generator) * 3
    ref = -torch.rand(6, 8, generator=generator) * 3
    expected = trl_dpo(theirs, logprobs, ref, mask, beta=0.2, label_smoothing=smoothing)
    ratio = ((logprobs - ref) * mask).sum(1)
    tokens = mask.sum(1)
    options = {"label_smoothing": smoothing} if smoothing else {}
    seen = PairScores(ratio[:3], ratio[3:], tokens[:3], tokens[3:], torch.ones(3))
    assert DPO_LOSSES[ours](seen, beta=0.2, **options).mean().item() == pytest.approx(expected.item(), abs=1e-5)


def test_sft_term_equals_trl() -> None:
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    logprobs = -torch.arange(12.0).reshape(4, 3) / 7
    expected = trl_dpo("sft", logprobs, logprobs, mask, beta=0.1, label_smoothing=0.0)
    chosen = mask[:2].bool()
    assert -logprobs[:2][chosen].mean().item() == pytest.approx(expected.item(), abs=1e-5)
    pairs = [encoded_pair(0, [1, 2, 3], [4, 5]), encoded_pair(1, [6], [7, 8, 9])]
    batch = pair_batch(pairs)
    flat = torch.cat([logprobs[0, :3], logprobs[2, :2], logprobs[1, :1], logprobs[3, :3]])
    objective = dpo_objective(DpoSection(sft_coef=1.0), pairs=2, chosen_tokens=4)
    with_term = objective(fake_scores(flat), batch_with_ref(batch, flat)).loss
    without = dpo_objective(DpoSection(), pairs=2, chosen_tokens=4)(fake_scores(flat), batch_with_ref(batch, flat)).loss
    assert (with_term - without).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("margin", [None, [0.0, 0.4, 1.0]])
def test_reward_loss_equals_trl(margin: list[float] | None) -> None:
    from trl import RewardTrainer

    chosen, rejected = torch.tensor([1.0, -0.5, 0.3]), torch.tensor([0.2, 0.4, 0.3])
    trainer = MagicMock(
        model=SimpleNamespace(training=False),
        args=SimpleNamespace(center_rewards_coefficient=0.01),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
    )
    trainer.accelerator.gather_for_metrics = lambda value: value
    inputs = {} if margin is None else {"margin": torch.tensor(margin)}
    logits = torch.cat([chosen, rejected])[:, None]
    expected = RewardTrainer.compute_loss(trainer, lambda **_: SimpleNamespace(logits=logits), inputs)
    ours = bradley_terry(
        chosen, rejected, torch.ones(3), margin_C=torch.tensor(margin) if margin else 0.0, centre_coef=0.01
    ).mean()
    assert ours.item() == pytest.approx(expected.item(), abs=1e-5)


# --------------------------------------------------------------------------------- how rows travel changes nothing


def stage(method: str, **extra: object) -> StageConfig:
    return resolve(
        {
            "method": method,
            "model": {"from_scratch": SHAPE, "dtype": "float32"},
            "preferences": {"train": ["pairs.jsonl"]},
            **extra,
        }
    ).stages[0]


def encoded_pair(number: int, first: list[int], second: list[int], prompt: list[int] | None = None) -> EncodedPair:
    def side(ids: list[int]) -> Encoded:
        return Encoded(
            id=str(number),
            prompt_ids=tuple(prompt or [1, 2]),
            completion_ids=tuple(ids),
            loss_mask=(True,) * len(ids),
        )

    pair = Pair(id=str(number), prompt="", first="", second="", target=0.5 if number == 2 else 1.0, margin=0.1 * number)
    return EncodedPair(pair, side(first), side(second), number)


def random_pairs(count: int) -> list[EncodedPair]:
    generator = torch.Generator().manual_seed(3)

    def ids(most: int) -> list[int]:
        length = int(torch.randint(1, most, (1,), generator=generator))
        return torch.randint(0, 256, (length,), generator=generator).tolist()

    return [encoded_pair(number, ids(30), ids(30), ids(12)) for number in range(count)]


def fake_scores(logprobs_N: Tensor):
    from reasoner.algorithm.objective import TokenScores

    return TokenScores(logprobs_N, torch.zeros_like(logprobs_N))


def batch_with_ref(batch, ref_N: Tensor):
    from dataclasses import replace

    return replace(batch, ref_logprobs_N=ref_N)


def gradient(policy: Policy, batch, objective, *, micro_tokens: int, layout) -> tuple[float, Tensor]:
    policy.scorer.zero_grad()
    total = 0.0
    for micro in map(batch.select, batch.micro_rows(micro_tokens, unit=2)):
        terms = objective(policy.scorer(layout(micro), 1.0), micro)
        terms.loss.backward()
        total += terms.loss.item()
    grads = [p.grad.flatten() for p in policy.scorer.parameters() if p.grad is not None]
    return total, torch.cat(grads)


def variants(policy: Policy, batch, shuffled, objective) -> None:
    whole = gradient(policy, batch, objective, micro_tokens=100_000, layout=padded)
    assert whole[1].abs().max() > 1e-6
    bare = partial(unpadded, ends=policy.reads_last_token)
    for name, found in {
        "one pair at a time": gradient(policy, batch, objective, micro_tokens=1, layout=padded),
        "packed": gradient(policy, batch, objective, micro_tokens=100_000, layout=lambda m: packed(m, 64)),
        "other order": gradient(policy, shuffled, objective, micro_tokens=90, layout=padded),
        "unpadded": gradient(policy, shuffled, objective, micro_tokens=90, layout=bare),
        "unpadded, all at once": gradient(policy, batch, objective, micro_tokens=100_000, layout=bare),
    }.items():
        assert found[0] == pytest.approx(whole[0], abs=1e-9), name
        assert (found[1] - whole[1]).abs().max().item() < 1e-9, name


def test_reward_gradient_does_not_change_with_micro_batches_packing_padding_or_order() -> None:
    policy = RewardPolicy(stage("reward_model", reward_model={"heads": 3}), accelerator=Accelerator(cpu=True))
    in_double(policy.scorer)
    pairs = random_pairs(6)
    objective = bradley_terry_objective(pairs=6, weights_CK=bootstrap(6, 3, seed=0), centre_coef=0.01)
    shuffled = [pairs[place] for place in (4, 0, 5, 2, 1, 3)]
    variants(policy, pair_batch(pairs), pair_batch(shuffled), objective)


@pytest.mark.parametrize("loss", list(DPO_LOSSES))
def test_dpo_gradient_does_not_change_with_micro_batches_packing_padding_or_order(loss: str) -> None:
    policy = PairPolicy(stage("dpo"), accelerator=Accelerator(cpu=True))
    in_double(policy.scorer)
    pairs = random_pairs(6)
    batch = pair_batch(pairs)
    order = [4, 0, 5, 2, 1, 3]
    ref_N = -5.5 + 0.3 * torch.randn(len(batch.row_N), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = batch_with_ref(batch, ref_N)
    shuffled = batch.select([row for place in order for row in (2 * place, 2 * place + 1)])
    section = DpoSection(loss=loss, sft_coef=0.2)
    chosen = int((batch.row_N % 2 == 0).sum())
    variants(policy, batch, shuffled, dpo_objective(section, pairs=6, chosen_tokens=chosen))


def test_pair_scores_are_sums_over_completions() -> None:
    batch = pair_batch([encoded_pair(0, [1, 2], [3]), encoded_pair(1, [4], [5, 6])])
    logprobs = torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0])
    seen = pair_scores(logprobs, batch_with_ref(batch, torch.full((6,), -1.0)))
    assert seen.first_C.tolist() == [-1.0, -3.0]
    assert seen.second_C.tolist() == [-2.0, -9.0]
    assert seen.first_tokens_C.tolist() == [2.0, 1.0]


def test_bootstrap_draws_one_on_average_and_the_same_again() -> None:
    weights = bootstrap(4000, 2, seed=1)
    assert weights.mean().item() == pytest.approx(1.0, abs=0.05)
    assert weights.var().item() == pytest.approx(1.0, abs=0.1)
    assert torch.equal(weights, bootstrap(4000, 2, seed=1))
    assert (weights[:, 0] != weights[:, 1]).float().mean() > 0.4
    assert bootstrap(3, 1, seed=1).tolist() == [[1.0], [1.0], [1.0]]
