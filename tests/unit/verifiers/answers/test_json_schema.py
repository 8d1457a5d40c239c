"""`json_schema`: the place of the JSON, text that is not JSON, references to other documents."""

from __future__ import annotations

import pytest

from verifiers import BadReference, get_verifier

SCHEMA = {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 3}


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("[1, 2]", "correct"),
        ("<think>[9, -9]</think>[]", "correct"),
        ("Sure:\n```json\n[1]\n```\nDone.", "correct"),
        ("```\n[1, 2, 3, 4]\n```", "incorrect"),
        ("[1, -2]", "incorrect"),
        ("[1, NaN]", "incorrect"),
        ('[{"a": 1, "a": 2}]', "incorrect"),
        ("[1", "incorrect"),
        ("one and two", "no_answer"),
        ("[" * 50_000 + "]" * 50_000, "incorrect"),
        ("[" + "9" * 5000 + "]", "incorrect"),
    ],
)
def test_json_schema(text: str, outcome: str) -> None:
    verdict = get_verifier("json_schema").verify(completion=text, reference=SCHEMA)  # pyright: ignore
    assert verdict.outcome == outcome, verdict.reason


def test_json_schema_fetches_nothing() -> None:
    schema = {"$ref": "http://127.0.0.1:9/schema.json"}
    verdict = get_verifier("json_schema").verify(completion="[1]", reference=schema)  # pyright: ignore
    assert verdict.outcome == "bad_reference", verdict
    with pytest.raises(BadReference, match="JSON schema"):
        get_verifier("json_schema").check_reference({"type": "no-such-type"})
