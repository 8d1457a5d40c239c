from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.verifiers import scripted_judge as scripted
from tests.unit.verifiers.scripted_judge import ScriptedJudge, Sent
from verifiers import BadOption, BadReference, GradingRow, Outcome, get_verifier
from verifiers.judge.prompts import grading_prompt
from verifiers.judge.questions import Question, from_score_rubric
from verifiers.pool import GradingPool, GradingRequest
from verifiers.rubric import parse_rubric, rubric_json

POINT: Any = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}


def grade(criterion: dict[str, Any], completion: str, prompt: str | None = None) -> Any:
    return get_verifier("rubric").verify(completion=completion, reference=[criterion], prompt=prompt)


@pytest.mark.parametrize(
    ("criterion", "completion", "reward"),
    [
        ({"contains": "Eiffel Tower"}, "the Eiffel\n Tower", 1),
        ({"contains": "Eiffel"}, "<think>Eiffel</think> none", 0),
        ({"contains": {"all": ["a1", "b1", "c1", "d1"]}}, "d1 a1 b1", 0.75),
        ({"contains": {"any": ["x1", "y1"]}}, "has y1", 1),
        ({"contains": {"any": ["x1", "y1"]}}, "has z1", 0),
        ({"contains": {"all": ["a1"], "none": ["sorry"], "ignore_case": True}}, "A1. Sorry!", 0),
        ({"contains": {"none": ["sorry"]}}, "Sorry!", 1),
        ({"regex": r"^\d+$"}, "see\n42\n", 1),
        ({"regex": {"pattern": r"\bvery\b", "most": 1}}, "very very good", 0),
        ({"regex": {"pattern": r"\bvery\b", "most": 0}}, "good", 1),
        ({"regex": {"pattern": "-", "least": 3, "most": 4}}, "- - -", 1),
        ({"length": {"min": 2, "max": 3}}, "one two three", 1),
        ({"length": {"min": 2, "max": 3}}, "one two three four", 0),
        ({"length": {"unit": "characters", "max": 3}}, " abc ", 1),
        ({"length": {"unit": "lines", "min": 2}}, "a", 0),
        ({"json_schema": POINT}, '```json\n{"x": 1}\n```', 1),
        ({"json_schema": POINT}, '{"x": "1"}', 0),
        ({"math": "1/2"}, "So \\boxed{0.5}.", 1),
        ({"math": "1/2"}, "So \\boxed{0.6}.", 0),
        ({"citation": {"min": 1}}, "It says “the cat sat down”.", 1),
        ({"citation": {"min": 2}}, "It says “the cat sat down”.", 0),
        ({"citation": {"min": 1}}, 'It says "the cat sat" and "the dog ran off".', 0),
        ({"citation": {"min": 1, "words": 2}}, 'It says "cat".', 0),
    ],
)
def test_what_programs_decide(criterion: dict[str, Any], completion: str, reward: float) -> None:
    verdict = grade(criterion, completion, prompt="Yesterday the cat\nsat down.")
    assert verdict.reward == reward, verdict
    (detail,) = verdict.detail["criteria"].values()
    assert detail["reason"]


def test_weights_gates_and_components_by_hand() -> None:
    rubric: Any = [
        {"name": "town", "contains": {"all": ["Paris", "Lyon"]}, "weight": 2},
        {"name": "year", "regex": r"\b1889\b"},
        {"name": "polite", "contains": {"none": ["stupid"]}, "gate": True, "weight": 0},
    ]
    verifier = get_verifier("rubric", rubric=rubric)
    verdict = verifier.verify(completion="Paris, 1889", reference=None)
    assert verdict.reward == pytest.approx((2 * 0.5 + 1 * 1) / 3)
    assert verdict.components == {"town": 0.5, "year": 1.0, "polite": 1.0}
    assert verdict.detail["criteria"]["year"]["evidence"] == "1889"  # type: ignore[index, call-overload]
    shut = verifier.verify(completion="Paris, Lyon, 1889, stupid", reference=None)
    assert (shut.outcome, shut.reward) == (Outcome.INCORRECT, 0)
    assert "gate polite is not met" in shut.reason
    assert shut.components["town"] == 1.0  # still shown


