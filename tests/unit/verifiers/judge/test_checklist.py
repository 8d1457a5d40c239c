"""Several questions in one call, levels in both orders, one level for a whole rubric, and who said what in a chat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.verifiers import scripted_judge as scripted
from tests.unit.verifiers.scripted_judge import ScriptedJudge, Sent
from verifiers import BadOption, BadReference, GradingRow, Outcome, get_verifier
from verifiers.judge.questions import MAX_QUESTIONS
from verifiers.pool import GradingPool

THREE: Any = {"questions": ["Is it kind?", {"statement": "It thanks."}, {"question": "Is it long?"}]}


def judged(server: ScriptedJudge, folder: Path, **options: Any) -> dict[str, Any]:
    return {"verifier": "judge", "options": {"url": server.url, "model": "m", "cache": str(folder / "c"), **options}}


def make(server: ScriptedJudge, folder: Path, **options: Any) -> Any:
    return get_verifier("judge", **judged(server, folder, **options)["options"])


def test_a_checklist_is_one_call_with_an_answer_to_each_question(tmp_path: Path) -> None:
    with ScriptedJudge(lambda body, number: scripted.checklist(body, [1, 0, 1])) as server:
        judge = make(server, tmp_path)
        verdict = judge.verify(completion="Good day.", reference=THREE)
        (body,) = server.bodies
    assert verdict.reward == pytest.approx(2 / 3)
    assert [one["reward"] for one in verdict.detail["answers"]] == [1.0, 0.0, 1.0]
    assert [one["reason"] for one in verdict.detail["answers"]] == ["because 1", "because 2", "because 3"]
    assert body["max_tokens"] == 3 * 512
    schema = body["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == [
        "check",
        *(f"{key}_{number}" for number in (1, 2, 3) for key in ("evidence", "reason", "level")),
    ]
    assert schema["required"] == list(schema["properties"])
    assert schema["additionalProperties"] is False


def answers(body: scripted.Body, **change: Any) -> Sent:
    said = json.loads(json.loads(scripted.checklist(body, [1, 1, 1]).content)["choices"][0]["message"]["content"])
    kept = {key: held for key, held in {**said, **change}.items() if held is not None}
    return Sent(content=scripted.chat(json.dumps(kept)))


@pytest.mark.parametrize(
    "change",
    [
        {"level_2": None},
        {"level_3": 2},
        {"level_1": "1"},
        {"level_1": True},
        {"evidence_2": None},
        {"reason_3": 5},
        {"check": "another-word"},
    ],
    ids=str,
)
def test_one_answer_that_cannot_be_read_makes_the_whole_reply_unusable(change: dict[str, Any], tmp_path: Path) -> None:
    with ScriptedJudge(lambda body, number: answers(body, **change)) as server:
        verdict = make(server, tmp_path).verify(completion="Good day.", reference=THREE)
        assert len(server.bodies) == 2  # asked once more, then a fault
    assert (verdict.outcome, verdict.reward) == (Outcome.VERIFIER_ERROR, None)
    with ScriptedJudge(lambda body, number: answers(body, **(change if number == 1 else {}))) as server:
        assert make(server, tmp_path, model="n").verify(completion="Good day.", reference=THREE).reward == 1.0


def test_a_judge_that_follows_the_decoy_in_a_checklist_is_a_fault(tmp_path: Path) -> None:
    with ScriptedJudge(lambda body, n: scripted.checklist(body, [1, 1, 1], check=scripted.decoy_word(body))) as server:
        verdict = make(server, tmp_path).verify(completion="Good day.", reference=THREE)
    assert verdict.outcome is Outcome.VERIFIER_ERROR
    assert "Obeyed" in verdict.reason


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ({"questions": []}, "list of 1 to"),
        ({"questions": ["q"] * (MAX_QUESTIONS + 1)}, "list of 1 to"),
        ({"questions": ["q"], "question": "q"}, "the only key"),
        ({"questions": ["q", {"question": " "}]}, "non-empty"),
        ({"questions": "q"}, "list of 1 to"),
    ],
)
def test_a_bad_checklist_is_a_bad_reference(reference: Any, said: str, tmp_path: Path) -> None:
    with ScriptedJudge(lambda body, number: scripted.level(body, 1)) as server:
        judge = make(server, tmp_path)
        with pytest.raises(BadReference, match=said):
            judge.check_reference(reference)
        assert judge.verify(completion="a", reference=reference).outcome is Outcome.BAD_REFERENCE
        assert server.bodies == []


CRITERIA: Any = [
    {"name": "a", "judged": {"statement": "fact 1"}, "points": 5},
    {"name": "short", "length": {"max": 5}, "points": 1},
    {"name": "b", "judged": {"statement": "fact 2"}, "points": 3},
    {"name": "c", "judged": {"statement": "fault 1"}, "points": -4},
]


@pytest.mark.parametrize(("per_call", "calls"), [(1, 3), (2, 2), (3, 1), (50, 1)])
def test_calls_hold_as_many_criteria_as_they_may_and_say_the_same(per_call: int, calls: int, tmp_path: Path) -> None:
    script = scripted.by_statement(lambda said: said in ("fact 1", "fault 1"))
    row = GradingRow(completion="Some facts.", reference=CRITERIA)
    with ScriptedJudge(script) as server, GradingPool(workers=1) as pool:
        options = {"judge": judged(server, tmp_path), "criteria_per_call": per_call}
        here = get_verifier("rubric", **options).verify(completion=row.completion, reference=row.reference)
        pooled = pool.submit("rubric", options, row).result()
        assert len(server.bodies) == calls  # the pool's answers come from the cache
    for verdict in (here, pooled):
        assert verdict.reward == pytest.approx((5 + 1 - 4) / 9)
        assert verdict.components == {"a": 1, "short": 1, "b": 0, "c": 1}
        assert list(verdict.detail["criteria"]) == ["a", "short", "b", "c"]  # type: ignore[arg-type]


def test_a_fault_of_the_call_is_a_fault_of_each_criterion_and_their_fallbacks_decide(tmp_path: Path) -> None:
    criteria = [
        {"name": "a", "judged": "q1", "fallback": {"contains": "x"}},
        {"name": "b", "judged": "q2", "fallback": {"contains": "y"}},
    ]
    with ScriptedJudge(lambda body, number: Sent(status=404, content="gone")) as server:
        rubric = get_verifier("rubric", judge=judged(server, tmp_path), criteria_per_call=2)
        assert rubric.verify(completion="x", reference=criteria).reward == 0.5
        bare = [{"name": one["name"], "judged": one["judged"]} for one in criteria]
        assert rubric.verify(completion="x", reference=bare).outcome is Outcome.VERIFIER_ERROR  # type: ignore[arg-type]
        assert rubric.verify(completion="<think>x</think>", reference=bare).reward == 0.0  # type: ignore[arg-type]


def test_a_jury_pools_each_answer_of_a_checklist_by_itself(tmp_path: Path) -> None:
    says = {"one": [1, 1], "two": [1, 0], "three": [0, 0]}

    def script(body: scripted.Body, number: int) -> Sent:
        return scripted.checklist(body, says[body["model"]])

    with ScriptedJudge(script) as server:
        judges = [judged(server, tmp_path, model=name) | {"name": name} for name in says]
        jury = {"verifier": "jury", "options": {"judges": judges, "pool": "median"}}
        rubric = get_verifier("rubric", judge=jury, criteria_per_call=5)
        criteria: Any = [{"name": "a", "judged": "q1", "weight": 3}, {"name": "b", "judged": "q2"}]
        verdict = rubric.verify(completion="text", reference=criteria)
        assert len(server.bodies) == 3
    assert verdict.components == {"a": 1.0, "b": 0.0}
    assert verdict.reward == 0.75
    assert verdict.detail["criteria"]["a"]["disagreement"] == 1.0  # type: ignore[index, call-overload]


def test_levels_in_both_orders_are_two_votes(tmp_path: Path) -> None:
    """A judge that always takes the level that is listed first says 1, then 5: a mean of one half."""

    def first_listed(body: scripted.Body, number: int) -> Sent:
        listed = scripted.said_to(body).split("The levels:\n")[1]
        return scripted.level(body, int(listed.strip()[0]))

    levels = [{"level": at, "description": f"grade {at}"} for at in range(1, 6)]
    with ScriptedJudge(first_listed) as server:
        verdict = make(server, tmp_path, orders=2).verify(
            completion="text", reference={"question": "Good?", "levels": levels}
        )
        assert len(server.bodies) == 2
    assert verdict.reward == 0.5
    assert verdict.detail["levels"] == [1, 5]
    with ScriptedJudge(lambda body, number: scripted.level(body, 4)) as server:
        steady = make(server, tmp_path, model="n", orders=2, repeats=2, temperature=1.0)
        assert steady.verify(completion="text", reference={"question": "Good?", "levels": levels}).reward == 0.75
        assert len(server.bodies) == 4
    with pytest.raises(BadOption, match="orders must be 1 or 2"):
        get_verifier("judge", url="http://127.0.0.1:1/v1", model="m", orders=3)


def test_an_implicit_aggregate_is_one_level_for_the_whole_rubric(tmp_path: Path) -> None:
    criteria: Any = [
        {"name": "a", "judged": {"statement": "It says to cool the burn."}, "points": 5},
        {"name": "b", "judged": {"statement": "It recommends butter."}, "points": -1},
    ]
    with ScriptedJudge(lambda body, number: scripted.level(body, 6)) as server:
        rubric = get_verifier("rubric", judge=judged(server, tmp_path), aggregate="implicit")
        verdict = rubric.verify(completion="Cool it.", reference=criteria)
        (body,) = server.bodies
        assert (verdict.reward, verdict.components) == (pytest.approx(6 / 9), {"overall": pytest.approx(6 / 9)})
        said = scripted.said_to(body)
        assert "1. (weight 5) It says to cool the burn." in said
        assert "2. (weight -1) It recommends butter." in said
        for more in ({"gate": True}, {"fallback": {"contains": "x"}}):
            with pytest.raises(BadReference, match="aggregate implicit"):
                rubric.check_reference([{"judged": "q", **more}])
        with pytest.raises(BadReference, match="aggregate implicit"):
            rubric.check_reference([{"contains": "q"}])


def test_a_chat_of_several_turns_is_shown_with_who_says_what(tmp_path: Path) -> None:
    turns: Any = [
        {"role": "user", "content": "I burnt my hand."},
        {"role": "assistant", "content": "How badly?"},
        {"role": "user", "content": "A blister."},
    ]
    with ScriptedJudge(lambda body, number: scripted.level(body, 1)) as server:
        judge = make(server, tmp_path)
        plain = "\n".join(turn["content"] for turn in turns)
        judge.verify(completion="Cool it.", reference="Is it right?", prompt=plain, info={"messages": turns})
        judge.verify(completion="Cool it.", reference="Is it right?", prompt="one", info={"messages": turns[:1]})
        first, second = server.bodies
    assert scripted.data_of(first, "prompt") == "user: I burnt my hand.\n\nassistant: How badly?\n\nuser: A blister."
    assert scripted.data_of(second, "prompt") == "one"
