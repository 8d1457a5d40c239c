"""Records of a step: seconds of its parts, throughput, rollouts written before anything is filtered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import psutil
import pytest

from reasoner.policy.step_probe import StepProbe
from reasoner.records import Completion, Dropped, FinishReason, Problem, Rollout, RolloutGroup, Segment
from reasoner.rollout.round import Sampled
from reasoner.rollout.selection import Selection
from reasoner.session.session import Session
from reasoner.session.step_record import StepRecord
from verifiers import Outcome, Verdict


class Clock:
    """A clock that stands still unless advanced."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "perf_counter", found.perf_counter)
    return found


class Run:
    """The record files of a run, in memory."""

    def __init__(self) -> None:
        self.files: dict[str, list[dict]] = {}
        self.metrics: list[tuple[int, dict[str, float]]] = []

    def append(self, name: str, rows: list[dict]) -> None:
        self.files.setdefault(name, []).extend(rows)

    def write_rollouts(self, groups: tuple[RolloutGroup, ...], *, first_group: int) -> None:
        self.append("rollouts.jsonl", [{"group": first_group + n} for n, _ in enumerate(groups)])

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.metrics.append((step, metrics))


def session_of(run: Run, shown: list[int] | None = None) -> Session:
    return cast(
        "Session",
        SimpleNamespace(
            run=run,
            config=SimpleNamespace(rollout=SimpleNamespace(turn_tokens=None)),
            producer=SimpleNamespace(problems=SimpleNamespace(epochs=1.25)),
            difficulty=("a", "b"),
            pool=SimpleNamespace(made_here=[]),
            policy=SimpleNamespace(version=7),
            display=SimpleNamespace(step=lambda step, metrics: (shown if shown is not None else []).append(step)),
            step=0,
        ),
    )


def group(name: str, *rewards: float) -> RolloutGroup:
    problem = Problem(id=name, prompt="p", reference="1", verifier="v")
    return RolloutGroup(
        problem=problem,
        rollouts=tuple(
            Rollout(
                problem=problem,
                prompt_text="p",
                prompt_ids=(1,),
                completion=Completion(
                    text="",
                    token_ids=(0, 1),
                    rollout_logprobs=(0.0, 0.0),
                    loss_mask=(True, True),
                    segments=(Segment(start=0, end=2, origin="policy"),),
                    finish_reason=FinishReason.STOP,
                    policy_version=0,
                ),
                verdict=Verdict(outcome=Outcome.SCORED, reward=reward),
                sample_index=place,
                step=3,
            )
            for place, reward in enumerate(rewards)
        ),
    )


def test_parts_add_up_and_a_part_that_fails_is_counted(clock: Clock) -> None:
    record = StepRecord(session_of(Run()), 3)
    for seconds in (1.0, 2.0):
        with record.part("update"):
            clock.now += seconds

    def fails() -> None:
        with record.part("sync"):
            clock.now += 0.5
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails()
    clock.now += 4.0  # in no part
    assert record.seconds == {"update": 3.0, "sync": 0.5}
    found = record.measurements()
    memory = found.pop("memory/peak_mb")
    assert found == {"time/update": 3.0, "time/sync": 0.5, "time/step": 7.5}
    assert 0.9 * psutil.Process().memory_info().rss < memory * 2**20 < psutil.virtual_memory().total


def test_rollouts_are_written_before_they_are_handed_on_and_waiting_is_the_part_rollout(clock: Clock) -> None:
    run = Run()
    record = StepRecord(session_of(run), 3)

    def portions() -> Iterator[Sampled]:
        for first, groups in ((0, (group("a", 1.0), group("b", 0.0))), (2, (group("c", 1.0),))):
            clock.now += 10.0
            yield Sampled(
                groups=groups, first_group=first, generation_seconds=2.0, grading_wait_seconds=0.25, tokens=300
            )

    for number, portion in enumerate(record.rollouts(portions())):
        assert [row["group"] for row in run.files["rollouts.jsonl"]] == [[0, 1], [0, 1, 2]][number]
        assert record.groups[-1] is portion.groups[-1]
        with record.part("update"):
            clock.now += 1.0
    assert [one.problem.id for one in record.groups] == ["a", "b", "c"]
    found = record.measurements()
    del found["memory/peak_mb"]
    assert found == {
        "time/rollout": 20.0,
        "time/update": 2.0,
        "time/step": 22.0,
        "time/generation": 4.0,
        "time/grading_wait": 0.5,
        "throughput/tokens_per_second": 600 / 22,
        "throughput/generated_per_second": 600 / 4,
        "data/epoch": 1.25,
    }


def test_a_step_is_counted_and_its_metrics_are_written_once(clock: Clock) -> None:
    run, shown = Run(), list[int]()
    session = session_of(run, shown)
    record = StepRecord(session, 3)
    rows = group("a", 1.0, 0.0, 0.5)
    kept = [(0, rollout) for rollout in rows.rollouts[:2]]
    dropped = [Dropped(0, rows.rollouts[2], "surplus")]
    assert record.selected(Selection(kept, dropped)) == kept
    assert record.training_metrics() == {
        "groups/rows_kept": 2.0,
        "data/problems_seen": 2.0,
        "policy/version": 7.0,
    }
    record.updates(None, StepProbe())
    assert run.files["updates.jsonl"] == [{"step": 3, "group": 0, "sample": 2, "dropped": "surplus"}]
    record.finish({"optim/loss": 2.0})
    ((step, metrics),) = run.metrics
    assert (step, session.step, shown) == (3, 3, [3])
    assert metrics["optim/loss"] == 2.0
    StepRecord(session, 4).finish({}, shown=False)
    assert (session.step, shown) == (4, [3])
