"""The whole loss of a batch, its metrics and its options, worked by hand on four tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.kl import kl_k1
from reasoner.algorithm.loss import (
    POLICY_LOSSES,
    LossTerms,
    TokenLoss,
    explained_variance,
    merge_metrics,
    policy_loss,
    reinforce,
    token_means,
    value_loss,
)

LN2 = math.log(2)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


NOW = double(-1.0, -2.0, 9.0, -0.5)
OLD = double(-1.0 - LN2, -2.0, 3.0, -0.5 + LN2)
ENTROPY = double(1.0, 2.0, 50.0, 3.0)


def batch() -> Batch:
    """Ratios 2, 1 and 1/2 to the old policy and to the engine; the third token is masked, but its weight is not 0."""
    return Batch(
        input_ids=(torch.arange(4), torch.arange(2)),
        prompt_lengths_B=torch.tensor([1, 1]),
        row_N=torch.tensor([0, 0, 0, 1]),
        loss_mask_N=torch.tensor([True, True, False, True]),
        reward_B=double(1.0, 0.0),
        group_B=torch.tensor([0, 0]),
        weights_N=double(0.5, 0.25, 7.0, 0.125),
        rollout_logprobs_N=OLD - double(LN2, 0.0, 77.0, -LN2),
        advantages_N=double(1.0, -2.0, 40.0, -0.5),
        old_logprobs_N=OLD,
    )


def with_reference() -> Batch:
    return replace(batch(), ref_logprobs_N=double(-1.5, -2.0, 1.0, -1.0))


def terms(made: Batch | None = None, **options: object) -> LossTerms:
    return policy_loss(NOW, ENTROPY, made or batch(), **options)  # pyright: ignore[reportArgumentType]


def test_loss_and_metrics_of_a_batch_by_hand() -> None:
    found = terms()
    # weight x min(ratio, 2) x surrogate: the first is clipped at 1.2, the last at 0.8
    assert found.loss.item() == pytest.approx(0.5 * 2 * -1.2 + 0.25 * 1 * 2.0 + 0.125 * 0.5 * 0.4)
    assert {name: value.item() for name, value in found.metrics.items()} == pytest.approx(
        {
            "policy/ratio": 3.5,
            "policy/clip_fraction": 2,
            "policy/clip_fraction_low": 1,
            "policy/clip_fraction_high": 1,
            "policy/approx_kl": (1 - LN2) + 0 + (LN2 - 0.5),
            "policy/entropy": 6.0,
            "gap/logprob_abs": 2 * LN2,
            "gap/ratio": 3.5,
            "gap/kl": (1 - LN2) + 0 + (LN2 - 0.5),
            "gap/importance": 3.5,
            "gap/left_out": 0,
            "gap/logprob_max": LN2,
            "tokens": 3,
        }
    )


def test_kl_and_entropy_are_added_with_their_coefficients() -> None:
    plain = terms(with_reference()).loss
    assert plain.item() == terms().loss.item(), "nothing is added by default"
    with_kl = terms(with_reference(), kl="k1", kl_coef=0.5)
    assert (with_kl.loss - plain).item() == pytest.approx(0.5 * (0.5 * 0.5 + 0.125 * 0.5))
    assert with_kl.metrics["policy/kl_ref"].item() == pytest.approx(0.5 + 0.5)
    with_entropy = terms(entropy_coef=0.1)
    assert (with_entropy.loss - plain).item() == pytest.approx(-0.1 * (0.5 * 1 + 0.25 * 2 + 0.125 * 3))
    with pytest.raises(ValueError, match="ref_logprobs_N must be set if kl_coef > 0"):
        terms(kl_coef=0.5)
    with pytest.raises(ValueError, match="advantages_N must be set before the loss"):
        terms(replace(batch(), advantages_N=None))


def test_an_entropy_without_a_gradient_is_refused_only_where_it_would_count() -> None:
    now_N = NOW.clone().requires_grad_()
    assert policy_loss(now_N, ENTROPY, batch()).loss.requires_grad
    with pytest.raises(ValueError, match="entropy_N must have a gradient"):
        policy_loss(now_N, ENTROPY, batch(), entropy_coef=0.1)
    policy_loss(now_N, ENTROPY.clone().requires_grad_(), batch(), entropy_coef=0.1)


def test_options_reach_the_loss_and_the_correction() -> None:
    wide = terms(loss_options={"clip_high": 3.0})
    assert wide.loss.item() == pytest.approx(0.5 * 2 * -2.0 + 0.25 * 2.0 + 0.125 * 0.5 * 0.4)
    narrow = terms(importance="masked", importance_options={"low": 0.6, "high": 1.5})
    assert narrow.loss.item() == pytest.approx(0.25 * 2.0)
    assert narrow.metrics["gap/left_out"].item() == 2
    with pytest.raises(ValueError, match="no option 'clip'"):
        terms(loss_options={"clip": 0.1})
    with pytest.raises(ValueError, match="no option 'caps'"):
        terms(importance_options={"caps": 0.1})


def test_without_old_logprobs_the_trainers_own_stand_for_them() -> None:
    now_N = NOW.clone().requires_grad_()
    made = replace(batch(), old_logprobs_N=None)
    found = policy_loss(now_N, ENTROPY, made, importance="none")
    assert found.metrics["policy/ratio"].item() == pytest.approx(3.0)
    assert found.metrics["policy/approx_kl"].item() == 0
    found.loss.backward()
    assert now_N.grad is not None
    assert now_N.grad.tolist() == pytest.approx([-0.5, 0.5, 0.0, 0.0625])


SEEN: dict[str, list[float]] = {}


def recorded_loss(now_N: Tensor, old_N: Tensor, advantages_N: Tensor, row_N: Tensor, mask_N: Tensor) -> TokenLoss:
    for name, value_N in (("policy", now_N), ("old", old_N), ("advantage", advantages_N)):
        SEEN[name] = value_N[~mask_N].tolist()
    return reinforce(now_N, old_N, advantages_N, row_N, mask_N)


def recorded_weight(log_gap_N: Tensor, row_N: Tensor, mask_N: Tensor) -> Tensor:
    SEEN["gap"] = log_gap_N[~mask_N].tolist()
    return torch.ones_like(log_gap_N)


def recorded_kl(now_N: Tensor, ref_N: Tensor) -> Tensor:
    SEEN["reference"] = ref_N[2:3].tolist()
    return kl_k1(now_N, ref_N)


def test_a_loss_of_ones_own_is_given_zeros_for_a_masked_token() -> None:
    SEEN.clear()
    here = __name__
    terms(
        with_reference(),
        loss=f"{here}:recorded_loss",
        importance=f"{here}:recorded_weight",
        kl=f"{here}:recorded_kl",
        kl_coef=0.1,
    )
    assert {key: [0.0] for key in ("policy", "old", "advantage", "gap", "reference")} == SEEN


def test_a_batch_without_tokens_has_no_gap() -> None:
    none = batch().select([])
    found = policy_loss(torch.zeros(0), torch.zeros(0), none)
    assert (found.loss.item(), found.metrics["gap/logprob_max"].item(), found.metrics["tokens"].item()) == (0, 0, 0)


# ------------------------------------------------------------------------------------------------- one loss a token


def one(name: str, ratio: float, advantage: float, **options: object) -> dict[str, float]:
    """Loss and metrics of a token whose log-probability is -1."""
    now_N, advantage_N = double(-1.0), double(advantage)
    old_N = now_N - math.log(ratio)
    found = POLICY_LOSSES[name](now_N, old_N, advantage_N, torch.tensor([0]), torch.tensor([True]), **options)
    return {"loss": found.loss_N.item()} | {key: value.item() for key, value in found.metrics.items()}


@pytest.mark.parametrize(
    ("ratio", "advantage", "low", "high"),
    [
        (0.5, -0.5, 1, 0),
        (0.5, 0.5, 0, 0),
        (2.0, 1.0, 0, 1),
        (2.0, -0.5, 0, 0),
        (1.0, 0.5, 0, 0),
        (1.0, -0.5, 0, 0),
        (2.0, 0.0, 0, 0),
        (0.5, 0.0, 0, 0),
    ],
)
def test_what_is_clipped_is_counted_on_its_side(ratio: float, advantage: float, low: int, high: int) -> None:
    for name in ("clip", "gspo", "gspo_token"):
        found = one(name, ratio, advantage)
        sides = found["policy/clip_fraction_low"], found["policy/clip_fraction_high"]
        assert (*sides, found["policy/clip_fraction"]) == (low, high, low + high)
        assert found["policy/ratio"] == pytest.approx(ratio)


def test_a_ratio_at_the_bound_is_not_clipped() -> None:
    assert one("clip", 0.5, -1.0, clip_low=0.5)["policy/clip_fraction"] == 0
    assert one("clip", 2.0, 1.0, clip_high=1.0)["policy/clip_fraction"] == 0
    assert one("cispo", 2.0, 1.0, ratio_max=2.0)["policy/clip_fraction"] == 0


@pytest.mark.parametrize(
    ("name", "ratio", "advantage", "loss"),
    [
        ("clip", 2.0, 1.0, -1.2),
        ("clip", 0.5, -1.0, 0.8),
        ("gspo", 2.0, 1.0, -1.0004),
        ("gspo", 0.5, -1.0, 0.9997),
        ("gspo_token", 2.0, 1.0, -1.0004),
        ("gspo_token", 0.5, -1.0, 0.9997),
        ("cispo", 8.0, 1.0, 5.0),
        ("reinforce", 8.0, 2.0, 2.0),
    ],
)
def test_defaults_are_those_of_the_papers(name: str, ratio: float, advantage: float, loss: float) -> None:
    assert one(name, ratio, advantage)["loss"] == pytest.approx(loss, abs=1e-12)


def test_metrics_of_the_losses_without_a_clip() -> None:
    bounded, free = one("cispo", 8.0, 1.0), one("cispo", 2.0, 1.0)
    assert (bounded["policy/ratio"], bounded["policy/clip_fraction"]) == (pytest.approx(8.0), 1)
    assert (free["policy/ratio"], free["policy/clip_fraction"]) == (pytest.approx(2.0), 0)
    assert one("reinforce", 2.0, 1.0)["policy/ratio"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    "options",
    [
        {"clip_low": -0.5},
        {"clip_high": -0.5},
        {"dual_clip": 1.2},  # 1 + clip_high itself
        {"dual_clip": 0.9},
        {"clip_high": -0.5, "dual_clip": 3.0},
    ],
)
def test_bounds_that_no_clip_has_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="clip_low and clip_high must be >= 0 and dual_clip > 1"):
        one("clip", 1.0, 1.0, **options)


def test_the_narrowest_bounds_are_taken() -> None:
    assert one("clip", 2.0, 1.0, clip_low=0.0, clip_high=0.0)["loss"] == -1.0
    assert one("clip", 2.0, -1.0, clip_high=0.0, dual_clip=1.25)["loss"] == 1.25
    assert one("cispo", 2.0, 1.0, ratio_max=0.5)["loss"] == 0.5
    for most in (0.0, -0.5, math.nan):
        with pytest.raises(ValueError, match="ratio_max must be above 0"):
            one("cispo", 1.0, 1.0, ratio_max=most)


# ------------------------------------------------------------------------------------------------------- metrics


def test_micro_batches_are_added_and_maxima_kept() -> None:
    sums: dict[str, float] = {}
    for part in ({"a": 3.0, "gap_max": 2.0, "tokens": 2}, {"a": 3.0, "gap_max": 1.0, "tokens": torch.tensor(1)}):
        merge_metrics(sums, part)
    assert sums == {"a": 6.0, "gap_max": 2.0, "tokens": 3.0}
    assert token_means(sums) == {"a": 2.0, "gap_max": 2.0}
    negative: dict[str, float] = {}
    merge_metrics(negative, {"gap_max": -4.0})
    assert negative == {"gap_max": -4.0}


@pytest.mark.parametrize(("tokens", "mean"), [({"tokens": 0.0}, 6.0), ({}, 6.0), ({"tokens": 1.0}, 6.0)])
def test_means_over_no_token_are_the_sums(tokens: dict[str, float], mean: float) -> None:
    assert token_means({"a": 6.0, **tokens}) == {"a": mean}


# ---------------------------------------------------------------------------------------------------- value head


def valued() -> Batch:
    made = batch().select([0])
    return replace(
        made,
        weights_N=double(0.5, 0.25, 7.0),
        values_N=double(0.0, 0.5, 30.0),
        returns_N=double(1.0, -2.0, 40.0),
    )


def test_value_loss_and_metrics_by_hand() -> None:
    now_N = double(0.5, 0.625, 50.0)
    found = value_loss(now_N, valued())
    # clipped to 0.2: (0.2 - 1)^2 = 0.64 beats 0.25; the second value has moved by less
    far = (0.625 + 2.0) ** 2
    assert found.loss.item() == pytest.approx(0.5 * 0.5 * 0.64 + 0.25 * 0.5 * far)
    assert {name: value.item() for name, value in found.metrics.items()} == pytest.approx(
        {
            "value/error_squared": 0.25 + far,
            "value/clip_fraction": 1,
            "value/mean": 1.125,
            "value/return": -1.0,
            "value/return_squared": 5.0,
            "value/error": -0.5 + 2.625,
            "tokens": 2,
        }
    )
    assert value_loss(now_N, valued(), clip_range=None).loss.item() == pytest.approx(0.25 * 0.25 + 0.125 * far)


@pytest.mark.parametrize("missing", ["returns_N", "values_N"])
def test_a_value_loss_needs_returns_and_old_values(missing: str) -> None:
    with pytest.raises(ValueError, match="must be set for the value loss"):
        value_loss(torch.zeros(3), replace(valued(), **{missing: None}))


def values(returns: float, returns_squared: float, error: float, error_squared: float) -> dict[str, float]:
    return {
        "value/return": returns,
        "value/return_squared": returns_squared,
        "value/error": error,
        "value/error_squared": error_squared,
    }


def test_explained_variance_by_hand() -> None:
    # Var(R) = 2.25 - 0.25 = 2, Var(R - V) = 0.29 - 0.04 = 0.25
    assert explained_variance(values(0.5, 2.25, 0.2, 0.29)) == pytest.approx(1 - 0.25 / 2)
    # Var(R) = 0.5 - 0.25, Var(R - V) = 0.5
    assert explained_variance(values(0.5, 0.5, 0.0, 0.5)) == pytest.approx(-1.0)


VARIANCE: dict[str, Callable[[], dict[str, float]]] = {
    "none": lambda: values(0.5, 0.25, 0.0, 0.1),
    "the least that counts": lambda: values(0.0, 1e-12, 0.0, 0.1),
}


@pytest.mark.parametrize("name", list(VARIANCE))
def test_returns_that_do_not_vary_explain_nothing(name: str) -> None:
    assert math.isnan(explained_variance(VARIANCE[name]()))
