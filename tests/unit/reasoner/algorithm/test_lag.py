"""Corrections for a batch that older weights sampled, on a policy so small that every completion can be enumerated."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.loss import policy_loss
from reasoner.algorithm.objective import loss_needs
from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.monitoring.staleness import effective_sample

WORDS = 3


def logits(length: int, seed: int) -> Tensor:
    """[positions, previous word, word] float64."""
    return torch.randn(length, WORDS, WORDS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def token_logprobs(table: Tensor, completions: list[tuple[int, ...]]) -> Tensor:
    """[N] log-probabilities of all completions' tokens."""
    logs = torch.log_softmax(table, -1)
    return torch.stack([logs[at, (0, *words)[at], word] for words in completions for at, word in enumerate(words)])


def gradients(length: int, **options: object) -> tuple[Tensor, Tensor]:
    """(of the expected reward under the policy itself, expected one of the loss on the older policy's samples)."""
    completions = [*itertools.product(range(WORDS), repeat=length)]
    now, older = logits(length, 1).requires_grad_(), logits(length, 1) + 0.5 * logits(length, 2)
    rewards = torch.randn(len(completions), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    scored, sampled = token_logprobs(now, completions), token_logprobs(older, completions)
    chance = sampled.reshape(-1, length).sum(1).exp()
    assert chance.sum().item() == pytest.approx(1.0)
    expected = (scored.reshape(-1, length).sum(1).exp() * rewards).sum()
    exact = torch.autograd.grad(expected, now, retain_graph=True)[0]
    row_N = torch.arange(len(completions)).repeat_interleave(length)
    batch = Batch(
        input_ids=tuple(torch.zeros(1 + length, dtype=torch.long) for _ in completions),
        prompt_lengths_B=torch.ones(len(completions), dtype=torch.long),
        row_N=row_N,
        loss_mask_N=torch.ones(len(row_N), dtype=torch.bool),
        reward_B=rewards,
        group_B=torch.zeros(len(completions), dtype=torch.long),
        weights_N=chance[row_N],  # the expectation over samples of the older policy
        rollout_logprobs_N=sampled,
        advantages_N=rewards[row_N],
    )
    swapped = options.pop("swapped", False)
    if swapped:
        batch = replace(batch, rollout_logprobs_N=scored.detach(), old_logprobs_N=sampled)
    entropy = torch.zeros_like(scored)
    loss = policy_loss(scored, entropy, batch, **options).loss  # pyright: ignore[reportArgumentType]
    return exact, -torch.autograd.grad(loss, now)[0]


def bias(length: int, **options: object) -> float:
    exact, found = gradients(length, **options)
    return float((found - exact).norm() / exact.norm())


WHOLE = {"importance": "truncated_sequence", "importance_options": {"cap": 1e9}}
TOKEN = {"importance": "truncated", "importance_options": {"cap": 1e9}}


@pytest.mark.parametrize("length", [1, 2, 3])
def test_whole_ratios_give_the_gradient_of_the_present_policy(length: int) -> None:
    assert bias(length, loss="reinforce", **WHOLE) < 1e-12
    assert bias(length, loss="clip", **WHOLE) < 1e-12


def test_ratios_of_tokens_give_it_for_one_token_alone() -> None:
    assert bias(1, loss="reinforce", **TOKEN) < 1e-12
    assert bias(1, proximal="sampler", loss="reinforce") > 0.01  # no ratio at all
    assert bias(3, loss="reinforce", **TOKEN) > 0.01


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"importance": "none"}, id="anchored to a policy that never sampled"),
        pytest.param({**WHOLE, "swapped": True}, id="ratio upside down"),
        pytest.param(
            {"importance": "masked", "importance_options": {"low": 0.9, "high": 1.1}}, id="far tokens left out"
        ),
    ],
)
@pytest.mark.parametrize("length", [1, 3])
def test_wrong_ratios_do_not(length: int, wrong: dict[str, object]) -> None:
    assert bias(length, loss="reinforce", **wrong) > 0.01


def test_the_ratio_against_the_sampler_gives_it_for_one_token_without_a_clip() -> None:
    low, high = {"clip_low": 1.0, "clip_high": 1e9}, {"clip_low": 0.2, "clip_high": 0.2}
    assert bias(1, proximal="sampler", loss="clip", loss_options=low) < 1e-12
    assert bias(1, proximal="sampler", loss="clip", loss_options=high) > 0.01


