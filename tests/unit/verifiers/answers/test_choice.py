"""`choice`: letters, texts of choices, several of them."""

from __future__ import annotations

import pytest

from verifiers import BadReference, get_verifier


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("The answer is (B).", True),
        ("The answer is b", True),
        ("\\boxed{\\text{B}}", True),
        ("\\boxed{B}", True),
        ("Answer: B. two", True),
        ("Answer: B) two", True),
        ("The answer is **B**", True),
        ("The answer is two.", True),
        ("The answer is for sure B, it cannot be A", True),
        ("B。不是 A", True),
        ("B：two", True),
        ("B不是 A", False),
        ("B、A", False),
        ("B，A", False),
        ("The answer is (A) or (B).", False),
        ("The answer is A, B, C.", False),
        ("The answer is not (B).", False),
        ("The answer is Beta", False),
        ("The answer is A boy", False),
        ("(B)\n\nThe answer is (A)", False),
    ],
)
def test_choice(text: str, right: bool) -> None:
    verdict = get_verifier("choice").verify(completion=text, reference={"answer": "B", "choices": ["one", "two"]})
    assert verdict.reward == right, verdict.reason


def test_choice_of_words() -> None:
    made = get_verifier("choice", choices=["true", "false", "unknown"])
    for text, reward in (("The answer is True.", 1), ("The answer is false", 0), ("The answer is true or false", 0)):
        assert made.verify(completion=text, reference="true").reward == reward
    with pytest.raises(BadReference):
        made.check_reference("maybe not")
    with pytest.raises(BadReference, match="one of"):
        get_verifier("choice").check_reference({"answer": "D", "choices": ["one", "two"]})