@pytest.mark.parametrize(
    ("rubric", "said"),
    [
        ([], "1 to 1000"),
        ([{"contains": "a", "regex": "b"}], "exactly one"),
        ([{"weight": 1}], "exactly one"),
        ([{"contain": "a"}], "unknown key 'contain'"),
        ([{"regex": "("}], "regular expression"),
        ([{"contains": "a", "weight": -1}], "weight"),
        ([{"contains": "a", "weight": 0}], "weight or points above 0"),
        ([{"contains": "a", "name": "n"}, {"contains": "b", "name": "n"}], "is used twice"),
        ([{"length": {}}], "min or max"),
        ([{"contains": "a", "fallback": {"regex": "b"}}], "judged"),
        ([{"judged": "q", "fallback": {"judged": "b"}}], "fallback must have"),
        ([{"judged": {"question": "q", "levels": [{"level": 1, "description": "d"}]}}], "2 to 10"),
        ([{"judged": "Is it good?"}], "none is set"),
        ([{"json_schema": {"type": "nonsense"}}], "JSON schema"),
        ([{"math": ""}], "reference"),
        ("text", "a rubric must be"),
    ],
)
def test_bad_rubrics_are_refused_at_load_and_never_graded(rubric: Any, said: str) -> None:
    verifier = get_verifier("rubric")
    with pytest.raises(BadReference, match=said):
        verifier.check_reference(rubric)
    verdict = verifier.verify(completion="a", reference=rubric)
    assert verdict.outcome is Outcome.BAD_REFERENCE
    assert verdict.reward is None
    with pytest.raises(BadOption):
        get_verifier("rubric", rubric=rubric if isinstance(rubric, list) else [rubric])
    with GradingPool(workers=1) as pool:  # in the pool too, it is a verdict
        assert pool.submit("rubric", {}, GradingRow(completion="a", reference=rubric)).result().reward is None


def test_a_rubric_file(tmp_path: Path) -> None:
    file = tmp_path / "rubric.yaml"
    file.write_text("criteria:\n  - contains: Paris\n  - {judged: 'Is it kind?', weight: 2}\n")
    with pytest.raises(BadOption, match="needs a judge, and none is set"):
        get_verifier("rubric", rubric=str(file))
    with pytest.raises(BadOption, match="missing"):
        get_verifier("rubric", rubric=str(tmp_path / "missing.yaml"))


def judged(server: ScriptedJudge, where: Path, **options: Any) -> dict[str, Any]:
    given = {"url": server.url, "model": "m", "cache": str(where / "cache"), "seconds": 5.0}
    return {"verifier": "judge", "options": given | options}


KIND: Any = [
    {"name": "kind", "judged": {"question": "Is it kind?"}, "weight": 3, "fallback": {"contains": "please"}},
    {"name": "clear", "judged": "Is it clear?"},
    {"name": "short", "length": {"max": 5}},
]


def test_judged_and_checked_criteria_through_the_pool(tmp_path: Path) -> None:
    def script(body: scripted.Body, number: int) -> Sent:
        return scripted.level(body, int("Is it kind?" in scripted.said_to(body)), evidence="row", reason="so")

    with ScriptedJudge(script) as server, GradingPool(workers=1) as pool:
        options = {"judge": judged(server, tmp_path)}
        rows = [GradingRow(completion=f"row {at}", reference=KIND) for at in range(20)]
        verdicts = list(pool.grade(GradingRequest("rubric", row, options) for row in rows))
        direct = get_verifier("rubric", **options).verify_batch(rows)
        assert len(server.bodies) == 40  # two judged criteria a row, asked once
    assert {v.reward for v in verdicts} == {(3 + 0 + 1) / 5}
    assert [v.reward for v in direct] == [v.reward for v in verdicts]
    assert verdicts[0].components == {"kind": 1.0, "clear": 0.0, "short": 1.0}
    kind: Any = verdicts[0].detail["criteria"]["kind"]  # type: ignore[index, call-overload]
    assert (kind["evidence"], kind["quoted"], kind["reason"], kind["level"]) == ("row", True, "so", 1)


