"""Advice for steps without learning signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reasoner.config.estimators import accepted_from, traits_of
from reasoner.config.sections import AlgorithmSection
from reasoner.records import RolloutGroup

REPEAT_EVERY = 10
"""Number of consecutive silent steps between two messages."""


def no_signal_advice(metrics: Mapping[str, float]) -> str:
    """Explain, from its `rollout_metrics`, why no group of a step had differing rewards, and say what to change.

    Example:
        >>> no_signal_advice({"groups/all_right": 1.0}).split(";")[0]
        'no group has signal: every graded group is all right, so there is nothing left to learn from it'
    """
    right, wrong = metrics.get("groups/all_right", 0.0), metrics.get("groups/all_wrong", 0.0)
    truncated, no_answer = metrics.get("completion/truncated", 0.0), metrics.get("outcome/no_answer", 0.0)
    if right > wrong:
        share = "every graded group is" if right == 1 else f"{right:.0%} of the groups are"
        cause = f"{share} all right, so there is nothing left to learn from it"
        advice = ["use harder problems"]
    elif not wrong:
        cause = "the rewards of each group are equal, though its answers are neither all right nor all wrong"
        advice = ["use a reward that distinguishes its completions", "raise rollout.temperature or rollout.group_size"]
    else:
        cause = f"{wrong:.0%} of the groups are all wrong"
        if no_answer > 0:
            cause += f", {no_answer:.0%} of the rollouts give no answer that the verifier can find"
        cut = metrics.get("turns/cut", 0.0)
        truncated -= cut
        if truncated > 0:
            cause += f", {truncated:.0%} stop at rollout.max_tokens"
        if cut > 0:
            cause += f", {cut:.0%} in a turn that reaches rollout.turn_tokens"
        advice = ["start from a model that solves some of it (an sft stage, an instruct model)", "use easier problems"]
        if truncated > 0.2:
            advice.insert(0, "raise rollout.max_tokens")
        if cut > 0.2:
            advice.insert(0, "teach the policy to end its turns with a stop string, or raise rollout.turn_tokens")
        if no_answer > 0.2:
            advice.insert(0, "say in prompt.system or prompt.template how the answer must be written")
        advice.append("raise rollout.group_size")
    return f"no group has signal: {cause}; without differing rewards there is no gradient. Try: {'; '.join(advice)}."


def none_accepted_advice(rewards: Sequence[float], *, threshold: float) -> str:
    """Explain a step of rejection sampling in which no rollout was accepted, and say what to change.

    Example:
        >>> none_accepted_advice([0.1, 0.2, 0.4, 0.62], threshold=1.0).split(":")[0]
        'no rollout reaches algorithm.advantage_options.threshold=1 (the best of 4 has 0.62)'
    """
    said = f"no rollout reaches algorithm.advantage_options.threshold={threshold:g}"
    if not rewards:
        return f"{said}: none could be graded."
    ranked = sorted(rewards)
    best, upper = ranked[-1], ranked[(3 * len(ranked)) // 4]
    if best >= threshold:  # in a composed reward only the deciding part counts
        said = "no rollout is right"
    advice = "compare rewards instead (algorithm.advantage=grpo)"
    if best > ranked[0]:
        advice = (
            f"set algorithm.advantage_options.threshold={upper:.3g}, which the best quarter of them has, or {advice}"
        )
    return (
        f"{said} (the best of {len(rewards)} has {best:.3g}): every advantage is 0, and the step changes nothing."
        f" {advice[0].upper()}{advice[1:]}."
    )


class SilentSteps:
    """Counter of consecutive steps in which nothing is learned, with advice.

    For rewards compared within a group these are steps in which no group had differing rewards. For rejection sampling
    these are steps in which no rollout was accepted. Other estimators are not monitored.
    """

    def __init__(self, algorithm: AlgorithmSection) -> None:
        self._algorithm = algorithm
        self._traits = traits_of(algorithm.advantage)
        self._count = 0

    def advice(self, metrics: Mapping[str, float], groups: Sequence[RolloutGroup]) -> str | None:
        """Add a step; return advice at the first silent step in a row and then every REPEAT_EVERY steps, else None."""
        if self._traits.group_relative:
            silent = metrics["groups/signal"] == 0
        else:
            silent = self._traits.baseline is None and metrics.get("groups/rows_acting", 0.0) == 0
        self._count = self._count + 1 if silent else 0
        if self._count % REPEAT_EVERY != 1:
            return None
        if self._traits.group_relative:
            return no_signal_advice(metrics)
        rewards = [r.reward for group in groups for r in group.rollouts if r.reward is not None]
        return none_accepted_advice(rewards, threshold=accepted_from(self._algorithm.advantage_options))
