"""Which rollouts take part in an update. Letters: P problems, G group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reasoner.algorithm.advantage import Estimator
from reasoner.algorithm.group_baselines import group_signal, overlong_penalty
from reasoner.config.stage import StageConfig
from reasoner.records import Dropped, Kept, RolloutGroup


def shape(groups: Sequence[RolloutGroup], *, max_tokens: int, penalty_tokens: int) -> list[RolloutGroup]:
    """Add the soft overlong penalty (DAPO, arXiv:2503.14476, equation 13); 0 penalty tokens: as they are."""
    if penalty_tokens == 0:
        return list(groups)
    return [
        replace(
            group,
            rollouts=tuple(
                replace(
                    rollout,
                    shaping=overlong_penalty(
                        len(rollout.completion.token_ids), max_tokens=max_tokens, penalty_tokens=penalty_tokens
                    ),
                )
                if rollout.verdict.graded
                else rollout
                for rollout in group.rollouts
            ),
        )
        for group in groups
    ]


def has_signal(group: RolloutGroup) -> bool:
    """Whether the group's rewards differ; ungraded rollouts do not count."""
    return group_signal([rollout.reward for rollout in group.rollouts if rollout.reward is not None])


def select(
    groups: Sequence[RolloutGroup], estimator: Estimator, config: StageConfig, *, first_group: int = 0
) -> tuple[Kept, list[Dropped]]:
    """Rows of the update, and what leaves it: ungraded rollouts, and groups without signal where that is exact.

    A group without signal has zero advantages; it stays only where a KL or entropy term would still move it, or the
    estimator does not compare within groups. With dynamic sampling the surplus of groups with signal leaves too.
    """
    algorithm = config.algorithm
    signal_only = estimator.group_relative and algorithm.kl_coef == 0 and algorithm.entropy_coef == 0
    room = config.rollout.problems_per_step if config.rollout.dynamic_sampling_rounds else len(groups)
    kept: Kept = []
    dropped: list[Dropped] = []
    for index, group in enumerate(groups, first_group):
        signal = has_signal(group) or not signal_only
        taken = signal and room > 0
        room -= taken
        for rollout in group.rollouts:
            if rollout.reward is None:
                dropped.append(Dropped(index, rollout, str(rollout.verdict.outcome)))
            elif taken:
                kept.append((index, rollout))
            else:
                dropped.append(Dropped(index, rollout, "surplus" if signal else "no signal in its group"))
    return kept, dropped