def test_a_judge_that_is_away_leaves_the_fall_back_or_a_fault_never_a_zero(tmp_path: Path) -> None:
    def script(body: scripted.Body, number: int) -> Sent:
        away = "Is it kind?" in scripted.said_to(body)
        return Sent(status=400, content="no") if away else scripted.level(body, 1)

    with ScriptedJudge(script) as server:
        verifier = get_verifier("rubric", judge=judged(server, tmp_path))
        verdict = verifier.verify(completion="please", reference=KIND)
        assert verdict.reward == 1.0
        kind: Any = verdict.detail["criteria"]["kind"]  # type: ignore[index, call-overload]
        assert "400" in kind["instead_of"]
        plain: Any = [{key: value for key, value in KIND[0].items() if key != "fallback"}, *KIND[1:]]
        fault = verifier.verify(completion="please", reference=plain)
        assert fault.outcome is Outcome.VERIFIER_ERROR
        assert fault.reward is None
        assert fault.reason.startswith("kind: ")
        shut: Any = [*plain, {"name": "must", "contains": "thanks", "gate": True}]
        assert verifier.verify(completion="please", reference=shut).reward == 0  # the gate decides, judge or not


def test_a_jury_pools_names_its_disagreement_and_needs_a_quorum(tmp_path: Path) -> None:
    levels = {"one": 1, "two": 0, "three": 1}

    def script(body: scripted.Body, number: int) -> Sent:
        at = levels.get(body["model"])
        return Sent(status=404, content="gone") if at is None else scripted.level(body, at, reason=body["model"])

    with ScriptedJudge(script) as server, GradingPool(workers=1) as pool:

        def options(*models: str, **more: Any) -> dict[str, Any]:
            return {"judges": [judged(server, tmp_path, model=m) | {"name": m} for m in models], **more}

        row = GradingRow(completion="text", reference={"question": "Is it kind?"})
        mean = pool.submit("jury", options("one", "two", "three"), row).result()
        assert mean.reward == pytest.approx(2 / 3)
        assert mean.detail["disagreement"] == 1
        assert mean.components == {"one": 1, "two": 0, "three": 1}
        assert pool.submit("jury", options("one", "two", "three", pool="median"), row).result().reward == 1
        assert pool.submit("jury", options("one", "gone", "three"), row).result().reward == 1
        lost = pool.submit("jury", options("one", "gone", "away"), row).result()
        assert lost.outcome is Outcome.VERIFIER_ERROR
        assert "1 of 3 judges answered" in lost.reason
        whole = {"judge": {"verifier": "jury", "options": options("one", "two")}}  # a jury decides criteria, too
        assert (
            pool.submit("rubric", whole, GradingRow(completion="t", reference=[{"judged": "q"}])).result().reward == 0.5
        )


def test_criteria_round_trip() -> None:
    once = parse_rubric(KIND)
    assert parse_rubric(rubric_json(once)) == once
    question = Question.from_json(
        {
            "question": "q",
            "levels": [
                {"level": 2, "description": "b", "reward": 0.9},
                {"level": 0, "description": "a", "reward": 0.1},
            ],
        }
    )
    assert question.reward_of(2) == 0.9
    assert Question.from_json(question.to_json()) == question


def test_all_rubrics_of_biggen_bench_load_render_and_round_trip() -> None:
    root = os.environ.get("REASONER_DATA_DIR")
    if not root:
        pytest.skip("set REASONER_DATA_DIR to the folder that holds rubric/biggen_bench_tasks.jsonl.gz")
    with gzip.open(Path(root) / "rubric" / "biggen_bench_tasks.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 765
    for row in rows:
        question = from_score_rubric(row["score_rubric"], reference_answer=row["reference_answer"])
        levels = {f"score{level.level}_description": level.description for level in question.levels}
        assert {"criteria": question.question, **levels} == row["score_rubric"]
        criteria = parse_rubric([{"name": row["id"], "judged": question.to_json()}])
        again = parse_rubric(json.loads(json.dumps(rubric_json(criteria))))
        assert again == criteria
        assert Question.from_json(again[0].spec) == question
        assert [level.reward for level in question.levels] == [0, 0.25, 0.5, 0.75, 1]
        prompt = grading_prompt(question=question, completion="An answer.", prompt=row["input"], canary=True)
        said = prompt.turns[1].content
        assert question.question in said
        assert all(f"  {level.level}: {level.description}" in said for level in question.levels)
