"""Preference pairs as token ids. Letters: C pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner.algorithm.batch import Batch
from reasoner.config.sections import PromptSection
from reasoner.data.encode import batch_of, encode
from reasoner.data.preferences import Pair
from reasoner.data.rows import Encoded, length_fault
from tasks import BadRow, UnusableRow
from tasks.inputs.spool import Spool


class EncodedPair(NamedTuple):
    """A pair as token ids, the better completion first."""

    pair: Pair
    first: Encoded
    second: Encoded
    number: int
    """Index among the training pairs."""


def encode_pairs(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, section: PromptSection, *, limit: int
) -> tuple[Sequence[EncodedPair], list[BadRow]]:
    """Encode pairs; those over `limit` tokens or rejected by the chat template are returned as bad rows."""
    kept: Spool[EncodedPair] = Spool()
    bad: list[BadRow] = []
    for pair in pairs:
        try:
            first, second = (
                encode(pair.prompt, text, tokenizer, section, name=pair.id) for text in (pair.first, pair.second)
            )
        except UnusableRow as error:
            bad.append(BadRow(pair.id, str(error)))
            continue
        fault = length_fault(max(first, second, key=len), limit)
        if fault:
            bad.append(BadRow(pair.id, fault))
        else:
            kept.append(EncodedPair(pair, first, second, len(kept)))
    return kept, bad


def pair_batch(pairs: Sequence[EncodedPair]) -> Batch:
    """Build a batch of C pairs: rows 2c and 2c + 1 are the sides of pair c.

    Rewards are the target and its complement; the group of both rows is the pair's number.
    """
    return batch_of(
        [side for encoded in pairs for side in (encoded.first, encoded.second)],
        rewards=[value for encoded in pairs for value in (encoded.pair.target, 1 - encoded.pair.target)],
        groups=[encoded.number for encoded in pairs for _ in range(2)],
        margins=[encoded.pair.margin for encoded in pairs for _ in range(2)],
    )
