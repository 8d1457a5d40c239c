"""Points, penalties, groups and tags: ten rows in the public shapes with the sums worked by hand, and near misses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.inputs.formats import format_named
from tests.unit.verifiers import scripted_judge as scripted
from tests.unit.verifiers.scripted_judge import ScriptedJudge
from verifiers import BadOption, BadReference, Outcome, get_verifier
from verifiers.rubric import parse_rubric, rubric_json
from verifiers.rubric.criteria import MAX_CRITERIA


def health(*points: float) -> dict[str, Any]:
    """A row in HealthBench's shape: criterion k is 'states fact k'."""
    rubrics = [{"criterion": f"states fact {at}", "points": p, "tags": []} for at, p in enumerate(points, 1)]
    return {"prompt": [{"role": "user", "content": "What is known?"}], "rubrics": rubrics}


def reference(*rows: tuple[str, float]) -> dict[str, Any]:
    """A row in the shape of a reference rubric."""
    rubric = [{"title": f"t{at}", "description": said, "weight": w} for at, (said, w) in enumerate(rows, 1)]
    return {"question": "What is known?", "reference_answer": "Facts.", "rubric": rubric}


# format, row, what the judge finds true, and the reward by hand
BY_HAND: list[tuple[str, dict[str, Any], list[int], float, str]] = [
    ("healthbench", health(7, 5, 10), [1, 3], 17 / 22, "(7 + 10) / (7 + 5 + 10)"),
    ("healthbench", health(7, 5, 10, -6), [1, 3, 4], 11 / 22, "(7 + 10 - 6) / 22: -6 is not in the divisor"),
    ("healthbench", health(7, 5, 10, -6), [1, 2, 3], 1.0, "22 / 22: the fault is not there"),
    ("healthbench", health(4, 4, -9), [1, 3], 0.0, "(4 - 9) / 8 = -0.625, clipped to 0"),
    ("healthbench", health(3, -1, -1), [1, 2, 3], 1 / 3, "(3 - 1 - 1) / 3"),
    ("healthbench", health(2.5, 1.5, 0), [2, 3], 0.375, "(1.5 + 0) / 4"),
    ("healthbench", health(10), [], 0.0, "0 / 10"),
    (
        "reference_rubric",
        reference(
            ("Essential Criteria: states fact 1", 5),
            ("Important Criteria: states fact 2", 3),
            ("Optional Criteria: states fact 3", 1),
            ("Pitfall Criteria: Recommends fact 4", -1),
        ),
        [1, 3, 4],
        5 / 9,
        "(5 + 1 - 1) / (5 + 3 + 1)",
    ),
    (
        "reference_rubric",
        reference(("Essential Criteria: states fact 1", 5), ("Pitfall Criteria: Does not mention fact 2", -2)),
        [1, 2],
        3 / 5,
        "(5 - 2) / 5: the omission is true of the answer",
    ),
    (
        "reference_rubric",
        reference(("Essential Criteria: states fact 1", 5), ("Pitfall Criteria: Avoids claiming fact 2", -2)),
        [1, 2],
        1.0,
        "(5 + 2) / (5 + 2): in the words of its avoidance it is true of a good answer",
    ),
]


@pytest.mark.parametrize("per_call", [1, 20])
def test_ten_rows_by_hand_one_call_a_criterion_or_one_for_all(per_call: int, tmp_path: Path) -> None:
    assert len(BY_HAND) == 10
    for at, (name, row, true, reward, why) in enumerate(BY_HAND):
        read = format_named(name, "problems").read(row)
        facts = {f"fact {number}" for number in true}
        with ScriptedJudge(scripted.by_statement(lambda said, facts=facts: said[-6:] in facts)) as server:
            options = {"url": server.url, "model": "m", "cache": str(tmp_path / f"{at}-{per_call}")}
            rubric = get_verifier("rubric", judge={"verifier": "judge", "options": options}, criteria_per_call=per_call)
            rubric.check_references(read["reference"])  # type: ignore[arg-type]
            verdict = rubric.verify(completion="Some facts.", reference=read["reference"])  # type: ignore[arg-type]
            asked = len(server.bodies)
        assert verdict.reward == pytest.approx(reward), why
        criteria = len(row.get("rubrics") or row["rubric"])
        assert asked == (criteria if per_call == 1 else 1)
        assert len(verdict.detail["criteria"]) == criteria  # type: ignore[arg-type]


POINTS: Any = [
    {"name": "soup", "contains": "soup", "points": 7},
    {"name": "tea", "contains": "tea", "points": 3},
    {"name": "shouts", "contains": "!", "points": -5},
]


def grade(reference: Any, completion: str, **options: Any) -> Any:
    return get_verifier("rubric", **options).verify(completion=completion, reference=reference, prompt="p")


