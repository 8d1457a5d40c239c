"""Selection of the rollouts that take part in an update. Letters: P problems, G group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from reasoner.algorithm.advantage import Estimator
from reasoner.algorithm.batch import row_rewards
from reasoner.algorithm.group_baselines import group_signal, overlong_penalty
from reasoner.config.stage import StageConfig
from reasoner.records import Dropped, Kept, RolloutGroup
from reasoner.rollout.round import Sampled


def shaped(portions: Iterable[Sampled], config: StageConfig) -> Iterator[Sampled]:
    """Yield the portions with the soft overlong penalty added to their graded rollouts, if the config has one.

    DAPO, arXiv:2503.14476, equation 13.
    """
    penalty_tokens, max_tokens = config.algorithm.overlong_penalty_tokens, config.rollout.max_tokens
    for portion in portions:
        if penalty_tokens == 0:
            yield portion
            continue
        groups: list[RolloutGroup] = []
        for group in portion.groups:
            rollouts = [
                replace(
                    rollout,
                    shaping=overlong_penalty(
                        rollout.completion.policy_tokens, max_tokens=max_tokens, penalty_tokens=penalty_tokens
                    ),
                )
                if rollout.verdict.graded
                else rollout
                for rollout in group.rollouts
            ]
            groups.append(replace(group, rollouts=tuple(rollouts)))
        yield replace(portion, groups=tuple(groups))


def has_signal(group: RolloutGroup, *, normalized: bool = False) -> bool:
    """Return True if the rewards of the graded rollouts differ. `normalized`: combine components as GDPO does."""
    graded = [(0, rollout) for rollout in group.rollouts if rollout.reward is not None]
    return group_signal(row_rewards(graded, normalized=normalized))


class Selection(NamedTuple):
    """The rollouts that an update is computed on, and those left out."""

    kept: Kept
    dropped: list[Dropped]


def select(portion: Sampled, estimator: Estimator, config: StageConfig) -> Selection:
    """Divide rollouts into rows of the update and rollouts that are left out.

    Ungraded rollouts are left out. A group without signal has zero advantages and is left out too, unless a KL or
    entropy term still has a gradient there or the estimator does not compare within groups. With dynamic sampling,
    groups with signal beyond the wanted number are left out as surplus.
    """
    algorithm, groups = config.algorithm, portion.groups
    signal_only = estimator.group_relative and algorithm.kl_coef == 0 and algorithm.entropy_coef == 0
    room = config.rollout.problems_per_step if config.rollout.dynamic_sampling_rounds else len(groups)
    selection = Selection([], [])
    for index, group in enumerate(groups, portion.first_group):
        signal = has_signal(group, normalized=algorithm.normalize_components) or not signal_only
        taken = signal and room > 0
        room -= taken
        for rollout in group.rollouts:
            if rollout.reward is None:
                selection.dropped.append(Dropped(index, rollout, str(rollout.verdict.outcome)))
            elif taken:
                selection.kept.append((index, rollout))
            else:
                reason = "surplus" if signal else "no signal in its group"
                selection.dropped.append(Dropped(index, rollout, reason))
    return selection
