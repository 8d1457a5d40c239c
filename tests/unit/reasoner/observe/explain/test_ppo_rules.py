"""PPO's failures, planted in its records: each is named, alone, and a healthy run has none."""

from __future__ import annotations

import random

import pytest

from reasoner.config.load import resolve
from reasoner.observe.explain import Level, findings
from reasoner.observe.explain.ppo_rules import ppo_rules
from reasoner.storage.history import EvalRecord, History, row_of

HEALTHY = {
    "reward/mean": (0.0, 0.05),
    "reward/std": (1.0, -0.01),
    "kl/ref": (0.5, 0.1),
    "kl/coef": (0.2, 0.0),
    "value/explained_variance": (0.1, 0.02),
    "value/error_squared": (1.0, -0.02),
    "value/return_squared": (1.2, 0.0),
    "watch/held_out": (0.4, 0.02),
    "watch/agreement": (0.5, -0.001),
    "completion/length_mean": (30.0, 0.1),
}
"""metric -> (first value, drift per step)"""
PLANTED = {
    "value-diverging": {"value/explained_variance": (-0.4, -0.3), "value/error_squared": (1.0, 2.0)},
    "kl-coef-too-small": {"kl/ref": (1.0, 2.0), "kl/coef": (1e-4, 0.0), "watch/held_out": (0.4, 0.0)},
    "kl-coef-too-large": {"kl/ref": (0.02, 0.0), "kl/coef": (9.0, 0.0), "reward/mean": (0.0, 0.0)},
    "rewards-collapsed": {"reward/mean": (1.0, -0.2), "reward/std": (1.0, -0.045), "watch/held_out": (0.4, -0.02)},
    "reward-disagrees": {"watch/agreement": (0.5, -0.04), "watch/held_out": (0.4, 0.0)},
    "reward-model-hacked": {"watch/held_out": (0.4, -0.03), "completion/length_mean": (30.0, 4.0)},
}


def history_of(planted: dict[str, tuple[float, float]], *, evals: list[float] | None = None) -> History:
    source = random.Random(0)
    curves = {**HEALTHY, **planted}
    config = resolve({"method": "ppo", "task": "gsm8k", "reward": {"name": "reward-model"}}).stages[0]
    metrics = [
        {
            "step": step,
            **{name: first + drift * step + 0.01 * source.gauss(0, 1) for name, (first, drift) in curves.items()},
        }
        for step in range(1, 21)
    ]
    rows = [
        {"step": n, "metrics": {"avg@1": [value, value - 0.03, value + 0.03]}} for n, value in enumerate(evals or [])
    ]
    return History(config=config, metrics=metrics, evals=[EvalRecord.model_validate(row) for row in rows])


@pytest.mark.parametrize("code", list(PLANTED))
def test_a_planted_failure_is_named_alone(code: str) -> None:
    found = list(ppo_rules(history_of(PLANTED[code])))
    assert [finding.code for finding in found] == [code]
    assert found[0].evidence
    assert found[0].change
    assert code in {finding.code for finding in findings(history_of(PLANTED[code]))}


def test_a_value_model_that_blew_up_at_once_and_is_dead_since_is_named() -> None:
    history = history_of({"value/explained_variance": (0.0, 0.0), "value/error_squared": (1.0, 0.0)})
    assert list(ppo_rules(history)) == []  # it explains nothing: too little to go by
    first, second = history.metrics[:2]
    history.metrics[0] = {**first, "value/error_squared": 60.0}
    assert list(ppo_rules(history)) == []  # a value model that has learned nothing yet
    history.metrics[1] = {**second, "value/error_squared": 60.0}
    (found,) = ppo_rules(history)
    assert found.code == "value-diverging"
    assert "reached 60, 49 times that of a value of 0" in found.evidence[0]


def test_a_healthy_run_has_none_of_them() -> None:
    assert list(ppo_rules(history_of({}))) == []
    assert list(ppo_rules(history_of({}, evals=[0.4, 0.5]))) == []
    far = {"kl/ref": (1.0, 2.0), "kl/coef": (0.0, 0.0)}  # while what the reward should measure still rises
    assert list(ppo_rules(history_of(far))) == []


