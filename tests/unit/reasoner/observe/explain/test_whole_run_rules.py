"""What only the run as a whole shows: a policy back at its start, rare weights, steps too large at full rate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from reasoner.observe.explain import findings
from tests.unit.reasoner.runs import Made, make_history, make_records

SEEDS = pytest.mark.parametrize("seed", range(3))


def codes(made: Made, **config: object) -> list[str]:
    return [finding.code for finding in findings(make_history(made, **config))]


def with_metric(made: Made, name: str, value: Callable[[int], float]) -> Made:
    for row in made.metrics:
        row[name] = value(row["step"])
    return made


def learns(step: int) -> float:
    return 0.3 + 0.04 * step


def sure(step: int) -> float:
    """An entropy that falls while the policy learns."""
    return 1.6 - 0.01 * step


# --------------------------------------------------------------------------------------------- back at the start


def lost_at(step: int, **more: object) -> Made:
    made = make_records(
        steps=18, problems=16, accuracy=lambda now: learns(now if now < step else now - step + 1), **more
    )  # type: ignore[arg-type]
    return with_metric(made, "policy/entropy", lambda now: sure(now if now < step else now - step + 1))


@SEEDS
def test_a_policy_that_is_suddenly_as_at_first_is_named(seed: int) -> None:
    assert codes(lost_at(12, seed=seed))[0] == "back-at-the-start"


@SEEDS
@pytest.mark.parametrize("why", ["harder problems", "a large update", "steady", "never learned"])
def test_a_fall_with_another_reason_is_not_that(why: str, seed: int) -> None:
    if why == "harder problems":  # the reward falls, and the policy stays as sure as it was
        made = make_records(steps=18, seed=seed, accuracy=lambda step: learns(step) if step < 12 else 0.35)
        made = with_metric(made, "policy/entropy", sure)
    elif why == "a large update":
        made = with_metric(lost_at(12, seed=seed), "policy/step_kl", lambda step: 0.8 if step == 11 else 1e-3)
    elif why == "steady":
        made = with_metric(make_records(steps=18, seed=seed, accuracy=learns), "policy/entropy", sure)
    else:
        made = make_records(steps=18, seed=seed, accuracy=lambda step: 0.4)
    assert "back-at-the-start" not in codes(made)


# ------------------------------------------------------------------------------------------- rarely synced weights

AHEAD = {"engine": {"name": "hf"}, "rollout": {"ahead": 1}}


def sawtooth(every: int) -> Callable[[int], float]:
    return lambda step: 0.01 * (1 + (step - 2) % every)


def of_gap(gap: Callable[[int], float], seed: int) -> Made:
    made = with_metric(make_records(steps=24, seed=seed), "gap/logprob_abs", gap)
    return with_metric(made, "lag/max", lambda step: 1.0)


@SEEDS
@pytest.mark.parametrize("every", [6, 8])
def test_weights_that_arrive_at_every_nth_sync_are_named(every: int, seed: int) -> None:
    assert "weights-rarely-synced" in codes(of_gap(sawtooth(every), seed), **AHEAD)


@SEEDS
@pytest.mark.parametrize("why", ["lag", "even", "noise", "once"])
def test_a_gap_that_is_the_lags_is_not_that(why: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gaps: dict[str, Callable[[int], float]] = {
        "lag": sawtooth(3),  # no longer than a lag of one makes it
        "even": lambda step: 0.04,
        "noise": lambda step: float(rng.choice([0.01, 0.05])),
        "once": lambda step: 0.06 if step < 12 else 0.01,
    }
    assert "weights-rarely-synced" not in codes(of_gap(gaps[why], seed), **AHEAD)


# ------------------------------------------------------------------------------------------------- large steps


def scheduled(kl_at_full_rate: float, seed: int) -> Made:
    made = make_records(steps=20, seed=seed, accuracy=lambda step: 0.4)
    made = with_metric(made, "optim/lr", lambda step: 2e-3 * (20 - step) / 20)
    return with_metric(made, "policy/step_kl", lambda step: kl_at_full_rate if step <= 8 else 1e-3)


@SEEDS
def test_steps_are_judged_at_the_full_rate_of_a_schedule(seed: int) -> None:
    assert codes(scheduled(0.3, seed))[0] == "learning-rate-too-high"
    assert "learning-rate-too-high" not in codes(scheduled(0.03, seed))


# -------------------------------------------------------------------------- verifiers that do not say what they read


def unread(made: Made, refuse: Callable[[dict], bool], *, form: str = "#### ") -> Made:
    """Verdicts of a function of the user's: no answer in them, and some right ones refused."""
    for row in made.rollouts:
        row["completion"] = row["completion"].replace("#### ", form)
        row["verdict"]["answer"] = None
        if row["verdict"]["outcome"] == "correct" and refuse(row):
            row["verdict"] |= {"outcome": "incorrect", "reward": 0.0}
            row["reward"] = 0.0
    return made


@SEEDS
def test_right_answers_that_a_function_refuses_are_found(seed: int) -> None:
    made = unread(make_records(seed=seed), lambda row: row["reference"].endswith("0"))
    assert "right-answer-rejected" in codes(made)


@SEEDS
def test_a_grader_that_gives_up_is_the_cause_of_the_fall(seed: int) -> None:
    made = make_records(seed=seed, steps=18, accuracy=lambda step: 0.6)
    found = findings(make_history(unread(made, lambda row: row["step"] > 9)))
    assert found[0].code == "right-answer-rejected"
    assert any("before step 10: what changed then?" in line for line in found[0].evidence)


@SEEDS
def test_an_answer_in_another_form_may_be_refused(seed: int) -> None:
    made = make_records(seed=seed)
    for row in made.rollouts:  # the form is asked for, and some lack it
        if row["sample"] == 0:
            row["completion"] = row["completion"].replace("#### ", "is ")
    made = unread(made, lambda row: row["sample"] == 0)
    assert "right-answer-rejected" not in codes(made)


@SEEDS
def test_a_function_that_judges_something_else_is_not_doubted(seed: int) -> None:
    """Right ones that do not end with their reference: the end is not what it reads."""
    made = make_records(seed=seed)
    for row in made.rollouts:
        if row["sample"] % 2:
            row["completion"] += " or so"
    assert "right-answer-rejected" not in codes(unread(made, lambda row: row["sample"] == 2))
