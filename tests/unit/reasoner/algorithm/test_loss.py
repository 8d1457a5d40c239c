"""Each loss, KL estimate and importance correction against a slow reference written from its paper in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from reasoner.algorithm.importance import IMPORTANCE
from reasoner.algorithm.kl import KL, adapted_kl_coef
from reasoner.algorithm.loss import POLICY_LOSSES, cispo, clip, gspo, reinforce, value_loss
from tests.unit.reasoner.policy.test_policy import config_with, make_batch

Row = list[float]


class Rows:
    """Three rows of 4, 2 and 5 tokens; the second token of the last row is masked."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.row_N = torch.repeat_interleave(torch.arange(3), torch.tensor([4, 2, 5]))
        self.mask_N = torch.ones(11, dtype=torch.bool)
        self.mask_N[7] = False
        self.old_N = -2 + torch.randn(11, generator=generator, dtype=torch.float64)
        self.now_N = self.old_N + 0.5 * torch.randn(11, generator=generator, dtype=torch.float64)
        self.advantages_N = torch.tensor([1.0, -1.5, 0.5], dtype=torch.float64)[self.row_N]

    def loss(self, name: str, **options: object) -> Tensor:
        function = POLICY_LOSSES[name]
        return function(self.now_N, self.old_N, self.advantages_N, self.row_N, self.mask_N, **options).loss_N

    def by_row(self) -> list[list[tuple[float, float, float, bool]]]:
        found: list[list[tuple[float, float, float, bool]]] = [[], [], []]
        for n, row in enumerate(self.row_N.tolist()):
            values = self.now_N[n].item(), self.old_N[n].item(), self.advantages_N[n].item(), bool(self.mask_N[n])
            found[row].append(values)
        return found


def slow_clip(low: float, high: float, dual: float | None = None) -> Callable[[Rows], Row]:
    def token(now: float, old: float, advantage: float) -> float:
        ratio = math.exp(now - old)
        objective = min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
        if dual is not None and advantage < 0:
            objective = max(objective, dual * advantage)
        return -objective

    return lambda rows: [token(now, old, a) for row in rows.by_row() for now, old, a, _ in row]


def slow_gspo(low: float, high: float) -> Callable[[Rows], Row]:
    def loss(rows: Rows) -> Row:
        out: Row = []
        for row in rows.by_row():
            kept = [now - old for now, old, _, mask in row if mask]
            ratio = math.exp(sum(kept) / len(kept))
            for _, _, a, _ in row:
                out.append(-min(ratio * a, min(max(ratio, 1 - low), 1 + high) * a))
        return out

    return loss


def slow_cispo(most: float) -> Callable[[Rows], Row]:
    return lambda rows: [-min(math.exp(n - o), most) * a * n for row in rows.by_row() for n, o, a, _ in row]


def slow_reinforce(rows: Rows) -> Row:
    return [-a * now for row in rows.by_row() for now, _, a, _ in row]


@pytest.mark.parametrize(
    ("name", "options", "slow"),
    [
        ("clip", {}, slow_clip(0.2, 0.2)),
        ("clip", {"clip_low": 0.1, "clip_high": 0.28}, slow_clip(0.1, 0.28)),
        ("clip", {"dual_clip": 1.5}, slow_clip(0.2, 0.2, 1.5)),
        ("gspo", {"clip_low": 0.05, "clip_high": 0.1}, slow_gspo(0.05, 0.1)),
        ("gspo_token", {"clip_low": 0.05, "clip_high": 0.1}, slow_gspo(0.05, 0.1)),
        ("cispo", {"ratio_max": 1.2}, slow_cispo(1.2)),
        ("reinforce", {}, slow_reinforce),
    ],
)
def test_policy_loss_equals_its_slow_reference(
    name: str, options: dict[str, float], slow: Callable[[Rows], Row]
) -> None:
    rows = Rows()
    assert rows.loss(name, **options).tolist() == pytest.approx(slow(rows), abs=1e-12)


