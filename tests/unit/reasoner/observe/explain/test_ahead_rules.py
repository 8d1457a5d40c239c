"""Runs that sample ahead: batches that are too old, a sampler that is too slow, and runs without an alarm."""

from __future__ import annotations

import pytest

from reasoner.observe.explain import findings
from reasoner.observe.explain.ahead_rules import ahead_rules
from tests.unit.reasoner.runs import make_history, make_records


def codes(
    *, sample: float = 0.95, lag: float = 1.0, rollout: float = 0.1, wait: float = 0.1, ahead: int = 1
) -> list[str]:
    made = make_records()
    for figures in made.metrics:
        figures |= {
            "lag/mean": lag,
            "lag/max": lag,
            "lag/effective_sample": sample,
            "time/step": 2.0,
            "time/rollout": 2.0 * rollout,
            "time/ahead_wait": 2.0 * wait,
            "time/sampler_idle": 0.2,
        }
    history = make_history(made)
    rollout_section = history.config.rollout.model_copy(update={"ahead": ahead})
    history.config = history.config.model_copy(update={"rollout": rollout_section})
    assert {finding.code for finding in ahead_rules(history)} <= {finding.code for finding in findings(history)}
    return [finding.code for finding in ahead_rules(history)]


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, []),
        ({"sample": 0.2}, ["stale"]),
        ({"sample": 0.2, "lag": 0.0}, []),  # a gap of the engine: another rule's
        ({"sample": 0.55}, ["stale"]),
        ({"sample": 0.75}, []),
        ({"wait": 0.5}, ["sampler-slow"]),
        ({"rollout": 0.3, "wait": 0.2}, ["sampler-slow"]),
        ({"rollout": 0.0, "wait": 0.0}, []),
        ({"rollout": 0.0, "wait": 0.0, "ahead": 4}, ["ahead-unneeded"]),
        ({"sample": 0.1, "wait": 0.9, "ahead": 0}, []),
    ],
)
def test_what_is_said(figures: dict[str, float], expected: list[str]) -> None:
    assert codes(**figures) == expected  # pyright: ignore[reportArgumentType]


FALLS = [0.3, 0.5, 0.7, 0.7, 0.6, 0.3, 0.1, 0.0, 0.0, 0.0]
RISES = [0.3, 0.5, 0.7, 0.7, 0.6, 0.7, 0.8, 0.8, 0.8, 0.9]


@pytest.mark.parametrize(
    ("rewards", "sizes", "expected"),
    [
        (
            [0.3, 0.5, 0.7, 0.7, 0.6, 0.3, 0.1, 0.0, 0.0, 0.0],
            [1.0, 1.0, 0.98, 0.9, 0.56, 0.9, 1.0, 1.0, 1.0, 1.0],
            True,
        ),
        (
            [0.3, 0.5, 0.7, 0.7, 0.6, 0.3, 0.1, 0.0, 0.0, 0.0],
            [1.0, 1.0, 0.98, 0.9, 0.8, 0.9, 1.0, 1.0, 1.0, 1.0],
            False,
        ),
        (
            [0.3, 0.5, 0.7, 0.7, 0.6, 0.3, 0.1, 0.0, 0.0, 0.0],
            [1.0, 1.0, 0.98, 0.9, 0.9, 0.9, 0.9, 0.5, 1.0, 1.0],
            False,
        ),
        (
            [0.3, 0.5, 0.7, 0.7, 0.6, 0.7, 0.8, 0.8, 0.8, 0.9],
            [1.0, 1.0, 0.98, 0.9, 0.56, 0.9, 1.0, 1.0, 1.0, 1.0],
            False,
        ),
    ],
)
def test_batches_that_were_too_old_before_the_rewards_fell(
    rewards: list[float], sizes: list[float], expected: bool
) -> None:
    made = make_records()
    made.metrics[:] = [
        {**made.metrics[0], "step": step, "reward/mean": reward, "lag/mean": 1.0, "lag/effective_sample": size}
        for step, (reward, size) in enumerate(zip(rewards, sizes, strict=True), 1)
    ]
    history = make_history(made)
    history.config = history.config.model_copy(
        update={"rollout": history.config.rollout.model_copy(update={"ahead": 1})}
    )
    found = [finding for finding in ahead_rules(history) if finding.code == "stale"]
    assert bool(found) is expected
    assert all("rewards-collapsed" in finding.explains for finding in found)


@pytest.mark.parametrize(
    ("low", "named"), [([8, 11, 12, 14, 20], True), ([8, 11, 12], True), ([8, 20], False), ([30], False)]
)
def test_batches_that_are_too_old_now_and_then(low: list[int], named: bool) -> None:
    """As with `ahead: 16` in the quickstart: the reward rises slowly, and most steps have nearly their full sample."""
    made = make_records(steps=30)
    for row in made.metrics:
        row |= {"lag/mean": 12.0, "lag/max": 16.0, "lag/effective_sample": 0.3 if row["step"] in low else 0.93}
        row |= {"time/rollout": 0.4, "time/ahead_wait": 0.0, "time/sampler_idle": 0.0}
    history = make_history(made)
    rollout = history.config.rollout.model_copy(update={"ahead": 16})
    history.config = history.config.model_copy(update={"rollout": rollout})
    assert ("stale" in [finding.code for finding in ahead_rules(history)]) is named
