"""A teacher with another tokenizer is refused, by the tokens that differ."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from reasoner.config.errors import ConfigError
from reasoner.model.load import byte_tokenizer
from reasoner.model.same_tokenizer import check_same_texts, check_same_tokenizer


def made(*, swapped: bool = False, merges: Sequence[tuple[str, str]] = (), extra: Sequence[str] = ()):
    """A byte-level tokenizer; `swapped` exchanges the ids of two letters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*alphabet, *("".join(pair) for pair in merges), *extra])}
    if swapped:
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def test_the_same_tokenizer_passes_with_another_end_and_template() -> None:
    other = byte_tokenizer()
    other.eos_token, other.chat_template = "<|endoftext|>", None
    check_same_tokenizer(byte_tokenizer(), other, teacher="org/Teacher")
    check_same_texts(byte_tokenizer(), lambda ids: str(other.decode(list(ids))), teacher="http://there")


def test_tokens_with_other_ids_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        check_same_tokenizer(made(), made(swapped=True), teacher="org/Teacher")
    text = str(caught.value)
    own = made()
    a, b = own.convert_tokens_to_ids("a"), own.convert_tokens_to_ids("b")
    assert "teacher org/Teacher must have the policy's tokenizer" in text
    assert f"2 of 258 tokens differ: 'a' has id {a} here, id {b} there; 'b' has id {b} here, id {a} there" in text
    assert "sft.data" in text


def test_a_token_that_one_of_them_lacks_is_named() -> None:
    own = made(extra=["thinking"])
    with pytest.raises(ConfigError, match=r"'thinking' has id 256 here, no id there"):
        check_same_tokenizer(own, made(), teacher="org/Teacher")
    with pytest.raises(ConfigError, match=r"'thinking' has no id here, id 256 there"):
        check_same_tokenizer(made(), own, teacher="org/Teacher")


def test_the_same_tokens_with_other_rules_are_another_tokenizer() -> None:
    merged, unmerged = made(merges=[("2", "0")]), made(extra=["20"])
    assert merged.get_vocab() == unmerged.get_vocab()
    with pytest.raises(ConfigError, match=r"the text 'In 2024.*'... is \d+ tokens"):
        check_same_tokenizer(merged, unmerged, teacher="org/Teacher")


def test_of_a_server_the_first_id_with_another_text_is_named() -> None:
    own, other = made(), made(swapped=True)
    asked: list[int] = []

    def text_of(ids: Sequence[int]) -> str:
        asked.append(len(ids))
        return str(other.decode(list(ids)))

    first = own.convert_tokens_to_ids("a")
    with pytest.raises(ConfigError, match=rf"teacher http://there .* id {first} is 'a' here, 'b' there"):
        check_same_texts(own, text_of, teacher="http://there")
    assert len(asked) < 20