def test_hacking_shows_in_evaluations_alone_as_well() -> None:
    without = {"watch/held_out": (0.4, 0.0)}
    (found,) = ppo_rules(history_of(without, evals=[0.4, 0.5, -0.8]))
    assert found.code == "reward-model-hacked"
    assert "avg@1 fell from 0.5" in found.evidence[0]
    assert list(ppo_rules(history_of(without, evals=[0.5, 0.48]))) == []


def test_a_run_without_value_or_leash_is_left_alone() -> None:
    config = resolve({"task": "gsm8k"}).stages[0]
    metrics = [{"step": n, "reward/mean": 0.1 * n, "reward/std": 0.5} for n in range(1, 20)]
    assert list(ppo_rules(History(config=config, metrics=metrics))) == []


def test_a_reward_that_agrees_less_while_what_it_stands_for_gets_better_is_left_alone() -> None:
    falling = {"watch/agreement": (0.5, -0.04)}
    assert list(ppo_rules(history_of(falling))) == []
    (found,) = ppo_rules(history_of({**falling, "watch/held_out": (0.4, 0.0)}))
    assert found.level is Level.FAULT
    (less,) = ppo_rules(history_of({"watch/agreement": (0.4, -0.02), "watch/held_out": (0.4, 0.0)}))
    assert (less.code, less.level) == ("reward-disagrees", Level.WARNING)


def clipped(*, returns: float, gap: tuple[float, float], share: float) -> list[str]:
    """Codes of findings where values begin gap[0] below their returns and end gap[1] below them."""
    curves = {
        "reward/mean": (returns, 0.0),
        "value/returns": (returns, 0.0),
        "value/before": (returns - gap[0], (gap[0] - gap[1]) / 20),
        "value/clip_fraction": (share, 0.0),
        "reward/std": (6.0, 0.0),
    }
    return [finding.code for finding in ppo_rules(history_of(curves))]


def test_values_that_the_clip_keeps_from_their_returns_are_named() -> None:
    assert clipped(returns=9.0, gap=(9.0, 4.0), share=0.25) == ["value-clip-too-small"]
    assert clipped(returns=-9.0, gap=(-9.0, -4.0), share=0.25) == ["value-clip-too-small"]
    assert clipped(returns=9.0, gap=(9.0, 4.0), share=0.05) == []  # they are slow, but not by the clip
    assert clipped(returns=9.0, gap=(9.0, 0.2), share=0.25) == []  # they arrive
    assert clipped(returns=9.0, gap=(-0.5, 6.0), share=0.25) == []  # they were there, and the returns left


def discounted(gamma: float, length: float, **more: tuple[float, float]) -> list[str]:
    history = history_of({"completion/length_mean": (length, 0.0), **more})
    algorithm = history.config.algorithm.model_copy(update={"advantage_options": {"gamma": gamma}})
    history.config = history.config.model_copy(update={"algorithm": algorithm})
    return [finding.code for finding in ppo_rules(history)]


def test_a_reward_that_is_discounted_over_tokens_is_named() -> None:
    assert discounted(0.6, 3.0) == ["reward-discounted"]
    assert discounted(0.99, 300.0) == ["reward-discounted"]
    assert discounted(0.99, 30.0) == []
    assert discounted(1.0, 300.0) == []
    standing = history_of({"completion/length_mean": (3.0, 0.0), "reward/mean": (0.2, 0.0)})
    algorithm = standing.config.algorithm.model_copy(update={"advantage_options": {"gamma": 0.6}})
    standing.config, standing.complete = standing.config.model_copy(update={"algorithm": algorithm}), True
    first, second = findings(standing)
    assert (first.code, second.code, second.follows) == ("reward-discounted", "no-progress", "reward-discounted")


def test_a_reward_without_full_marks_is_never_solved() -> None:
    rises = history_of({"reward/mean": (1.0, 0.4)})
    rises.rows = [row_of(SCORED | {"reward": reward}) for reward in (0.0, 6.0, 12.0)]
    assert [finding.code for finding in findings(rises)] == ["rises"]
    within = history_of({"reward/mean": (0.0, 0.05)})
    within.rows = [row_of(SCORED | {"reward": reward}) for reward in (0.0, 0.5, 1.0)]
    assert [finding.code for finding in findings(within)] == ["solved"]


SCORED = {
    "step": 1,
    "group": 0,
    "sample": 0,
    "problem": "a/1",
    "completion": "4",
    "tokens": 1,
    "finish_reason": "stop",
    "verdict": {"outcome": "scored", "reward": 0.5},
}
