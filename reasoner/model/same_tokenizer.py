"""Comparison of a teacher's tokenizer with the policy's: distillation compares token ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner.config.errors import ConfigError
from reasoner.model.load import tokens_of

SHOWN = 3
"""Differing tokens that an error names."""
PIECE = 1024
"""Ids whose text is compared at once."""
PROBE = "In 2024, 12345+678.9=13023.9; naïve Ünïcode – 分かち書き,\n\tif x_1 != 'don’t':  return   [0.5]"
"""Text that tokenizers with the same tokens and other rules divide differently: numbers, spaces, other scripts."""


def check_same_tokenizer(own: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, *, teacher: str) -> None:
    """Check that a teacher has the policy's tokenizer: the same ids for the same tokens, the same division of text.

    Sizes of embeddings, special roles of tokens (which one ends a text) and chat templates may differ.

    Raises:
        ConfigError: it has not; names the first tokens that differ.
    """
    fault = _difference(own.get_vocab(), other.get_vocab())
    if fault is None and (ours := own.encode(PROBE)) != (theirs := other.encode(PROBE)):
        fault = (
            f"the text {PROBE[:24]!r}... is {len(ours)} tokens {ours[:6]}... here, {len(theirs)} {theirs[:6]}... there"
        )
    if fault is not None:
        raise _another(teacher, fault)


def _difference(ours: Mapping[str, int], theirs: Mapping[str, int]) -> str | None:
    """Say which tokens differ; None if none does."""
    tokens = sorted(
        {*ours, *theirs}, key=lambda token: (min(ours.get(token, 1 << 60), theirs.get(token, 1 << 60)), token)
    )
    found = [token for token in tokens if ours.get(token) != theirs.get(token)]
    if not found:
        return None
    shown = "; ".join(f"{token!r} has {_id(ours, token)} here, {_id(theirs, token)} there" for token in found[:SHOWN])
    return f"{len(found)} of {len(tokens)} tokens differ: {shown}"


def _id(vocabulary: Mapping[str, int], token: str) -> str:
    return f"id {vocabulary[token]}" if token in vocabulary else "no id"


def check_same_texts(own: PreTrainedTokenizerBase, text_of: Callable[[Sequence[int]], str], *, teacher: str) -> None:
    """Check that a teacher of which only the text of ids can be asked writes each id as the policy's tokenizer does.

    Tokens that only the teacher has are not seen, nor rules by which a text is divided.

    Args:
        own: the policy's tokenizer.
        text_of: returns the text of token ids, special tokens included.
        teacher: its name in the error.
    Raises:
        ConfigError: a text differs; names the first ids.
    """

    def differs(ids: Sequence[int]) -> bool:
        return str(own.decode(list(ids))) != text_of(ids)

    every = sorted(own.get_vocab().values())
    for start in range(0, tokens_of(own), PIECE):
        ids = [one for one in every if start <= one < start + PIECE]
        if not ids or not differs(ids):
            continue
        while len(ids) > 1:
            half = ids[: len(ids) // 2]
            ids = half if differs(half) else ids[len(half) :]
        here, there = str(own.decode(ids)), text_of(ids)
        raise _another(teacher, f"id {ids[0]} is {here!r} here, {there!r} there")


def _another(teacher: str, fault: str) -> ConfigError:
    return ConfigError(
        "bad-value",
        f"teacher {teacher} must have the policy's tokenizer, because each token is compared by its id; {fault}. Use a"
        " teacher of the same family, or SFT on its texts (sft.data), which need no common tokenizer.",
    )