@pytest.mark.parametrize(
    ("completion", "earned", "reward", "unclipped"),
    [
        ("soup and tea", 10, 1.0, 1.0),
        ("soup and tea!", 5, 0.5, 0.5),
        ("tea!", -2, 0.0, -0.2),
        ("!", -5, 0.0, -0.5),
        ("", 0, 0.0, 0.0),
        ("soup", 7, 0.7, 0.7),
    ],
)
def test_points_are_shares_of_the_positive_ones_and_are_clipped_unless_told(
    completion: str, earned: float, reward: float, unclipped: float
) -> None:
    verdict = grade(POINTS, completion)
    assert verdict.reward == pytest.approx(reward)
    assert verdict.detail["points"] == {"earned": earned, "possible": 10, "reward": unclipped}
    open_ = grade(POINTS, completion, clip=False)
    assert open_.reward == pytest.approx(unclipped)
    assert (open_.outcome is Outcome.SCORED) == (unclipped < 0)


def test_weights_and_points_are_one_unit_and_a_penalty_is_taken_off_the_reward() -> None:
    mixed = [
        {"name": "a", "contains": "a1", "weight": 1},
        {"name": "b", "contains": "b1", "points": 3},
        {"name": "rude", "contains": "!", "penalty": 0.25},
    ]
    assert grade(mixed, "a1").reward == 0.25  # 1 / 4
    assert grade(mixed, "a1 b1!").reward == 0.75  # 4 / 4 - 0.25
    assert grade(mixed, "a1!").reward == 0.0  # 1 / 4 - 0.25
    assert grade(mixed, "!").detail["points"]["reward"] == -0.25
    deductions = [{"contains": "!", "penalty": 0.5}, {"contains": "?", "penalty": 0.75}]
    assert [grade(deductions, text).reward for text in ("fine", "fine!", "fine!?")] == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("by", "completion", "reward"),
    [
        ("all", "x", 0.5),  # the group gives 0, the other weight 2 of 4
        ("all", "x p q", 1.0),
        ("all", "x p", 0.5),
        ("any", "x p", 1.0),
        ("any", "x", 0.5),
        ("points", "x p", 0.75),  # (2 + 2 * 1/2) / 4
    ],
)
def test_a_group_counts_as_one_criterion(by: str, completion: str, reward: float) -> None:
    members = [{"name": "p", "contains": "p"}, {"name": "q", "contains": "q"}]
    rubric = [
        {"name": "x", "contains": "x", "weight": 2},
        {"name": "g", "weight": 2, "group": {"by": by, "criteria": members}},
    ]
    verdict = grade(rubric, completion)
    assert verdict.reward == pytest.approx(reward)
    assert set(verdict.detail["criteria"]) == {"x", "g", "g/p", "g/q"}
    assert set(verdict.components) == {"x", "g"}


def test_a_group_has_its_own_deductions_and_can_be_a_gate() -> None:
    inner = [{"name": "p", "contains": "p", "points": 4}, {"name": "bad", "contains": "!", "points": -6}]
    rubric = [
        {"name": "x", "contains": "x", "weight": 3},
        {"name": "g", "weight": 1, "group": {"criteria": inner}},
    ]
    assert grade(rubric, "x p").reward == 1.0
    assert grade(rubric, "x p!").reward == 0.75  # the group is clipped at 0: what it costs stays inside it
    gate = [rubric[0], {"name": "g", "gate": True, "threshold": 0.5, "group": {"criteria": inner}}]
    shut = grade(gate, "x p!")
    assert (shut.outcome, shut.reward) == (Outcome.INCORRECT, 0)
    assert "gate g is not met" in shut.reason


def test_tags_have_shares_of_their_own_which_become_the_components() -> None:
    rubric = [
        {"name": "a", "contains": "a1", "points": 6, "tags": ["axis:accuracy"]},
        {"name": "b", "contains": "b1", "points": 2, "tags": ["axis:accuracy", "axis:style"]},
        {"name": "c", "contains": "!", "points": -4, "tags": ["axis:accuracy", "axis:faults"]},
    ]
    verdict = grade(rubric, "b1!")
    assert verdict.reward == 0.0
    # accuracy (2 - 4) / 8; style 2 / 2; faults has nothing to earn
    assert verdict.components == {"axis:accuracy": -0.25, "axis:style": 1.0}


def test_a_text_too_long_to_be_judged_does_not_escape_a_deduction(tmp_path: Path) -> None:
    rubric = [{"name": "a", "contains": "a1", "points": 4}, {"name": "rude", "judged": "Is it rude?", "points": -4}]
    with ScriptedJudge(lambda body, number: scripted.level(body, 0)) as server:
        options = {"url": server.url, "model": "m", "cache": str(tmp_path / "c"), "max_characters": 50}
        judge = {"verifier": "judge", "options": options}
        assert grade(rubric, "a1", judge=judge).reward == 1.0
        long = grade(rubric, "a1 " * 30, judge=judge)
    assert long.reward == 0.0
    assert long.detail["criteria"]["rude"]["outcome"] == "limit_exceeded"
    praised = [rubric[0], {"name": "kind", "judged": "Is it kind?", "points": 4}]
    with ScriptedJudge(lambda body, number: scripted.level(body, 1)) as server:
        judge = {"verifier": "judge", "options": {**options, "url": server.url}}
        assert grade(praised, "a1 " * 30, judge=judge).reward == 0.5  # nor does it earn what it was not judged for


