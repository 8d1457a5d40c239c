"""What a step without signal means, and what to change."""

from __future__ import annotations

from collections.abc import Mapping

REPEAT_EVERY = 10
"""Steps in a row without signal between two sentences about it."""


def no_signal_advice(metrics: Mapping[str, float]) -> str:
    """Sentences for a step in which no group had differing rewards, from its `rollout_metrics`.

    Example:
        >>> no_signal_advice({"groups/all_right": 1.0}).split(".")[0]
        'no group has signal: every graded group is all right, so there is nothing left to learn from it'
    """
    right, wrong = metrics.get("groups/all_right", 0.0), metrics.get("groups/all_wrong", 0.0)
    truncated, no_answer = metrics.get("completion/truncated", 0.0), metrics.get("outcome/no_answer", 0.0)
    if right > wrong:
        share = "every graded group is" if right == 1 else f"{right:.0%} of the groups are"
        cause = f"{share} all right, so there is nothing left to learn from it"
        advice = ["take harder problems"]
    elif not wrong:
        cause = "the rewards of each group are equal, though its answers are neither all right nor all wrong"
        advice = ["take a reward that tells its completions apart", "raise rollout.temperature or rollout.group_size"]
    else:
        cause = f"{wrong:.0%} of the groups are all wrong"
        if no_answer > 0:
            cause += f", {no_answer:.0%} of the rollouts give no answer that the verifier can find"
        if truncated > 0:
            cause += f", {truncated:.0%} stop at rollout.max_tokens"
        advice = ["start from a model that solves some of it (an sft stage, an instruct model)", "take easier problems"]
        if truncated > 0.2:
            advice.insert(0, "raise rollout.max_tokens")
        if no_answer > 0.2:
            advice.insert(0, "say in prompt.system or prompt.template how the answer must be written")
        advice.append("raise rollout.group_size")
    return f"no group has signal: {cause}; without differing rewards there is no gradient. Try: {'; '.join(advice)}."


class SilentSteps:
    """Counts steps in a row without signal."""

    def __init__(self) -> None:
        self._count = 0

    def advice(self, metrics: Mapping[str, float]) -> str | None:
        """Take a step's metrics; advice at the first silent step in a row and every REPEAT_EVERY after it."""
        self._count = 0 if metrics["groups/signal"] > 0 else self._count + 1
        return no_signal_advice(metrics) if self._count % REPEAT_EVERY == 1 else None
