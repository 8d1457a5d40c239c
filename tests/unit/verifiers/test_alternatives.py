"""Several reference answers: any of them is right, for every verifier, in one place."""

from __future__ import annotations

import pytest

from verifiers import JSON, BadReference, Outcome, get_verifier
from verifiers.pool import GradingPool


@pytest.mark.parametrize(
    ("name", "reference", "completion", "outcome"),
    [
        ("math", ["2", "two"], "\\boxed{2}", Outcome.CORRECT),
        ("math", ["2", "3"], "\\boxed{3}", Outcome.CORRECT),
        ("math", ["2", "3"], "\\boxed{4}", Outcome.INCORRECT),
        ("math", ["2", "3"], "\\boxed{2, 3}", Outcome.INCORRECT),
        ("exact", ["2", "3"], "I do not know which.", Outcome.NO_ANSWER),
        ("math", [2, 3], "\\boxed{3}", Outcome.CORRECT),
        ("math", ["2"], "\\boxed{2}", Outcome.CORRECT),
        ("exact", ["Lisbon", "Lisboa"], "The answer is Lisboa.", Outcome.CORRECT),
        ("exact", ["Lisbon", "Lisboa"], "The answer is ['Lisbon', 'Lisboa'].", Outcome.INCORRECT),
        ("numeric", [1, "2"], "\\boxed{2}", Outcome.CORRECT),
        ("numeric", ["", 2], "\\boxed{2}", Outcome.CORRECT),
        ("numeric", ["", "none"], "\\boxed{2}", Outcome.BAD_REFERENCE),
        ("math", [], "\\boxed{2}", Outcome.BAD_REFERENCE),
        ("math", {"any": []}, "\\boxed{2}", Outcome.BAD_REFERENCE),
        ("math", [["2"], ["3"]], "\\boxed{2}", Outcome.BAD_REFERENCE),
        ("math", ["2", ["3"]], "\\boxed{2}", Outcome.BAD_REFERENCE),
        ("math", ["2", None], "\\boxed{2}", Outcome.BAD_REFERENCE),
        ("math", [str(n) for n in range(65)], "\\boxed{2}", Outcome.BAD_REFERENCE),
        ("math", {"any": ["3", {"any": ["2"]}]}, "\\boxed{2}", Outcome.BAD_REFERENCE),
        ("math", {"any": "2"}, "\\boxed{2}", Outcome.BAD_REFERENCE),
        ("math", {"any": ["2"], "of": 1}, "\\boxed{2}", Outcome.BAD_REFERENCE),
        ("choice", {"any": ["A", "B"]}, "The answer is (B).", Outcome.CORRECT),
        ("choice", {"any": ["A", "B"]}, "The answer is (C).", Outcome.INCORRECT),
        ("choice", ["A", "B"], "The answer is (B).", Outcome.BAD_REFERENCE),
        ("countdown", {"any": [{"numbers": [3, 4], "target": 12}]}, "<answer>3*4</answer>", Outcome.CORRECT),
        ("json_schema", {"any": [{"type": "string"}, {"type": "integer"}]}, "```json\n3\n```", Outcome.CORRECT),
    ],
)
def test_any_of_several_answers_is_right(name: str, reference: JSON, completion: str, outcome: Outcome) -> None:
    made = get_verifier(name)
    verdict = made.verify(completion=completion, reference=reference)
    assert verdict.outcome is outcome, verdict.reason
    if outcome is Outcome.BAD_REFERENCE:
        with pytest.raises(BadReference):
            made.check_references(reference)
    else:
        made.check_references(reference)
        assert verdict.verifier == name
        assert isinstance(verdict.detail["alternatives"], int)


def test_the_verdict_says_which_answer_it_is_from_and_a_batch_keeps_its_order() -> None:
    made = get_verifier("exact")
    references: list[JSON] = ["a", ["x", "a"], [], {"any": ["a"]}]
    from verifiers import GradingRow

    rows = [GradingRow(completion="The answer is a", reference=reference) for reference in references]
    found = made.verify_batch(rows)
    assert [verdict.outcome.value for verdict in found] == ["correct", "correct", "bad_reference", "correct"]
    assert [verdict.detail.get("alternative") for verdict in found] == [None, 1, None, 0]
    assert made.verify_batch([]) == []


def test_notes_name_an_answer_that_is_passed_over() -> None:
    made = get_verifier("numeric")
    assert made.notes_on(["2", "two hands"]) == [
        "'two hands' is ignored: reference must be a number, or text that is one; got 'two hands'."
    ]


def test_what_could_not_be_graded_does_not_count_as_wrong() -> None:
    from verifiers import Verifier
    from verifiers.base import GradingRow
    from verifiers.verdict import Verdict, fixed

    class Halting(Verifier):
        name = "halting"

        def grade(self, row: GradingRow) -> Verdict:
            if row.reference == "unknown":
                return fixed(Outcome.VERIFIER_ERROR, "cannot tell")
            return fixed(Outcome.CORRECT if row.completion == row.reference else Outcome.INCORRECT, "compared")

    def outcome(*references: JSON) -> Outcome:
        return Halting().verify(completion="a", reference={"any": [*references]}).outcome

    assert outcome("b", "unknown") is Outcome.VERIFIER_ERROR
    assert outcome("unknown", "a") is Outcome.CORRECT
    assert Halting().verify(completion="a", reference=["a"]).outcome is Outcome.INCORRECT  # its own meaning of a list


@pytest.mark.parametrize("reference", [["3", "2"], {"any": ["3", "2"]}])
def test_a_composed_verifier_and_the_pool_take_them_too(reference: JSON) -> None:
    parts: list[JSON] = ["math", {"verifier": "format", "options": {"pattern": ".*"}}]
    from verifiers import GradingRow

    row = GradingRow(completion="\\boxed{2}", reference=reference)
    assert get_verifier("all-of", parts=parts).verify(completion="\\boxed{2}", reference=reference).right
    with GradingPool(workers=1) as pool:
        assert pool.submit("math", {}, row).result().right
        assert pool.submit("all-of", {"parts": parts}, row).result().right


def test_a_part_with_a_reference_of_its_own_takes_them() -> None:
    parts: list[JSON] = [{"verifier": "math", "reference": "value"}, {"verifier": "exact", "reference": "text"}]
    made = get_verifier("all-of", parts=parts)
    several: JSON = {"any": [{"value": "1", "text": "1"}, {"value": "2", "text": "2"}]}
    inner: JSON = {"value": ["3", "2"], "text": "2"}
    for reference in (inner, several):
        made.check_references(reference)
        assert made.verify(completion="\\boxed{2}", reference=reference).right
    mixed: JSON = {"any": [{"value": "2", "text": "1"}, {"value": "1", "text": "2"}]}
    assert not made.verify(completion="\\boxed{2}", reference=mixed).right
