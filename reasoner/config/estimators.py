"""The advantage estimators by name: one table of what each compares a reward with and what it needs.

The functions are in `reasoner.algorithm.advantage`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple


class Traits(NamedTuple):
    """The baseline of an estimator, and its input besides the rewards."""

    baseline: Literal["group", "step", "value"] | None
    """The rewards are compared with the group's, with the whole step's, with a value model's, or with none."""
    by_group: bool = False
    """True: the advantages of a group depend on its own rewards alone, so that groups can be taken one by one."""
    needs: frozenset[str] = frozenset()
    """Of "values", "ref_logprobs", "old_logprobs"."""

    @property
    def group_relative(self) -> bool:
        """True: a group without signal has zero advantages and may leave the batch."""
        return self.baseline == "group"


ESTIMATOR_TRAITS: Mapping[str, Traits] = {
    "grpo": Traits("group", by_group=True),
    "dr_grpo": Traits("group", by_group=True),
    "rloo": Traits("group", by_group=True),
    "rejection": Traits(None, by_group=True),
    "reinforce_pp": Traits("step"),
    "reinforce_pp_baseline": Traits("group"),
    "gae": Traits("value", needs=frozenset({"values"})),
}

REJECTION_THRESHOLD = 1.0
"""Full marks: where verdicts are right or wrong, rejection sampling learns from the right ones."""


def traits_of(name: str) -> Traits:
    """Return the traits of an estimator; one at `module:attribute` is assumed to compare with the step."""
    return ESTIMATOR_TRAITS.get(name, Traits("step"))


def accepted_from(options: Mapping[str, object]) -> float:
    """The reward from which on rejection sampling learns from a rollout: `advantage_options.threshold`."""
    given = options.get("threshold", REJECTION_THRESHOLD)
    return float(given) if isinstance(given, int | float) else REJECTION_THRESHOLD