def one_token(now: float, old: float, advantage: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    values = [torch.tensor([value], dtype=torch.float64) for value in (now, old, advantage)]
    values[0].requires_grad_()
    return values[0], values[1], values[2], torch.tensor([0]), torch.tensor([True])


LN2 = math.log(2)


@pytest.mark.parametrize(
    ("loss", "now", "advantage", "value", "gradient"),
    [
        # the ratio is 2 (now = ln 2 above old = -1) or 1/2: by hand
        (clip, -1 + LN2, 1.0, -1.2, 0.0),
        (clip, -1 + LN2, -1.0, 2.0, 2.0),
        (clip, -1 - LN2, 1.0, -0.5, -0.5),
        (clip, -1 - LN2, -1.0, 0.8, 0.0),
        (clip, -1.0, 3.0, -3.0, -3.0),
        (gspo, -1.0, 3.0, -3.0, -3.0),
        (cispo, -1 + LN2, 1.0, 2 * (1 - LN2), -2.0),
        (reinforce, -1 + LN2, 3.0, 3 * (1 - LN2), -3.0),
    ],
)
def test_losses_and_gradients_by_hand(
    loss: Callable[..., object], now: float, advantage: float, value: float, gradient: float
) -> None:
    arguments = one_token(now, -1.0, advantage)
    found = loss(*arguments).loss_N.sum()  # pyright: ignore
    found.backward()
    assert found.item() == pytest.approx(value, abs=1e-12)
    assert arguments[0].grad is not None
    assert arguments[0].grad.item() == pytest.approx(gradient, abs=1e-12)


def test_zero_advantage_never_makes_a_nan() -> None:
    arguments = one_token(-1.0 + 2000, -1.0, 0.0)
    loss = clip(*arguments).loss_N.sum()
    loss.backward()
    assert loss.item() == 0
    assert arguments[0].grad is not None
    assert not arguments[0].grad.isnan().any()


def test_gspo_token_has_the_gradient_of_gspo_where_a_row_has_one_advantage() -> None:
    rows = Rows()
    gradients = []
    for name in ("gspo", "gspo_token"):
        rows.now_N = rows.now_N.detach().requires_grad_()
        loss_N = rows.loss(name, clip_low=0.9, clip_high=9.0)
        torch.where(rows.mask_N, loss_N, 0.0).sum().backward()
        gradients.append(rows.now_N.grad)
    kept = rows.mask_N
    assert gradients[0][kept].tolist() == pytest.approx(gradients[1][kept].tolist(), abs=1e-12)


def test_kl_estimates_by_hand_and_in_expectation() -> None:
    now, ref = torch.tensor([-1.0]), torch.tensor([-1.5])
    expected = {"k1": 0.5, "k2": 0.125, "k3": math.exp(-0.5) - 1 + 0.5}
    for name, value in expected.items():
        assert KL[name](now, ref).item() == pytest.approx(value, abs=1e-6)
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.25, 0.25])
    exact = (p * (p / q).log()).sum().item()
    for name in ("k1", "k3"):
        assert (p * KL[name](p.log(), q.log())).sum().item() == pytest.approx(exact, abs=1e-6)


def test_expected_gradients_of_kl_as_a_loss() -> None:
    """The table in kl.py: k1 has no gradient, k2 that of KL(policy || ref), k3 that of KL(ref || policy)."""
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    ref = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log()

    def expected(name: str) -> list[float]:
        leaf = logits.clone().requires_grad_()
        policy = leaf.log_softmax(-1)
        (policy.detach().exp() * KL[name](policy, ref)).sum().backward()
        assert leaf.grad is not None
        return leaf.grad.tolist()

    def exact(forward: bool) -> list[float]:
        leaf = logits.clone().requires_grad_()
        policy = leaf.log_softmax(-1)
        kl = (policy.exp() * (policy - ref)).sum() if forward else (ref.exp() * (ref - policy)).sum()
        kl.backward()
        assert leaf.grad is not None
        return leaf.grad.tolist()

    assert expected("k1") == pytest.approx([0, 0, 0], abs=1e-12)
    assert expected("k2") == pytest.approx(exact(True), abs=1e-12)
    assert expected("k3") == pytest.approx(exact(False), abs=1e-12)


def test_importance_corrections_by_hand() -> None:
    gap = torch.tensor([LN2, 3 * LN2, 0.0, -2 * LN2, LN2], dtype=torch.float64)
    rows, mask = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([True, True, True, True, False])
    expected = {
        "none": [1, 1, 1, 1, 1],
        "truncated": [2, 2, 1, 0.25, 2],
        "truncated_sequence": [2, 2, 0.25, 0.25, 0.25],
        "masked": [2, 0, 1, 0, 2],
        "masked_sequence": [0, 0, 0.25, 0.25, 0.25],
    }
    assert set(expected) == set(IMPORTANCE)
    for name, values in expected.items():
        assert IMPORTANCE[name](gap, rows, mask).tolist() == pytest.approx(values), name


