"""Table of the losses on pairs: what each compares, and its default beta.

The functions are in `reasoner.algorithm.pairwise`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class PairTraits(NamedTuple):
    """What a loss on pairs compares."""

    beta: float = 0.1
    """Default of dpo.beta: what is compared differs in scale."""
    reference: bool = True
    """True if log-ratios to the reference are compared; False: the policy's own log-probabilities."""
    per_token: bool = False
    """True if they are divided by the number of tokens."""


PAIR_TRAITS: Mapping[str, PairTraits] = {
    "sigmoid": PairTraits(),
    "sigmoid_norm": PairTraits(5.0, per_token=True),  # open-instruct, Tulu 3 8B: dpo_loss_type dpo_norm, dpo_beta 5
    "ipo": PairTraits(),
    "robust": PairTraits(),
    "hinge": PairTraits(),
    "simpo": PairTraits(2.0, reference=False, per_token=True),  # princeton-nlp/SimPO, README: 2.0 or 2.5
    "orpo": PairTraits(reference=False, per_token=True),
    "cpo": PairTraits(reference=False),
}


def pair_traits(name: str) -> PairTraits:
    """Return the traits of a loss; any that is not built in is assumed to compare sums with the reference."""
    return PAIR_TRAITS.get(name, PairTraits())
