"""Labelled rows of the composed verifiers, and the options under which the labels hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from verifiers.base import Example
from verifiers.verdict import JSON, Outcome

TAGGED: JSON = {"verifier": "format", "options": {"tags": ["answer"]}}
"""Format part: the completion must consist of an <answer> tag."""
PARTS: Mapping[str, JSON] = {"parts": [TAGGED, "exact"]}
GATED: Mapping[str, JSON] = {"gate": TAGGED, "then": "exact"}
SUMMED: Mapping[str, JSON] = {"parts": [{"verifier": "exact", "weight": 0.9}, {**TAGGED, "weight": 0.1}]}
CHOSEN: Mapping[str, JSON] = {
    "key": "kind",
    "choices": {
        "town": {"verifier": "exact", "reference": "answer"},
        "*": {"verifier": "numeric", "reference": "answer"},
    },
}

ASKED = "What is the capital of France?"
IN_FORM: Sequence[Example] = (
    Example(completion="<answer>Paris</answer>", reference="Paris", prompt=ASKED),
    Example(completion="<answer>Lyon</answer>", reference="Paris", prompt=ASKED, outcome=Outcome.INCORRECT),
)
"""Rows with the same label under every composition of a format and an answer."""
OUT_OF_FORM = Example(completion="It is <answer>Paris</answer>", reference="Paris", outcome=Outcome.INCORRECT)
"""Row that is wrong because of its format, for compositions in which the format can make an answer wrong."""
BY_KIND: Sequence[Example] = (
    Example(completion="The answer is Paris.", reference={"kind": "town", "answer": "Paris"}),
    Example(completion="The answer is 7.0", reference={"kind": "number", "answer": "7"}),
    Example(completion="The answer is Lyon.", reference={"kind": "town", "answer": "Paris"}, outcome=Outcome.INCORRECT),
    Example(completion="The answer is 8", reference={"kind": "number", "answer": "7"}, outcome=Outcome.INCORRECT),
)

__all__ = ["BY_KIND", "CHOSEN", "GATED", "IN_FORM", "OUT_OF_FORM", "PARTS", "SUMMED"]