def test_without_lag_all_are_equal() -> None:
    row_N = torch.arange(2).repeat_interleave(2)
    scored = torch.tensor([-0.5, -1.0, -0.3, -2.0], dtype=torch.float64, requires_grad=True)
    batch = Batch(
        input_ids=tuple(torch.zeros(3, dtype=torch.long) for _ in range(2)),
        prompt_lengths_B=torch.ones(2, dtype=torch.long),
        row_N=row_N,
        loss_mask_N=torch.ones(4, dtype=torch.bool),
        reward_B=torch.tensor([0.0, 1.0]),
        group_B=torch.zeros(2, dtype=torch.long),
        weights_N=torch.ones(4),
        rollout_logprobs_N=scored.detach(),
        advantages_N=torch.tensor([-1.0, -1.0, 1.0, 1.0]),
    )
    found = [
        torch.autograd.grad(policy_loss(scored, torch.zeros(4), batch, proximal=proximal).loss, scored)[0]
        for proximal in ("trainer", "sampler")
    ]
    assert torch.equal(*found)


def test_gap_metrics_tell_the_lag_with_either_policy() -> None:
    def gap(proximal: str) -> float:
        completions = [*itertools.product(range(WORDS), repeat=2)]
        scored, sampled = (token_logprobs(logits(2, seed), completions) for seed in (1, 2))
        row_N = torch.arange(len(completions)).repeat_interleave(2)
        batch = Batch(
            input_ids=tuple(torch.zeros(3, dtype=torch.long) for _ in completions),
            prompt_lengths_B=torch.ones(len(completions), dtype=torch.long),
            row_N=row_N,
            loss_mask_N=torch.ones(len(row_N), dtype=torch.bool),
            reward_B=torch.zeros(len(completions)),
            group_B=torch.zeros(len(completions), dtype=torch.long),
            weights_N=torch.ones(len(row_N)),
            rollout_logprobs_N=sampled,
            advantages_N=torch.ones(len(row_N)),
        )
        return float(policy_loss(scored, torch.zeros_like(scored), batch, proximal=proximal).metrics["gap/logprob_abs"])

    assert gap("trainer") == gap("sampler") > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"algorithm": {"importance": "none", "proximal": "trainer"}},
            "algorithm.importance must not be none with rollout.ahead above 0",
        ),
        ({"algorithm": {"loss": "reinforce", "proximal": "sampler"}}, "reinforce has no ratio"),
        ({"method": "pairs"}, "rollout.ahead must be 0 for method pairs"),
        ({"rollout": {"ahead": 2}}, "rollout.ahead must be at most 1 with rollout.during_update wait; got 2"),
        ({"rollout": {"ahead": 0, "during_update": "pin"}}, "during_update must not be pin with rollout.ahead 0"),
    ],
)
def test_combinations_that_would_be_wrong_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve({"task": "arithmetic", "rollout": {"ahead": 1}, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"algorithm": {"importance": "none", "proximal": "sampler"}},
        {"algorithm": {"loss": "gspo"}},
        {"rollout": {"ahead": 16, "during_update": "go_on"}},
        {"rollout": {"ahead": 16, "during_update": "pin"}},
    ],
)
def test_combinations_that_are_right_are_taken(changes: dict[str, object]) -> None:
    assert resolve({"task": "arithmetic", "rollout": {"ahead": 1}, **changes}).stages[0].rollout.ahead >= 1


@pytest.mark.parametrize(
    ("changes", "proximal"),
    [
        ({}, "sampler"),
        ({"rollout": {"ahead": 0}}, "trainer"),
        ({"algorithm": {"loss": "gspo"}}, "sampler"),
        ({"algorithm": {"loss": "reinforce"}}, "trainer"),
        ({"optim": {"updates_per_step": 4}}, "trainer"),
        ({"optim": {"inner_epochs": 2}}, "trainer"),
        ({"algorithm": {"proximal": "trainer"}}, "trainer"),
        ({"rollout": {"ahead": 0}, "algorithm": {"proximal": "sampler"}}, "sampler"),
    ],
)
def test_one_update_of_an_older_batch_is_bounded_by_its_sampler(changes: dict[str, object], proximal: str) -> None:
    assert resolve({"task": "arithmetic", "rollout": {"ahead": 1}, **changes}).stages[0].proximal == proximal


def test_the_kl_of_an_older_batch_is_that_of_the_present_policy() -> None:
    needs = {
        (ahead, coef): loss_needs(
            resolve({"task": "arithmetic", "rollout": {"ahead": ahead}, "algorithm": {"kl_coef": coef}}).stages[0]
        )
        for ahead, coef in itertools.product((0, 1), (0.0, 0.1))
    }
    assert needs == {
        (0, 0.0): frozenset(),
        (1, 0.0): frozenset(),
        (0, 0.1): {"ref_logprobs"},
        (1, 0.1): {"ref_logprobs", "old_logprobs"},
    }


def test_effective_sample_size() -> None:
    assert effective_sample([0.3] * 7) == pytest.approx(1.0)
    assert effective_sample([0.0, 800.0, 0.0, 0.0]) == pytest.approx(0.25)  # no overflow
    weights = torch.tensor([1.0, 2.0, 3.0])
    assert effective_sample(weights.log().numpy()) == pytest.approx(36 / (3 * 14))
