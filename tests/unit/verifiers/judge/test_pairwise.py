"""Pairs judged in both orders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.verifiers import scripted_judge as scripted
from tests.unit.verifiers.scripted_judge import ScriptedJudge, Sent
from verifiers.judge.errors import JudgeFault
from verifiers.judge.pairwise import PairQuestion, Preference, compare_pairs
from verifiers.judge.verifier import Judge


def make(server: ScriptedJudge, where: Path, **options: Any) -> Judge:
    return Judge(**({"url": server.url, "model": "m", "cache": str(where / "cache"), "seconds": 5.0} | options))


PAIR = PairQuestion("Which is longer?", "a", "aaa", "Write.")


def longer(body: scripted.Body, number: int) -> Sent:
    first, second = (len(scripted.data_of(body, name)) for name in ("first", "second"))
    return scripted.better(body, 1 if first > second else 2 if second > first else 0)


def test_a_pair_is_asked_in_both_orders(tmp_path: Path) -> None:
    with ScriptedJudge(longer) as server:
        found = compare_pairs(make(server, tmp_path), [PAIR, PAIR._replace(first="bbb"), PAIR._replace(first="cccc")])
    assert [one.better for one in found if isinstance(one, Preference)] == ["second", "tie", "first"]
    assert [one.probability for one in found if isinstance(one, Preference)] == [0.0, 0.5, 1.0]
    assert all(isinstance(one, Preference) and one.consistent for one in found)
    assert len(server.bodies) == 6


def test_a_judge_that_loves_the_first_place_prefers_nothing(tmp_path: Path) -> None:
    with ScriptedJudge(lambda body, number: scripted.better(body, 1)) as server, ScriptedJudge(longer) as other:
        judge = make(server, tmp_path)
        (tie,) = compare_pairs(judge, [PAIR])
        (decided,) = compare_pairs(judge, [PAIR], third=make(other, tmp_path, model="other"))
    assert isinstance(tie, Preference)
    assert (tie.better, tie.sides, tie.probability, tie.consistent) == ("tie", ("first", "second"), 0.5, False)
    assert isinstance(decided, Preference)
    assert (decided.better, decided.sides) == ("second", ("first", "second", "second"))


def test_probabilities_of_a_pair_and_faults(tmp_path: Path) -> None:
    def script(body: scripted.Body, number: int) -> Sent:
        if scripted.data_of(body, "first") == "a":
            return scripted.with_shares(body, {1: 0.6, 2: 0.3, 0: 0.1}, key="better")
        return scripted.with_shares(body, {1: 0.2, 2: 0.8}, key="better")

    with ScriptedJudge(script) as server:
        (found,) = compare_pairs(make(server, tmp_path, scores="expectation"), [PAIR])
    assert isinstance(found, Preference)
    assert found.probability == pytest.approx((0.65 + 0.8) / 2)
    with ScriptedJudge(lambda body, number: Sent(status=403)) as server:
        (fault,) = compare_pairs(make(server, tmp_path), [PAIR])
    assert isinstance(fault, JudgeFault)
