"""The config's loss as a function, what it needs, and its check before a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.loss import TokenLoss, reinforce
from reasoner.algorithm.objective import TokenScores, check_algorithm, loss_needs, make_objective
from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.stage import StageConfig

SEEN: list[Batch] = []


def stage(*, group_size: int = 4, optim: dict[str, object] | None = None, **algorithm: object) -> StageConfig:
    raw = {"task": "arithmetic", "model": "x", "rollout": {"group_size": group_size}, "optim": optim or {}}
    return resolve({**raw, "algorithm": algorithm}).stages[0]


@pytest.mark.parametrize(("updates", "epochs", "several"), [(1, 1, False), (2, 1, True), (1, 2, True), (2, 2, True)])
def test_old_logprobs_are_needed_where_several_updates_share_a_batch(updates: int, epochs: int, several: bool) -> None:
    config = stage(optim={"updates_per_step": updates, "inner_epochs": epochs})
    assert loss_needs(config) == (frozenset({"old_logprobs"}) if several else frozenset())


def test_a_reference_is_needed_where_there_is_a_kl() -> None:
    assert loss_needs(stage(kl_coef=0.1)) == {"ref_logprobs"}


def seen(batch: Batch) -> Batch:
    SEEN.append(batch)
    return replace(batch, advantages_N=batch.reward_B.float() - 0.5)


def test_the_coefficient_of_the_kl_is_the_given_one_or_the_configs() -> None:
    SEEN.clear()
    config = stage(advantage=f"{__name__}:seen", kl="k1", kl_coef=0.1)
    check_algorithm(config)
    batch = replace(seen(SEEN[0]), ref_logprobs_N=torch.full((4,), -1.0))
    scores = TokenScores(torch.zeros(4), torch.zeros(4))

    def loss(kl_coef: float | None) -> float:
        return make_objective(config, kl_coef=kl_coef)(scores, batch).loss.item()

    # the k1 estimate of each of four tokens of weight 1 is 1
    assert loss(0.5) - loss(0.0) == pytest.approx(0.5 * 4)
    assert loss(None) - loss(0.0) == pytest.approx(0.1 * 4)


@pytest.mark.parametrize(("group_size", "rewards"), [(1, [0, 1]), (2, [0, 1]), (5, [0, 1, 0, 1, 0])])
def test_the_check_is_made_on_one_group_of_right_and_wrong_answers(group_size: int, rewards: list[float]) -> None:
    SEEN.clear()
    check_algorithm(stage(advantage=f"{__name__}:seen", group_size=group_size))
    (batch,) = SEEN
    assert batch.reward_B.tolist() == rewards
    assert batch.group_B.tolist() == [0] * len(rewards)
    assert batch.row_N.tolist() == list(range(len(rewards)))
    assert [len(ids) for ids in batch.input_ids] == [2] * len(rewards), "a token of the prompt and one of the answer"


def flat(batch: Batch) -> Batch:
    return replace(batch, advantages_N=torch.zeros(len(batch)))


def careless(batch: Batch) -> Batch:
    raise TypeError("no number")


def wrong(batch: Batch) -> Batch:
    raise ValueError("no advantage")


def constant(logprobs_N: Tensor, old_N: Tensor, advantages_N: Tensor, row_N: Tensor, mask_N: Tensor) -> TokenLoss:
    return reinforce(0 * logprobs_N, old_N, advantages_N, row_N, mask_N)


def test_advantages_of_zero_need_no_gradient_and_others_do() -> None:
    check_algorithm(stage(advantage=f"{__name__}:flat", loss=f"{__name__}:constant"))
    with pytest.raises(ConfigError, match="must have a gradient where advantages are not 0"):
        check_algorithm(stage(loss=f"{__name__}:constant"))
    with pytest.raises(ConfigError, match="must have a gradient where advantages are not 0"):
        check_algorithm(stage(advantage=f"{__name__}:seen", group_size=1, loss=f"{__name__}:constant"))


@pytest.mark.parametrize(("name", "says"), [("careless", "algorithm: no number"), ("wrong", "algorithm: no advantage")])
def test_what_an_estimator_raises_is_an_error_of_the_config(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_algorithm(stage(advantage=f"{__name__}:{name}"))
