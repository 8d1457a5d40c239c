"""The policy class of each method."""

from __future__ import annotations

from typing import ClassVar

from reasoner.algorithm.advantage import get_estimator
from reasoner.config.methods import METHODS
from reasoner.config.stage import StageConfig
from reasoner.policy.distillation import DistillationPolicy
from reasoner.policy.policy import Policy
from reasoner.policy.reward import RewardPolicy
from reasoner.policy.value import ActorCritic


class PairPolicy(Policy):
    """A policy trained on pairs: two consecutive rows stay together."""

    unit: ClassVar[int] = 2


def policy_class(config: StageConfig) -> type[Policy]:
    """Return the policy class of a method: plain, for pairs, with a reward head, a value model or a teacher."""
    kind = METHODS[config.method].policy
    if kind == "token" and "values" in get_estimator(config.algorithm.advantage).needs:
        return ActorCritic
    kinds = {"token": Policy, "pair": PairPolicy, "reward": RewardPolicy, "distribution": DistillationPolicy}
    return kinds[kind]
