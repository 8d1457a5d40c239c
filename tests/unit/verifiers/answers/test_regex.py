"""`regex`: patterns for the answer and for the whole completion, and invalid patterns."""

from __future__ import annotations

import pytest

from verifiers import BadOption, BadReference, get_verifier


def test_regex() -> None:
    made = get_verifier("regex")
    assert made.verify(completion="#### ab12", reference=r"[a-z]+\d+").reward == 1
    assert made.verify(completion="#### ab12!", reference=r"[a-z]+\d+").reward == 0
    whole = get_verifier("regex", whole=True, search=True)
    assert whole.verify(completion="x def f(): y", reference=r"def \w+\(").reward == 1
    with pytest.raises(BadReference, match="regular expression"):
        made.check_reference("(")
    with pytest.raises(BadOption, match="forms must be some of"):
        get_verifier("regex", forms=["boxd"])
