"""Pass rates: numbers by hand, and draws that follow them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reasoner.config.errors import ConfigError
from reasoner.data.difficulty import Difficulty, DifficultySampler, problem_key
from reasoner.data.sampler import Mixture, ProblemSampler
from reasoner.records import Completion, FinishReason, Problem, Rollout
from verifiers import Outcome, Verdict


def problems(count: int, *, task: str = "t") -> list[Problem]:
    return [Problem(id=str(i), prompt="p", reference="r", verifier="exact", task=task) for i in range(count)]


def test_signal_equals_the_integral_over_the_posterior() -> None:
    known = Difficulty(decay=1.0)
    known.add("a", passes=3.0, fails=1.5, step=0)
    known.add("b", passes=40.0, fails=0.0, step=0)
    p = (np.arange(200_000) + 0.5) / 200_000
    for key, (a, b) in {"a": (4.0, 2.5), "b": (41.0, 1.0), "unseen": (1.0, 1.0)}.items():
        density = p ** (a - 1) * (1 - p) ** (b - 1)
        expected = (density * (1 - p**8 - (1 - p) ** 8)).sum() / density.sum()
        assert known.signal_P([key], group_size=8)[0] == pytest.approx(expected, rel=1e-4)


def test_evidence_fades_with_steps_and_a_problem_comes_back_into_view() -> None:
    known = Difficulty(decay=0.9)
    known.add("hard", passes=0.0, fails=64.0, step=1)
    at_once = known.signal_P(["hard"], group_size=8)[0]
    known.add("other", passes=1.0, fails=0.0, step=60)
    later = known.signal_P(["hard"], group_size=8)[0]
    assert at_once < 0.2
    assert later == pytest.approx(known.signal_P(["never"], group_size=8)[0], abs=0.05)
    assert known.pass_rate("hard") == pytest.approx(1 / (2 + 64 * 0.9**59))


def test_draws_follow_the_chance_of_signal_and_hold_no_problem_twice() -> None:
    listed = problems(100)
    known = Difficulty(decay=1.0)
    for problem in listed[:50]:
        known.add(problem_key(problem), passes=200.0, fails=0.0, step=0)
    sampler = DifficultySampler(listed, known, seed=0, group_size=8)
    counts = np.zeros(100)
    for step in range(1, 201):
        drawn = [*sampler.take(8), *sampler.take(8)]  # a second round of the same step
        assert len({problem.id for problem in drawn}) == 16
        counts[[int(problem.id) for problem in drawn]] += 1
        known.step = step
    chance = known.signal_P([problem_key(listed[0]), problem_key(listed[99])], group_size=8)
    assert counts[:50].mean() / counts[50:].mean() == pytest.approx(chance[0] / chance[1], rel=0.35)
    assert counts[50:].min() > 10


def test_a_step_larger_than_the_data_draws_everything_and_goes_on() -> None:
    sampler = DifficultySampler(problems(3), Difficulty(decay=1.0), seed=0, group_size=4)
    assert sorted(problem.id for problem in sampler.take(6)) == ["0", "0", "1", "1", "2", "2"]


def test_restored_draws_go_on_as_they_would_have() -> None:
    def fresh() -> tuple[Difficulty, Mixture]:
        known = Difficulty(decay=0.9)
        parts = [DifficultySampler(problems(20, task=task), known, seed=1, group_size=4) for task in ("a", "b")]
        return known, Mixture(parts, [2.0, 1.0])

    def steps(known: Difficulty, mixture: Mixture, first: int) -> list[str]:
        seen: list[str] = []
        for step in range(first, first + 5):
            for problem in mixture.take(6):
                seen.append(problem_key(problem))
                known.add(problem_key(problem), passes=float(int(problem.id) % 3), fails=1.0, step=step)
        return seen

    known, mixture = fresh()
    steps(known, mixture, 1)
    saved = json.loads(json.dumps([known.state(), mixture.state()]))
    expected = steps(known, mixture, 6)
    again, restored = fresh()
    again.restore(saved[0])
    restored.restore(saved[1])
    assert steps(again, restored, 6) == expected


def test_another_way_of_sampling_is_refused() -> None:
    state = ProblemSampler(problems(5), seed=0).state()
    with pytest.raises(ValueError, match=r"rollout\.sampling must not change"):
        DifficultySampler(problems(5), Difficulty(decay=1.0), seed=0, group_size=4).restore(state)


def test_import_from_an_evaluation(tmp_path: Path) -> None:
    file = tmp_path / "eval_rollouts.jsonl"
    rows = [("1", 1.0, "correct")] * 3 + [("1", 0.0, "incorrect"), ("2", None, "verifier_error"), ("3", 7.5, "scored")]
    lines = [{"task": "t", "problem": p, "verdict": {"reward": r, "outcome": o}} for p, r, o in rows]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    known = Difficulty(decay=0.9)
    known.import_rollouts(file)
    assert known.pass_rate("t/1") == pytest.approx(4 / 6)
    assert len(known) == 1
    file.write_text('{"task": "t"}\n')
    with pytest.raises(ConfigError, match="line 1 must be a rollout"):
        known.import_rollouts(file)
    with pytest.raises(ConfigError, match="difficulty_from"):
        known.import_rollouts(tmp_path / "none.jsonl")


def test_a_mixture_keeps_its_proportions_and_each_part_its_order() -> None:
    parts = [ProblemSampler(problems(10, task=task), seed=2) for task in ("a", "b")]
    alone = ProblemSampler(problems(10, task="a"), seed=2).take(8)
    drawn = Mixture(parts, [2.0, 1.0]).take(12)
    assert [problem.id for problem in drawn if problem.task == "a"] == [problem.id for problem in alone]
    assert sum(problem.task == "b" for problem in drawn) == 4


def test_a_composed_reward_counts_by_the_part_that_decides(tmp_path: Path) -> None:
    wrong_in_format = Verdict(
        outcome=Outcome.INCORRECT, reward=1.0, components={"exact": 0.0, "format": 1.0}, decided_by="exact"
    )
    half = Verdict(outcome=Outcome.PARTIAL, reward=1.5, components={"code": 0.5, "format": 1.0}, decided_by="code")
    right = Verdict(outcome=Outcome.CORRECT, reward=2.0, components={"exact": 1.0, "format": 1.0}, decided_by="exact")
    verdicts = [wrong_in_format, wrong_in_format, half, right, Verdict(outcome=Outcome.SCORED, reward=1.0)]
    (problem,) = problems(1)
    live = Difficulty(decay=1.0)
    live.record([rollout_of(problem, verdict) for verdict in verdicts], step=1)
    assert live.pass_rate(problem_key(problem)) == pytest.approx((1 + 1.5) / (2 + 4))
    file = tmp_path / "rollouts.jsonl"
    rows = [{"task": "t", "problem": "0", "verdict": verdict.to_json()} for verdict in verdicts]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = Difficulty(decay=1.0)
    read.import_rollouts(file)
    assert read.pass_rate(problem_key(problem)) == pytest.approx((1 + 1.5) / (2 + 4))


def rollout_of(problem: Problem, verdict: Verdict) -> Rollout:
    nothing = Completion(
        text="", token_ids=(), rollout_logprobs=(), loss_mask=(), segments=(), finish_reason=FinishReason.STOP,
        policy_version=0,
    )  # fmt: skip
    return Rollout(
        problem=problem, prompt_text="p", prompt_ids=(1,), completion=nothing, verdict=verdict, sample_index=0, step=1
    )