def test_the_range_of_kept_ratios_has_its_ends_and_sound_options() -> None:
    def kept(ratio: float, **options: float) -> bool:
        gap = torch.tensor([ratio]).log()
        weight = IMPORTANCE["masked"](gap, torch.tensor([0]), torch.tensor([True]), **options)
        assert weight.item() in (0.0, pytest.approx(ratio))
        return weight.item() > 0

    assert [kept(ratio) for ratio in (0.49, 0.51, 4.99, 5.01)] == [False, True, True, False]
    assert kept(1.0, low=1.0)
    assert kept(1.0, high=1.0)
    assert kept(0.01, low=0.0)
    for low, high in ((-0.1, 5.0), (2.0, 2.0), (3.0, 2.0)):
        with pytest.raises(ValueError, match=r"0 <= low < high; got"):
            kept(1.0, low=low, high=high)


@pytest.mark.parametrize("name", ["truncated", "truncated_sequence", "masked_sequence"])
def test_a_cap_is_any_number_above_0(name: str) -> None:
    gap, rows, mask = torch.tensor([-2.0]), torch.tensor([0]), torch.tensor([True])
    assert IMPORTANCE[name](gap, rows, mask, cap=0.5).item() == pytest.approx(math.exp(-2.0))
    assert IMPORTANCE[name](torch.zeros(1), rows, mask, cap=1.0).item() == 1.0, "the cap itself is within"
    for cap in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="cap must be above 0"):
            IMPORTANCE[name](gap, rows, mask, cap=cap)


def test_a_masked_token_takes_part_in_nothing() -> None:
    from dataclasses import replace

    from reasoner.algorithm.loss import policy_loss

    config = config_with()
    batch = make_batch(config)
    mask = batch.loss_mask_N
    poison = torch.where(mask, 0.0, float("nan"))
    assert batch.advantages_N is not None
    assert batch.ref_logprobs_N is not None
    poisoned = replace(batch, advantages_N=batch.advantages_N + poison, ref_logprobs_N=batch.ref_logprobs_N + poison)
    logprobs = batch.rollout_logprobs_N.clone().requires_grad_()
    terms = policy_loss(logprobs + poison, poison.clone(), poisoned, kl_coef=0.1)
    terms.loss.backward()
    assert terms.loss.isfinite()
    assert logprobs.grad is not None
    assert (logprobs.grad[~mask] == 0).all()
    assert logprobs.grad.isfinite().all()


def test_value_loss_by_hand() -> None:
    from dataclasses import replace

    batch = make_batch(config_with(), rows=1)
    count = len(batch.row_N)
    batch = replace(
        batch,
        loss_mask_N=torch.ones(count, dtype=torch.bool),
        weights_N=torch.full((count,), 1 / count),
        values_N=torch.zeros(count),
        returns_N=torch.ones(count),
    )
    now = torch.full((count,), 0.5)
    # clipped to 0.2: (0.2 - 1)^2 = 0.64 beats (0.5 - 1)^2 = 0.25
    assert value_loss(now, batch, clip_range=0.2).loss.item() == pytest.approx(0.32)
    assert value_loss(now, batch, clip_range=None).loss.item() == pytest.approx(0.125)


def test_adaptive_kl_moves_towards_its_target() -> None:
    assert adapted_kl_coef(0.1, kl=12, target=6, rows=100, horizon=1000) == pytest.approx(0.102)
    assert adapted_kl_coef(0.1, kl=3, target=6, rows=100, horizon=1000) == pytest.approx(0.098)
    with pytest.raises(ValueError, match="must be > 0"):
        adapted_kl_coef(0.0, kl=1, target=1, rows=1, horizon=1)
    with pytest.raises(ValueError, match="target"):
        adapted_kl_coef(0.1, kl=1, target=0.0, rows=1, horizon=1)
    assert adapted_kl_coef(0.1, kl=0.55, target=0.5, rows=100, horizon=1000) == pytest.approx(0.101)
