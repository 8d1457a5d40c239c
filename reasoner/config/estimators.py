"""Table of the advantage estimators: the baseline of each, and the input that it needs.

The functions are in `reasoner.algorithm.advantage`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple


class Traits(NamedTuple):
    """The baseline of an estimator, and its input in addition to the rewards."""

    baseline: Literal["group", "step", "value", "teacher"] | None
    """Rewards are compared with those of the group or of the whole step, with a value model's, or (None) with
    nothing; "teacher": tokens are, by their probability, with a teacher."""
    by_group: bool = False
    """True if a group's advantages depend only on its own rewards, so that groups can be processed one by one."""
    needs: frozenset[str] = frozenset()
    """Any of "values", "ref_logprobs", "old_logprobs", "teacher_logprobs"."""

    @property
    def group_relative(self) -> bool:
        """True if a group without signal has zero advantages and may leave the batch."""
        return self.baseline == "group"


ESTIMATOR_TRAITS: Mapping[str, Traits] = {
    "grpo": Traits("group", by_group=True),
    "dr_grpo": Traits("group", by_group=True),
    "rloo": Traits("group", by_group=True),
    "rejection": Traits(None, by_group=True),
    "reinforce_pp": Traits("step"),
    "reinforce_pp_baseline": Traits("group"),
    "gae": Traits("value", needs=frozenset({"values"})),
    "reverse_kl": Traits("teacher", needs=frozenset({"teacher_logprobs"})),
}

REJECTION_THRESHOLD = 1.0
"""Full marks: if verdicts are only right or wrong, rejection sampling learns from the right ones."""


def traits_of(name: str) -> Traits:
    """Return the traits of an estimator; any that is not built in is assumed to compare rewards over the whole step."""
    return ESTIMATOR_TRAITS.get(name, Traits("step"))


def accepted_from(options: Mapping[str, object]) -> float:
    """Return the lowest reward that rejection sampling learns from: `advantage_options.threshold`."""
    given = options.get("threshold", REJECTION_THRESHOLD)
    return float(given) if isinstance(given, int | float) else REJECTION_THRESHOLD


def reward_coef_from(options: Mapping[str, object]) -> float:
    """Return the weight of the verified reward beside a teacher: `advantage_options.reward_coef`."""
    given = options.get("reward_coef", 0.0)
    return float(given) if isinstance(given, int | float) else 0.0
