"""A verdict's limits at the last value that is taken and the first that is not, and what its record keeps as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from verifiers import Outcome, Verdict, fixed, graded

CORRECT: dict[str, Any] = {"outcome": "correct", "reward": 1.0}


def foreign(**fields: Any) -> Verdict:
    return Verdict.from_json({**CORRECT, **fields})


def test_names_have_4096_characters_at_most() -> None:
    longest = "x" * 4096
    assert foreign(verifier=longest, version=longest).verifier == longest
    assert foreign(components={longest: 1.0}, weights={longest: 1.0}).components == {longest: 1.0}
    for field in ({"verifier": longest + "x"}, {"version": longest + "x"}, {"components": {longest + "x": 1.0}}):
        with pytest.raises(ValueError, match="text of at most 4096 characters"):
            foreign(**field)


def test_answer_and_detail_have_16_mebi_characters_at_most_and_one_for_each_thing() -> None:
    answer = "x" * (16 * 2**20 - 1)  # and the empty detail
    assert foreign(answer=answer).answer == answer
    with pytest.raises(ValueError, match="at most 16777216 characters; got 16777217"):
        foreign(answer=answer + "x")
    # the object, its key "a" and the list are 1 + 2 + 1; in it 7 texts of 1 + 1, a number and an object of 1
    with pytest.raises(ValueError, match=f"got {16 * 2**20 - 1 + 4 + 7 * 2 + 2}$"):
        foreign(answer=answer, detail={"a": [*"1234567", 1, {}]})


def nested(kind: Callable[[object], object], depth: int) -> object:
    held: object = "x"
    for _ in range(depth):
        held = kind(held)
    return held


@pytest.mark.parametrize("kind", [lambda held: [held], lambda held: {"k": held}, lambda held: (held,)])
def test_a_detail_is_nested_100_deep_at_most(kind: Callable[[object], object]) -> None:
    fixed(Outcome.CORRECT, "why", deep=nested(kind, 99))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="nested at most 100 deep"):
        fixed(Outcome.CORRECT, "why", deep=nested(kind, 100))  # type: ignore[arg-type]


def test_a_number_has_10_000_bits_at_most() -> None:
    assert fixed(Outcome.CORRECT, "why", number=2**10_000 - 1).detail["number"] == 2**10_000 - 1
    with pytest.raises(TypeError, match="got 10001 bits"):
        fixed(Outcome.CORRECT, "why", number=2**10_000)


def test_a_plain_detail_is_kept_as_it_is() -> None:
    plain = {"reason": "because", "exact": True, "found": None}
    assert Verdict(outcome=Outcome.CORRECT, reward=1.0, detail=plain).detail is plain


@pytest.mark.parametrize(
    ("detail", "kept"),
    [
        ({"\ud800": "a", "b": "c"}, {"\ufffd": "a", "b": "c"}),
        ({"a": "\ud800", "b": "c"}, {"a": "\ufffd", "b": "c"}),
        ({"a": math.nan, "b": "c"}, {"a": None, "b": "c"}),
        ({"a": math.inf, "b": 1.5, "c": 2}, {"a": None, "b": 1.5, "c": 2}),
        ({1: "a", "b": [None, True]}, {"1": "a", "b": [None, True]}),
        ({"b": {2: (1, "x")}}, {"b": {"2": [1, "x"]}}),
    ],
)
def test_any_other_detail_becomes_json(detail: dict[Any, Any], kept: dict[str, Any]) -> None:
    found = fixed(Outcome.CORRECT, "why", **{})
    found = replace(found, detail=detail).detail
    assert found == kept
    assert [type(value) for value in found.values()] == [type(value) for value in kept.values()]


def test_a_foreign_detail_that_is_no_json_is_an_error_of_its_value() -> None:
    with pytest.raises(ValueError, match="detail of a verdict must be JSON; got set"):
        foreign(detail={"x": {1}})


def test_names_of_components_without_weights_can_be_written_too() -> None:
    verdict = Verdict(outcome=Outcome.SCORED, reward=1.0, components={"\ud800": 1.0}, decided_by="\ud800")
    assert (verdict.components, verdict.decided_by) == ({"\ufffd": 1.0}, "\ufffd")
    weighed = Verdict(outcome=Outcome.SCORED, reward=1.0, weights={"\ud800": 1.0})
    assert weighed.weights == {"\ufffd": 1.0}


def test_an_ungraded_verdict_may_name_a_component_that_is_not_there() -> None:
    verdict = Verdict.from_json({"outcome": "verifier_error", "reward": None, "decided_by": "a"})
    assert (verdict.graded, verdict.decided_by) == (False, "a")
    with pytest.raises(ValueError, match="decided_by must name one of the components"):
        foreign(decided_by="a")
    assert foreign(components={"b": 0.0}).decided_by is None


def test_a_signed_verdict_differs_in_its_verifier_and_seconds_alone() -> None:
    verdict = replace(graded(0.5, "half", answer="4"), components={"a": 0.5}, weights={"a": 1.0}, decided_by="a")
    assert verdict.signed("math", "3", 0.25) == replace(verdict, verifier="math", version="3", seconds=0.25)
    assert foreign().seconds == 0.0


@pytest.mark.parametrize(
    ("outcome", "shown"),
    [
        ("x" * 200, f"got '{'x' * 80}'"),
        (["x"], "got list"),
        ({"x": 1}, "got dict"),
        (None, "got None"),
        (1.5, "got 1.5"),
        (2**1000 - 1, f"got {2**1000 - 1}"),
        (2**1000, "got int"),
    ],
)
def test_an_error_shows_a_short_value_and_the_type_of_a_long_one(outcome: object, shown: str) -> None:
    with pytest.raises(ValueError, match="outcome must be one of") as told:
        Verdict.from_json({"outcome": outcome, "reward": 1.0})  # type: ignore[dict-item]
    assert str(told.value).endswith(shown)
