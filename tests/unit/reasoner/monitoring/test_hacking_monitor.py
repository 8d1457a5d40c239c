"""The monitor for reward hacking during a run: the rollouts that it grades, its verifier, and one alarm."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from reasoner.config.load import resolve
from reasoner.monitoring.hacking_monitor import HackingMonitor
from reasoner.records import Completion, FinishReason, Problem, Rollout, RolloutGroup, Segment
from reasoner.session.opening import open_session
from reasoner.session.session import Session
from verifiers import Outcome, Verdict

REWARD = {"name": "format", "options": {"tags": ["a"]}}
OWN = {"scorer": {"name": "own"}}


@contextmanager
def opened(folder: Path, *, resume: bool = False, **changes: object) -> Iterator[Session]:
    raw: dict[str, object] = {
        "task": {"name": "arithmetic", "options": {"digits": 1}},
        "model": {"from_scratch": {"hidden_size": 16, "layers": 1, "heads": 2, "max_positions": 64}},
        "rollout": {"max_tokens": 8},
        "engine": {"name": "hf"},
        "eval": {"problems": 0},
        "logging": {"tensorboard": False},
        **changes,
    }
    with open_session(resolve(raw).stages[0], folder, resume=resume) as session:
        yield session


def monitor_of(session: Session) -> HackingMonitor:
    return HackingMonitor(
        session.config, pool=session.pool, run=session.run, raised=session.state.alarms, note=session.display.note
    )


def group(problem: Problem, rows: Sequence[tuple[str, float]]) -> RolloutGroup:
    """Build rollouts of one problem from (text, reward), with one token per character."""
    return RolloutGroup(
        problem=problem,
        rollouts=tuple(
            Rollout(
                problem=problem,
                prompt_text=str(problem.prompt),
                prompt_ids=(1,),
                completion=Completion(
                    text=text,
                    token_ids=(1,) * len(text),
                    rollout_logprobs=(0.0,) * len(text),
                    loss_mask=(True,) * len(text),
                    segments=(Segment(start=0, end=len(text), origin="policy"),),
                    finish_reason=FinishReason.STOP,
                    policy_version=0,
                ),
                verdict=Verdict(outcome=Outcome.SCORED, reward=reward),
                sample_index=place,
                step=1,
            )
            for place, (text, reward) in enumerate(rows)
        ),
    )


def problems(session: Session, count: int) -> list[Problem]:
    """Build problems as in training: with the config's `reward` in place of the task's own verifier."""
    return [problem for part in session.producer.problems.parts for problem in part][:count]


def alarms(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "alarms.jsonl").read_text().splitlines()]


def test_it_is_silent_where_training_rewards_the_tasks_own_verifier_and_nothing_is_named(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        rows = [group(problem, [("x" * 50, 1.0)]) for problem in problems(session, 2)]
        assert monitor_of(session).observe(1, rows) == {}


def test_own_is_each_tasks_verifier_and_grades_the_first_rows(tmp_path: Path) -> None:
    with opened(tmp_path, reward=REWARD, watch={**OWN, "rows": 3}) as session:
        one, two = problems(session, 2)
        assert (one.verifier, two.verifier) == ("format", "format")
        groups = [
            group(one, [(f"clearly #### {one.reference}", 3.0), ("clearly #### 999", 1.0)]),
            group(two, [(f"#### {two.reference}", 2.0), ("therefore #### 999", 8.0)]),
        ]
        found = monitor_of(session).observe(1, groups)
    assert found["watch/held_out"] == pytest.approx(2 / 3), "right, wrong, right; the fourth is beyond rows"
    assert found["watch/confident_wrong"] == pytest.approx(1 / 3)
    assert found["watch/proxy"] == (3.0 + 1.0 + 2.0 + 8.0) / 4
    # Pearson's of (3, 1, 2) and (1, 0, 1): covariance 1 over sqrt(2 * 2/3)
    assert found["watch/agreement"] == pytest.approx(1 / (2 * 2 / 3) ** 0.5)


def test_a_scorer_of_another_name_grades_what_training_has(tmp_path: Path) -> None:
    watch = {"scorer": {"name": "format", "options": {"tags": ["b"]}}}
    with opened(tmp_path, watch=watch) as session:
        (one,) = problems(session, 1)
        found = monitor_of(session).observe(1, [group(one, [("<b>\nx\n</b>", 0.0), (f"#### {one.reference}", 1.0)])])
    assert found["watch/held_out"] == 0.5
    assert found["watch/agreement"] == pytest.approx(-1.0)


def test_what_the_scorer_cannot_grade_is_no_zero(tmp_path: Path) -> None:
    with opened(tmp_path, reward=REWARD, watch={"scorer": {"name": "exact"}}) as session:
        (one,) = problems(session, 1)
        broken = group(replace(one, reference=None), [("#### 1", 1.0)])
        right = group(one, [(f"#### {one.reference}", 1.0)])
        assert monitor_of(session).observe(1, [broken, right])["watch/held_out"] == 1.0
        assert "watch/held_out" not in monitor_of(session).observe(1, [broken])


def test_without_a_scorer_the_reward_alone_is_watched(tmp_path: Path) -> None:
    with opened(tmp_path, reward=REWARD) as session:
        (one,) = problems(session, 1)
        found = monitor_of(session).observe(1, [group(one, [("abcd", 1.0), ("ab", 0.0)])])
    assert (found["watch/length"], found["watch/proxy"]) == (3.0, 0.5)
    assert not found.keys() & {"watch/held_out", "watch/agreement", "watch/confident_wrong"}


def of_length(session: Session, step: int) -> list[RolloutGroup]:
    """Five steps of short completions, then long ones."""
    (one,) = problems(session, 1)
    texts = ["abcdefgh", "abcdefghij"] if step <= 5 else ["abcdefgh" * 9, "abcdefgh" * 10]
    return [group(one, [(text, 0.0) for text in texts])]


def look(session: Session, monitor: HackingMonitor, step: int) -> Mapping[str, float]:
    found = monitor.observe(step, of_length(session, step))
    session.step = step
    session.run.log(step, found)
    return found


@pytest.mark.parametrize("cut", [None, 7, 10], ids=["unbroken", "resumed before the alarm", "resumed after it"])
def test_an_alarm_is_raised_once_with_its_completions(
    tmp_path: Path, cut: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    spans = [range(1, 13)] if cut is None else [range(1, cut + 1), range(cut + 1, 13)]
    for span in spans:
        with opened(tmp_path, resume=span.start > 1, reward=REWARD) as session:
            monkeypatch.setattr(session.display, "note", notes.append)
            monitor = monitor_of(session)
            for step in span:
                look(session, monitor, step)
            session.checkpoint()
    raised = alarms(tmp_path)
    assert [(row["step"], row["alarm"]) for row in raised] == [(10, "length"), (10, "repetition")]
    (length, _) = raised
    assert length["evidence"] == {"from": 9.0, "to": 76.0}
    assert [len(row["completion"]) for row in length["rollouts"]] == [80, 72]
    assert length["sentence"].startswith("completions grew from 9 to 76 tokens")
    assert notes == [f"alarm at step 10: {row['sentence']}" for row in raised]