def test_a_fault_in_a_group_leaves_the_rubric_ungraded_unless_a_fallback_decides(tmp_path: Path) -> None:
    def rubric(**more: Any) -> list[Any]:
        judged = {"name": "kind", "judged": "Is it kind?", **more}
        return [{"name": "g", "group": {"by": "all", "criteria": [judged, {"name": "x", "contains": "x"}]}}]

    with ScriptedJudge(lambda body, number: scripted.Sent(status=404, content="gone")) as server:
        judge = {"verifier": "judge", "options": {"url": server.url, "model": "m", "cache": str(tmp_path / "c")}}
        lost = grade(rubric(), "x please", judge=judge)
        assert (lost.outcome, lost.reward) == (Outcome.VERIFIER_ERROR, None)
        saved = grade(rubric(fallback={"contains": "please"}), "x please", judge=judge)
        assert saved.reward == 1.0
        assert "instead_of" in saved.detail["criteria"]["g/kind"]
        unsaved = grade(rubric(fallback={"contains": "please"}), "x", judge=judge)
        assert unsaved.reward == 0.0


@pytest.mark.parametrize(
    ("rubric", "said"),
    [
        ([{"contains": "a", "points": -1}], "negative points are divided by their sum"),
        ([{"contains": "a", "points": 0}], "weight or points above 0"),
        ([{"contains": "a", "weight": 1, "points": 1}], "one of weight, points, penalty"),
        ([{"contains": "a", "weight": -1}], "For a deduction set negative points"),
        ([{"contains": "a", "points": True}], "points must be a number"),
        ([{"contains": "a", "points": "3"}], "points must be a number"),
        ([{"contains": "a", "points": float("inf")}], "points must be a number"),
        ([{"contains": "a"}, {"contains": "b", "penalty": 0}], "penalty must be a number"),
        ([{"contains": "a", "gate": True, "points": -1}], "no negative points and no penalty"),
        ([{"contains": "a", "gate": True, "penalty": 1}], "no negative points and no penalty"),
        ([{"contains": "a", "tags": "axis"}], "tags must be a list"),
        ([{"group": {"criteria": []}}], "1 to 1000 criteria"),
        ([{"group": {"criteria": [{"contains": "a"}], "by": "most"}}], "by must be one of"),
        ([{"group": {"criteria": [{"contains": "a", "gate": True}]}}], "must not be inside a group"),
        ([{"group": {"criteria": [{"contains": "a", "penalty": 1}]}}], "must not be inside a group"),
        ([{"group": {"criteria": [{"group": {"criteria": [{"contains": "a"}]}}]}}], "must not be inside a group"),
        ([{"group": {"by": "any", "criteria": [{"contains": "a", "points": 2}]}}], "all count the same"),
        ([{"group": {"criteria": [{"contains": "a", "points": -2}]}}], "negative points"),
        ([{"group": {"criteria": [{"contains": "a", "name": "n"}] * 2}}], "is used twice"),
        (
            [{"name": "g/n", "contains": "a"}, {"name": "g", "group": {"criteria": [{"name": "n", "contains": "b"}]}}],
            "g/n",
        ),
        ([{"judged": {"statement": ""}}], "statement must be a non-empty string"),
        ([{"judged": {"statement": "s", "question": "q"}}], "no question and no levels"),
        ([{"judged": {"statement": "s", "levels": []}}], "no question and no levels"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(rubric: Any, said: str) -> None:
    with pytest.raises(BadReference, match=said):
        parse_rubric(rubric)


def test_a_rubric_may_have_a_thousand_criteria_and_no_more() -> None:
    many = [{"name": f"c{at}", "contains": f"<{at}>", "points": 1} for at in range(MAX_CRITERIA)]
    verdict = grade(many, "".join(f"<{at}>" for at in range(0, MAX_CRITERIA, 4)))
    assert verdict.reward == 0.25
    with pytest.raises(BadReference, match="1 to 1000"):
        parse_rubric([*many, {"contains": "x"}])
    with pytest.raises(BadReference, match="at most 1000"):
        parse_rubric([*many[:999], {"name": "g", "group": {"criteria": many[:2]}}])


def test_every_field_survives_a_round_trip() -> None:
    rubric: Any = [
        *POINTS,
        {"name": "s", "judged": {"statement": "It is kind."}, "points": 2, "tags": ["axis:style"]},
        {"name": "g", "weight": 2, "group": {"by": "any", "criteria": [{"name": "m", "contains": "m"}]}},
        {"name": "h", "group": {"criteria": [{"contains": "m", "points": 2}, {"contains": "n", "points": -1}]}},
        {"name": "p", "contains": "p", "penalty": 0.5},
    ]
    once = parse_rubric(rubric)
    assert parse_rubric(rubric_json(once)) == once
    assert [one.value for one in once] == [7, 3, -5, 2, 2, 1, 0]


def test_options_out_of_range_are_refused() -> None:
    for options in ({"criteria_per_call": 0}, {"criteria_per_call": 51}, {"aggregate": "sum"}):
        with pytest.raises(BadOption, match="must be"):
            get_verifier("rubric", **options)
