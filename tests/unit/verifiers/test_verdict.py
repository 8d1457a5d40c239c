"""Fields of a verdict, and their form in JSON."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from verifiers import Outcome, Verdict, all_right, all_wrong, fixed, graded

FIXED = {
    Outcome.CORRECT: 1.0,
    Outcome.INCORRECT: 0.0,
    Outcome.NO_ANSWER: 0.0,
    Outcome.LIMIT_EXCEEDED: 0.0,
    Outcome.BAD_REFERENCE: None,
    Outcome.VERIFIER_ERROR: None,
}
NUMBERS = (None, -1.0, 0.0, 0.25, 1.0, 2.0, math.nan, math.inf, -math.inf)


def allowed(outcome: Outcome, reward: float | None) -> bool:
    """The table of DESIGN.md."""
    if outcome in FIXED:
        return reward == FIXED[outcome]
    if reward is None or not math.isfinite(reward):
        return False
    return 0 < reward < 1 if outcome is Outcome.PARTIAL else True


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("reward", NUMBERS)
def test_an_outcome_has_its_rewards_and_no_others(outcome: Outcome, reward: float | None) -> None:
    if allowed(outcome, reward):
        verdict = Verdict(outcome=outcome, reward=reward)
        assert (verdict.outcome, verdict.reward, verdict.graded) == (outcome, reward, reward is not None)
    else:
        with pytest.raises(ValueError, match=f"reward of {outcome} must be .*got {reward}"):
            Verdict(outcome=outcome, reward=reward)


@pytest.mark.parametrize("outcome", FIXED)
def test_a_fixed_verdict_has_the_reward_of_its_outcome(outcome: Outcome) -> None:
    verdict = fixed(outcome, "because", answer="4", tier="text")
    assert (verdict.outcome, verdict.reward, verdict.answer) == (outcome, FIXED[outcome], "4")
    assert verdict.detail == {"reason": "because", "tier": "text"}
    assert verdict.reason == "because"
    assert verdict.graded == (outcome not in (Outcome.BAD_REFERENCE, Outcome.VERIFIER_ERROR))


@pytest.mark.parametrize(
    ("reward", "outcome", "kept"),
    [
        (0.0, Outcome.INCORRECT, 0.0),
        (-0.5, Outcome.INCORRECT, 0.0),
        (0.001, Outcome.PARTIAL, 0.001),
        (0.999, Outcome.PARTIAL, 0.999),
        (1.0, Outcome.CORRECT, 1.0),
        (1.5, Outcome.CORRECT, 1.0),
    ],
)
def test_a_graded_verdict_is_right_wrong_or_between(reward: float, outcome: Outcome, kept: float) -> None:
    verdict = graded(reward, "so far", answer="x", matched=3)
    assert (verdict.outcome, verdict.reward, verdict.answer) == (outcome, kept, "x")
    assert verdict.detail == {"reason": "so far", "matched": 3}


def test_json_there_and_back() -> None:
    verdict = Verdict(
        outcome=Outcome.PARTIAL, reward=0.5, answer="4", detail={"reason": "half", "parts": [1, None]}, seconds=0.25,
        verifier="math", version="3", components={"a": 0.5}, weights={"a": 1.0},
    )  # fmt: skip
    row = json.loads(json.dumps(verdict.to_json()))
    assert row == {
        "outcome": "partial", "reward": 0.5, "answer": "4", "detail": {"reason": "half", "parts": [1, None]},
        "seconds": 0.25, "verifier": "math", "version": "3", "components": {"a": 0.5}, "weights": {"a": 1.0},
        "decided_by": None,
    }  # fmt: skip
    assert Verdict.from_json(row) == verdict
    with pytest.raises(TypeError, match="colour"):
        Verdict.from_json({**row, "colour": "red"})
    with pytest.raises(ValueError, match="reward of correct must be 1"):
        Verdict.from_json({**row, "outcome": "correct"})


def test_what_was_not_said_is_empty() -> None:
    verdict = Verdict(outcome=Outcome.SCORED, reward=-3.5)
    assert (verdict.answer, verdict.reason, verdict.seconds, verdict.verifier, verdict.version) == (
        None, "", 0.0, "", "1",
    )  # fmt: skip
    assert verdict.components == {}


def test_a_verdict_is_built_by_name_and_never_changes() -> None:
    verdict = Verdict(outcome=Outcome.CORRECT, reward=1.0)
    with pytest.raises(FrozenInstanceError):
        verdict.reward = 0.0  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        Verdict(Outcome.CORRECT, 1.0)  # type: ignore[misc]
    assert not hasattr(verdict, "__dict__")


def test_a_component_decides_what_is_right_and_the_reward_is_any_number() -> None:
    for outcome, part, mark in (
        (Outcome.CORRECT, 1.0, 1.0),
        (Outcome.INCORRECT, 0.0, 0.0),
        (Outcome.NO_ANSWER, 0.0, 0.0),
        (Outcome.PARTIAL, 0.25, 0.25),
        (Outcome.SCORED, 7.0, None),
    ):
        for reward in (-3.0, 0.0, 1.0, 2.5):
            verdict = Verdict(outcome=outcome, reward=reward, components={"a": part, "b": 1.0}, decided_by="a")
            assert (verdict.right, verdict.mark) == (outcome is Outcome.CORRECT, mark)
            assert verdict.quality == (reward if mark is None else mark)
    for reward in (None, math.nan):
        with pytest.raises(ValueError, match="reward of correct must be a finite number"):
            Verdict(outcome=Outcome.CORRECT, reward=reward, decided_by="a")
    with pytest.raises(ValueError, match="reward of verifier_error must be None"):
        Verdict(outcome=Outcome.VERIFIER_ERROR, reward=1.0, decided_by="a")


def test_verdicts_of_old_records_say_what_they_said() -> None:
    row = {"outcome": "correct", "reward": 1.0, "answer": "4", "detail": {}, "seconds": 0.0, "verifier": "weighted"}
    assert Verdict.from_json(row).mark == 1.0
    old_sum = Verdict.from_json(row | {"outcome": "scored", "reward": 1.3, "components": {"math": 1.0, "format": 1.0}})
    assert (old_sum.right, old_sum.mark, old_sum.quality) == (False, None, 1.3)


def test_groups_are_all_right_or_all_wrong_by_their_marks() -> None:
    assert (all_right([1.0, 1.0]), all_right([1.0, 0.5]), all_right([1.0, None]), all_right([])) == (
        True, False, False, False,
    )  # fmt: skip
    assert (all_wrong([0.0, 0.0]), all_wrong([0.0, 0.5]), all_wrong([0.0, None]), all_wrong([])) == (
        True, False, False, False,
    )  # fmt: skip


# --------------------------------------------------------------------------------------- any text, any foreign verdict


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ude00\ud83d", "fine"])
def test_every_text_of_a_verdict_can_be_written_as_utf_8(text: str) -> None:
    detail: Any = {"reason": text, text: [text, {text: (text,)}], "number": math.nan, "few": (1, 2.5, True, None)}
    verdict = Verdict(
        outcome=Outcome.SCORED,
        reward=1.0,
        answer=text,
        detail=detail,
        components={text: 1.0},
        weights={text: 1.0},
    )
    for one in (verdict, Verdict.from_json(verdict.to_json()), fixed(Outcome.NO_ANSWER, text, answer=text, x=text)):
        json.dumps(one.to_json(), ensure_ascii=False, allow_nan=False).encode()
    kept = "fine" if text == "fine" else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert verdict.answer == kept
    assert verdict.reason == kept
    assert verdict.detail["few"] == [1, 2.5, True, None]
    assert verdict.detail["number"] is None


def test_a_detail_that_is_no_json_is_refused_where_it_is_made() -> None:
    nested: object = "x"
    for _ in range(200):
        nested = [nested]
    for bad in ({"x": object()}, {"x": {1, 2}}, {"x": b"bytes"}, {"x": nested}, {"x": 10**5000}):
        with pytest.raises(TypeError, match="detail of a verdict must"):
            fixed(Outcome.CORRECT, "why", **bad)  # type: ignore[arg-type]


CORRECT = {"outcome": "correct", "reward": 1.0}
FOREIGN: dict[str, dict[str, object]] = {
    "a reward that is a bool": {"reward": True},
    "a reward as text": {"reward": "1"},
    "no reward": {"reward": None},
    "a reward of its own": {"reward": 0.5},
    "an infinite reward": {"outcome": "scored", "reward": math.inf},
    "a reward that is no number": {"outcome": "scored", "reward": math.nan},
    "a reward without end": {"outcome": "scored", "reward": 10**400},
    "a partial reward out of range": {"outcome": "partial", "reward": 1.5},
    "an ungraded row with a reward": {"outcome": "verifier_error", "reward": 1.0},
    "no outcome": {"outcome": None},
    "an outcome of its own": {"outcome": "Correct"},
    "an outcome that is a list": {"outcome": ["correct"]},
    "an answer that is a number": {"answer": 4},
    "an answer that is a list": {"answer": ["4"]},
    "an answer of 17 MB": {"answer": "x" * (17 << 20)},
    "a reason of 17 MB": {"detail": {"reason": "x" * (17 << 20)}},
    "many small things": {"detail": {"reason": "", "all": [[""] * (1 << 20)] * 17}},
    "a detail that is text": {"detail": "because"},
    "a detail that is null": {"detail": None},
    "seconds as text": {"seconds": "1"},
    "seconds that are a bool": {"seconds": True},
    "seconds before it began": {"seconds": -1},
    "seconds without end": {"seconds": math.inf},
    "a verifier that is a number": {"verifier": 1},
    "a name of 5,000 characters": {"verifier": "x" * 5000},
    "a version that is null": {"version": None},
    "components that are a list": {"components": [1.0]},
    "a component as text": {"components": {"a": "1"}},
    "a component that is a bool": {"components": {"a": True}},
    "a component without end": {"components": {"a": math.nan}},
    "weights that are null": {"weights": None},
    "decided by a list": {"decided_by": ["a"]},
    "decided by what is not there": {"reward": 7.0, "decided_by": "a", "components": {"b": 1.0}},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_verdict_is_taken_as_given_in_nothing(name: str) -> None:
    with pytest.raises(ValueError, match=r"must (be|have|name)") as told:
        Verdict.from_json({**CORRECT, **FOREIGN[name]})  # type: ignore[dict-item]
    assert len(str(told.value)) < 400


NEAR: list[dict[str, object]] = [
    CORRECT,
    {"outcome": "correct", "reward": 1},
    {"outcome": "scored", "reward": -12.5, "answer": "4", "seconds": 0},
    {"outcome": "bad_reference", "reward": None, "detail": {"reason": "no gold"}},
    {"outcome": "correct", "reward": 1.7, "decided_by": "a", "components": {"a": 1, "b": 0.7}, "weights": {"a": 1.0}},
    {"outcome": "partial", "reward": 0.5, "detail": {}, "answer": None, "decided_by": None},
    {"outcome": "incorrect", "reward": 0, "answer": "\ud800", "detail": {"reason": "\x1b[2J", "deep": [[{"a": None}]]}},
]


@pytest.mark.parametrize("row", NEAR)
def test_a_foreign_verdict_that_is_one_is_kept(row: dict[str, object]) -> None:
    verdict = Verdict.from_json(row)  # type: ignore[arg-type]
    assert (verdict.outcome, verdict.reward) == (row["outcome"], row["reward"])
    assert type(verdict.reward) in (float, type(None))
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


def test_a_reason_holds_nothing_that_a_terminal_obeys_or_hides() -> None:
    reason = "\x1b]0;owned\x07\x1b[2Jcall 1\rraised \u202eevil\x00"
    for verdict in (fixed(Outcome.INCORRECT, reason), graded(0.5, reason)):
        assert verdict.reason == r"\x1b]0;owned\x07\x1b[2Jcall 1\rraised \u202eevil\x00"
    for honest in ("naïve: 面积 = π·r²", "two\nlines,\ta tab", "نیم‌فاصله"):
        assert fixed(Outcome.INCORRECT, honest).reason == honest
