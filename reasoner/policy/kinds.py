"""The policy class of each method."""

from __future__ import annotations

from typing import ClassVar

from reasoner.algorithm.advantage import get_estimator
from reasoner.config.stage import StageConfig
from reasoner.policy.policy import Policy


class PairPolicy(Policy):
    """A policy whose batches are pairs."""

    unit: ClassVar[int] = 2


def policy_class(config: StageConfig) -> type[Policy]:
    """The policy of a method: with a reward head, with a value model, or neither."""
    if config.method == "reward_model":
        from reasoner.policy.reward import RewardPolicy

        return RewardPolicy
    if config.method == "dpo":
        from reasoner.policy.kinds import PairPolicy

        return PairPolicy
    if "values" in get_estimator(config.algorithm.advantage).needs:
        from reasoner.policy.value import ActorCritic

        return ActorCritic
    return Policy
