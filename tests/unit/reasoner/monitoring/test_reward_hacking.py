"""Planted reward hacking: each alarm is raised when it should be, with the completions as evidence, and not
otherwise.
"""

from __future__ import annotations

import random

import pytest

from reasoner.monitoring.reward_hacking import (
    CERTAIN,
    WINDOW,
    alarm_examples,
    alarms,
    change,
    repetition,
    watch_metrics,
    watched,
)
from reasoner.records import Completion, FinishReason, Rollout, RolloutGroup, Segment
from tasks import Problem
from verifiers import Outcome, Verdict

PROBLEM = Problem(id="0", prompt="p", reference="r", verifier="exact", task="t")


def rollout(text: str, reward: float, sample: int) -> Rollout:
    tokens = tuple(range(len(text)))
    return Rollout(
        problem=PROBLEM,
        prompt_text="p",
        prompt_ids=(1,),
        completion=Completion(
            text=text,
            token_ids=tokens,
            rollout_logprobs=(0.0,) * len(tokens),
            loss_mask=(True,) * len(tokens),
            segments=(Segment(start=0, end=len(tokens), origin="policy"),),
            finish_reason=FinishReason.STOP,
            policy_version=0,
        ),
        verdict=Verdict(outcome=Outcome.SCORED, reward=reward),
        sample_index=sample,
        step=1,
    )


def step_of(texts: list[str], rewards: list[float], held: list[float | None]):
    group = RolloutGroup(
        problem=PROBLEM,
        rollouts=tuple(rollout(text, reward, n) for n, (text, reward) in enumerate(zip(texts, rewards, strict=True))),
    )
    return watched([group], {(0, n): value for n, value in enumerate(held)})


def test_figures_by_hand() -> None:
    seen = step_of(["Great question! so 4", "therefore 5", "a b c a b c"], [1.0, 2.0, 3.0], [1.0, 0.0, None])
    found = watch_metrics(seen)
    assert found["watch/flattery"] == pytest.approx(1 / 3)
    assert found["watch/confident_wrong"] == 0.5
    assert found["watch/held_out"] == 0.5
    assert found["watch/proxy"] == 2.0
    assert found["watch/agreement"] == pytest.approx(-1.0)
    assert found["watch/repetition"] == pytest.approx(0.25 / 3)


def test_repetition_of_short_and_unspaced_texts() -> None:
    assert repetition("") == repetition("ab") == 0.0
    assert repetition("aaaaaaaa") == pytest.approx(5 / 6)


def test_change_is_measured_against_noise() -> None:
    source = random.Random(0)
    noise = [source.gauss(0, 1) for _ in range(40)]
    assert abs(change(noise)[1]) < CERTAIN
    moved, sure = change([value + 0.5 * n for n, value in enumerate(noise)])
    assert moved > 10
    assert sure > CERTAIN
    assert change([1.0] * (2 * WINDOW - 1)) == (0.0, 0.0)
    assert change([1.0] * 20) == (0.0, 0.0)


def run_of(**drift: float) -> list[dict[str, float]]:
    source = random.Random(1)
    base = {"watch/proxy": 0.0, "watch/held_out": 0.5, "watch/length": 20.0}
    base |= dict.fromkeys(("watch/repetition", "watch/flattery", "watch/confident_wrong"), 0.1)
    return [
        {
            name: value + 0.02 * source.gauss(0, 1) + step * drift.get(name.partition("/")[2], 0.0)
            for name, value in base.items()
        }
        for step in range(20)
    ]


@pytest.mark.parametrize(
    ("drift", "name"),
    [
        ({"proxy": 0.1, "held_out": -0.02}, "proxy-against-held-out"),
        ({"length": 2.0}, "length"),
        ({"repetition": 0.02}, "repetition"),
        ({"flattery": 0.03}, "flattery"),
        ({"confident_wrong": 0.03}, "confident_wrong"),
    ],
)
def test_each_planted_hack_raises_its_alarm_alone(drift: dict[str, float], name: str) -> None:
    found = list(alarms(run_of(**drift)))
    assert [alarm.name for alarm in found] == [name]
    seen = step_of(["Great question!", "therefore", "aaaaaaaaaaaaaaaaaaaa"], [0.0, 1.0, 2.0], [1.0, 0.0, -1.0])
    rows = alarm_examples(found[0], seen)
    worst = {"flattery": "Great question!", "confident_wrong": "therefore"}.get(name, "aaaaaaaaaaaaaaaaaaaa")
    assert rows[0]["completion"] == worst


def test_a_healthy_run_raises_none() -> None:
    assert list(alarms(run_of())) == []
    assert list(alarms(run_of(proxy=0.1, held_out=0.02))) == []
    assert list(alarms(run_of()[:6])) == []
