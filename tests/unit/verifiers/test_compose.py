"""Composed rewards: arithmetic by hand, short cuts, parts that cannot grade, parts of this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from verifiers import BadOption, BadReference, GradingRow, Outcome, UnknownVerifier, Verdict, get_verifier
from verifiers.pool import GradingPool

FAULTY = f"{Path(__file__).parent / 'faulty.py'}:Faulty"
HERE = f"{Path(__file__).parent / 'batching.py'}:InProcess"
TAGS = {"verifier": "format", "options": {"tags": ["think", "answer"]}, "weight": 0.2}
RIGHT = "<think>it is 3</think><answer>3</answer>"


@pytest.mark.parametrize(
    ("completion", "reward", "outcome", "components"),
    [
        (RIGHT, 1.0, Outcome.CORRECT, {"exact": 1.0, "format": 1.0}),
        ("<answer>3</answer>", 0.8, Outcome.PARTIAL, {"exact": 1.0, "format": 0.0}),
        ("<think>x</think><answer>4</answer>", 0.2, Outcome.PARTIAL, {"exact": 0.0, "format": 1.0}),
        ("I will not say which it is.", 0.0, Outcome.INCORRECT, {"exact": 0.0, "format": 0.0}),
    ],
)
def test_weighted_sum(completion: str, reward: float, outcome: Outcome, components: dict[str, float]) -> None:
    made = get_verifier("weighted", parts=[{"verifier": "exact", "weight": 0.8}, TAGS])  # pyright: ignore
    verdict = made.verify(completion=completion, reference="3")
    assert (verdict.reward, verdict.outcome, verdict.components) == (pytest.approx(reward), outcome, components)


def test_penalties_leave_the_unit_interval() -> None:
    parts = [
        "exact",
        {"verifier": "repetition", "weight": -0.5, "name": "fresh"},
        {"verifier": "length", "options": {"soft": 1, "hard": 3}},
    ]
    verdict = get_verifier("weighted", parts=parts).verify(completion="a b #### 3", reference="3")  # pyright: ignore
    assert verdict.outcome is Outcome.SCORED or verdict.reward == pytest.approx(1 - 0.5 + 0)
    assert verdict.components == {"exact": 1.0, "fresh": 1.0, "length": 0.0}
    low = get_verifier("weighted", parts=[{"verifier": "exact", "weight": -2}])  # pyright: ignore
    below = low.verify(completion="#### 3", reference="3")
    assert (below.outcome, below.reward) == (Outcome.SCORED, -2.0)


def test_all_of_stops_at_the_first_zero_and_gates_hide_what_is_behind_them() -> None:
    both = get_verifier("all-of", parts=[TAGS | {"weight": 1}, "exact"])  # pyright: ignore
    assert both.verify(completion=RIGHT, reference="3").reward == 1
    shut = both.verify(completion="<answer>3</answer>", reference="3")
    assert (shut.reward, shut.components) == (0, {"format": 0.0})
    gate = get_verifier("gate", gate=TAGS, then="exact", closed=-1.0)  # pyright: ignore
    assert gate.verify(completion=RIGHT, reference="3").outcome is Outcome.CORRECT
    closed = gate.verify(completion="3", reference="3")
    assert (closed.reward, closed.components) == (-1.0, {"format": 0.0})


def test_a_part_that_cannot_grade_is_not_a_zero() -> None:
    made = get_verifier("weighted", parts=[TAGS, {"verifier": "numeric", "reference": "number"}])  # pyright: ignore
    verdict = made.verify(completion=RIGHT, reference={"number": "no number"})
    assert (verdict.outcome, verdict.reward) == (Outcome.BAD_REFERENCE, None)
    assert verdict.reason.startswith("numeric: reference must be a number")
    assert verdict.components == {"format": 1.0}
    assert made.verify(completion=RIGHT, reference={"number": 3}).reward == pytest.approx(1.2)
    with pytest.raises(BadReference, match="object with key 'number'"):
        made.check_reference("3")


@pytest.mark.parametrize("fault", ["raise", "segfault"])
def test_a_part_that_fails_is_named(fault: str) -> None:
    with GradingPool(workers=1) as pool:
        options = {"parts": ["exact", FAULTY]}
        verdict = pool.submit("weighted", options, GradingRow(completion=fault, reference="x")).result()  # pyright: ignore
    assert verdict.outcome is Outcome.VERIFIER_ERROR
    assert (f"part {FAULTY!r}: ValueError" if fault == "raise" else "SIGSEGV") in verdict.reason


def test_parts_of_this_process_are_graded_here_and_the_others_in_workers() -> None:
    parts = [{"verifier": HERE, "name": "here"}, {"verifier": FAULTY, "name": "there"}]
    with GradingPool(workers=1) as pool:
        good = pool.submit("weighted", {"parts": parts}, GradingRow(completion="good", reference="good")).result()  # pyright: ignore
        hung = pool.submit("weighted", {"parts": parts}, GradingRow(completion="hang", reference="good")).result()  # pyright: ignore
    assert good.components["there"] == 1.0
    assert good.components["here"] == 0.5
    assert hung.outcome is Outcome.VERIFIER_ERROR
    assert hung.reason.startswith("there: grading took longer than 1 s")
    assert hung.components == {"here": 0.5}


def test_a_verifier_per_row() -> None:
    choices = {"number": "numeric", "*": "exact"}
    made = get_verifier("per-row", key="kind", choices=choices)  # pyright: ignore
    given = [("1.50", "1.5", "number", 1), ("1.50", "1.5", "word", 0), ("1.5", "1.5", None, 1)]
    for answer, gold, kind, reward in given:
        info = {"kind": kind} if kind else {}
        assert made.verify(completion=f"#### {answer}", reference=gold, info=info).reward == reward  # pyright: ignore
    strict = get_verifier("per-row", key="kind", choices={"number": "numeric"})  # pyright: ignore
    odd: Verdict = strict.verify(completion="#### 1", reference="1", info={"kind": "x"})
    assert odd.outcome is Outcome.BAD_REFERENCE


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([], BadOption),
        ([3], BadOption),
        ([{"verifier": "exact", "wieght": 1}], BadOption),
        ([{"verifier": "exact", "weight": "1"}], BadOption),
        (["exact", "exact"], BadOption),
        (["no-such"], UnknownVerifier),
        ([{"verifier": "exact", "options": {"no_such": 1}}], BadOption),
    ],
)
def test_bad_parts_are_errors_at_once(parts: list[object], error: type[Exception]) -> None:
    with pytest.raises(error):
        get_verifier("weighted", parts=parts)  # pyright: ignore
