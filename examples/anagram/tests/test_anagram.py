from __future__ import annotations

import pytest
from anagram_verifier.task import Anagrams
from anagram_verifier.verifier import Anagram

from verifiers.kit.conformance import check_verifier


def test_conformance() -> None:
    report = check_verifier("anagram_verifier.verifier:Anagram")
    assert not report.failures, report.failures


@pytest.mark.parametrize(("answer", "reward"), [("enlist", 1), ("listen", 0), ("list", 0), ("", 0)])
def test_rewards(answer: str, reward: float) -> None:
    assert Anagram().verify(completion=f"\\boxed{{{answer}}}", reference="listen").reward == reward


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_demonstration_is_right(split: str) -> None:
    for problem in Anagrams().problems(split):
        assert Anagram().verify(completion=problem.demonstration or "", reference=problem.reference).reward == 1
