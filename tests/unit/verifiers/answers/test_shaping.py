"""`length` and `repetition`, by hand."""

from __future__ import annotations

import pytest

from verifiers import get_verifier


@pytest.mark.parametrize(
    ("words", "reward"), [("a", 1.0), ("a " * 10, 1.0), ("a " * 15, 0.5), ("a " * 20, 0.0), ("a " * 99, 0.0)]
)
def test_length(words: str, reward: float) -> None:
    assert get_verifier("length", soft=10, hard=20).verify(completion=words, reference=None).reward == reward


def test_repetition_by_hand() -> None:
    made = get_verifier("repetition", ngram=2, floor=0.0, ceiling=1.0)
    verdict = made.verify(completion="a b a b a", reference=None)  # ab ba ab ba: two of four
    assert verdict.reward == 0.5
    assert made.verify(completion="a", reference=None).reward == 1
