from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reasoner.monitoring.judging import judge_metrics, usage_of, votes_in
from reasoner.records import Completion, FinishReason, Rollout, RolloutGroup, Segment
from tasks import Problem
from tests.unit.verifiers import scripted_judge as scripted
from tests.unit.verifiers.scripted_judge import ScriptedJudge, Sent
from verifiers import GradingRow, Verdict, get_verifier
from verifiers.judge.budget import Usage
from verifiers.pool import GradingPool


def group(*verdicts: Verdict) -> RolloutGroup:
    problem = Problem(id="1", prompt="p", reference="1", verifier="v")
    completion = Completion(
        text="",
        token_ids=(0,),
        rollout_logprobs=(0.0,),
        loss_mask=(True,),
        segments=(Segment(start=0, end=1, origin="policy"),),
        finish_reason=FinishReason.STOP,
        policy_version=0,
    )
    rollouts = [
        Rollout(
            problem=problem,
            prompt_text="p",
            prompt_ids=(1,),
            completion=completion,
            verdict=verdict,
            sample_index=at,
            step=1,
        )
        for at, verdict in enumerate(verdicts)
    ]
    return RolloutGroup(problem=problem, rollouts=tuple(rollouts))


@pytest.mark.parametrize(
    ("detail", "votes"),
    [
        ({"level": 1}, []),
        ({"level": 1, "levels": [1, 2]}, [[1, 2]]),
        ({"judges": {"a": {"reward": 1.0}, "b": {"reward": 0.0}}}, [[1, 0]]),
        ({"judges": {"a": {"reward": 1.0}, "b": {"reward": None}}}, []),  # one vote is no disagreement
        ({"criteria": {"x": {"levels": [0, 0]}, "y": {"reward": 1}}}, [[0, 0]]),
        ({"answers": [{"levels": [0, 1]}, {"levels": [1, 1]}]}, [[0, 1], [1, 1]]),
        ({"judged": {"kind": {"criteria": {"x": {"levels": [1, 1]}}}}}, [[1, 1]]),
        ({"parts": {"math": "right"}}, []),
    ],
)
def test_votes_are_found_wherever_a_verdict_keeps_them(detail: Any, votes: list[list[float]]) -> None:
    assert [*votes_in(detail)] == votes


def test_calls_cache_tokens_and_agreement_of_a_step(tmp_path: Path) -> None:
    def script(body: scripted.Body, number: int) -> Sent:
        kind = "kind" in scripted.data_of(body) and body["seed"] == 0
        return scripted.level(body, int(kind))  # the two votes on a kind text differ

    rubric: Any = [{"name": "x", "contains": "x"}, {"name": "kind", "judged": "Is it kind?"}]
    with ScriptedJudge(script) as server, GradingPool(workers=1) as pool:
        judge: dict[str, Any] = {"url": server.url, "model": "m", "cache": str(tmp_path / "c")}
        judge |= {"repeats": 2, "temperature": 1.0, "prompt_price": 10.0, "completion_price": 50.0}
        options: dict[str, Any] = {"rubric": rubric, "judge": {"verifier": "judge", "options": judge}}
        before = usage_of(pool.made_here)
        assert before == Usage()
        texts = ("x kind", "x rude", "x rude")
        rows = [GradingRow(completion=text, reference=None) for text in texts]
        verdicts = [pool.submit("rubric", options, row).result() for row in rows]
        found = judge_metrics([group(*verdicts)], before, usage_of(pool.made_here))
    assert found["judge/calls"] == 4
    assert found["judge/cached"] == 2
    assert found["judge/tokens"] == 4 * 120
    assert found["judge/cost"] == pytest.approx(4 * (100 * 10 + 20 * 50) / 1e6)
    assert found["judge/faults"] == 0
    assert found["judge/agreement"] == pytest.approx(2 / 3)


def test_nothing_is_said_where_nobody_judged() -> None:
    verdict = get_verifier("exact").verify(completion="1", reference="1")
    assert judge_metrics([group(verdict)], Usage(), Usage()) == {}


def test_votes_of_a_rubric_inside_a_weighted_sum_are_kept(tmp_path: Path) -> None:
    with ScriptedJudge(lambda body, number: scripted.level(body, body["seed"])) as server:
        judge: dict[str, Any] = {"url": server.url, "model": "m", "cache": str(tmp_path / "c"), "repeats": 2}
        judge["temperature"] = 1.0
        rubric = {"rubric": [{"judged": "Is it kind?"}], "judge": {"verifier": "judge", "options": judge}}
        parts: Any = [{"verifier": "exact", "weight": 0.5}, {"verifier": "rubric", "weight": 0.5, "options": rubric}]
        verdict = get_verifier("weighted", parts=parts).verify(completion="1", reference="1")
    assert [*votes_in(verdict.detail)] == [[0.0, 1.0]]
    assert verdict.reward == 0.75
