"""The built-in verifiers of answers: near misses, odd references, hostile text."""

from __future__ import annotations

import pytest

from verifiers import BadOption, BadReference, get_verifier
from verifiers.kit.conformance import check_verifier
from verifiers.registry import verifier_class

OWN = "choice countdown exact format json_schema length logic numeric regex repetition".split()


@pytest.mark.parametrize("name", OWN)
def test_examples_of_every_built_in_verifier_are_graded_as_labelled(name: str) -> None:
    cls = verifier_class(name)
    made = get_verifier(name, **cls.example_options)
    assert made.examples
    for example in made.examples:
        verdict = made.verify_batch([example.row])[0]
        assert verdict.outcome is example.outcome, (example, verdict)


@pytest.mark.parametrize("name", ["length", "format"])
def test_the_kit_accepts_built_in_verifiers(name: str) -> None:
    report = check_verifier(name)
    assert not report.failures, report.failures


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("0.5", "1/2", True),
        ("1,000", 1000, True),
        ("10,00", 1000, False),
        ("$3.50", "3.5", True),
        ("50%", "50", True),
        ("50%", "0.5", False),
        ("-0", "0", True),
        ("1e3", "1000", True),
        ("1e999999", "1000", False),
        ("3 or 4", "3", False),
        ("3,4", "3", False),
        ("٣", "3", False),
        ("0x10", "16", False),
        ("inf", "1", False),
        ("1/0", "1", False),
    ],
)
def test_numeric(answer: str, gold: str | int, right: bool) -> None:
    verdict = get_verifier("numeric").verify(completion=f"\\boxed{{{answer}}}", reference=gold)
    assert verdict.reward == right, verdict.reason


def test_numeric_tolerances_are_exact() -> None:
    made = get_verifier("numeric", absolute=0.125)
    assert [made.verify(completion=f"#### {x}", reference="1").reward for x in ("1.125", "0.875", "1.1251")] == [
        1,
        1,
        0,
    ]
    part = get_verifier("numeric", relative=0.25)
    assert [part.verify(completion=f"#### {x}", reference="-4").reward for x in ("-5", "-3", "-5.001")] == [1, 1, 0]


@pytest.mark.parametrize("reference", [None, True, "ten", "", [], {}, "1e999999999", float("nan")])
def test_numeric_refuses_golds_that_are_no_numbers(reference: object) -> None:
    with pytest.raises(BadReference):
        get_verifier("numeric").check_reference(reference)  # pyright: ignore


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
