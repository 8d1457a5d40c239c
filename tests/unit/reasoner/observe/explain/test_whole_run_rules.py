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
    config = {"optim": {"lr": 2e-3, "schedule": "linear"}}
    assert codes(scheduled(0.3, seed), **config)[0] == "learning-rate-too-high"
    assert "learning-rate-too-high" not in codes(scheduled(0.03, seed), **config)


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


# ------------------------------------------------------------------------------------------- gradients that add up


@SEEDS
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_a_gradient_norm_that_is_that_of_a_sum_is_named(power: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = make_records(steps=24, seed=seed, accuracy=lambda step: 0.4)
    made = with_metric(made, "optim/grad_norm", lambda step: 0.5 * step**power * float(np.exp(0.02 * rng.normal())))
    assert codes(made)[0] == "gradients-add-up"


@SEEDS
@pytest.mark.parametrize("why", ["noise", "falls", "jumps", "grows with noise", "flat"])
def test_a_gradient_norm_of_batches_is_not_that(why: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    norms: dict[str, Callable[[int], float]] = {
        "noise": lambda step: float(np.exp(0.3 * rng.normal())),
        "falls": lambda step: 10.0 / step,
        "jumps": lambda step: 1.0 if step < 15 else 8.0,
        "grows with noise": lambda step: step * float(np.exp(0.3 * rng.normal())),  # a policy that becomes surer
        "flat": lambda step: 1.0,
    }
    made = with_metric(make_records(steps=24, seed=seed), "optim/grad_norm", norms[why])
    assert "gradients-add-up" not in codes(made)


# ------------------------------------------------------------------------------------- problems that nobody solves


def with_rates(rate: Callable[[int], float], seed: int) -> Made:
    """Records of a run with a pass rate for each problem, by its number."""

    def change(row: dict, rng: np.random.Generator) -> None:
        right = bool(rng.random() < rate(int(row["prompt_ids"][2]) + int(row["prompt_ids"][3])))
        row["verdict"] |= {"outcome": "correct" if right else "incorrect", "reward": float(right)}
        row["verdict"]["answer"] = row["reference"] if right else str(int(row["reference"]) + int(rng.integers(1, 60)))
        row["completion"] = f"so it is {row['verdict']['answer']}"
        row["reward"] = float(right)

    return make_records(steps=14, problems=8, seed=seed, change=change)


@SEEDS
@pytest.mark.parametrize("rate", [0.7, 0.9])
def test_problems_never_solved_beside_easy_ones_are_named(rate: float, seed: int) -> None:
    made = with_rates(lambda number: 0.0 if number % 4 == 0 else rate, seed)
    assert "problems-never-solved" in codes(made)


@SEEDS
@pytest.mark.parametrize("why", ["all alike", "a slope", "two", "hard and harder"])
def test_problems_that_are_hard_are_not_that(why: str, seed: int) -> None:
    rates: dict[str, Callable[[int], float]] = {
        "all alike": lambda number: 0.5,
        "a slope": lambda number: (number % 10) / 10,
        "two": lambda number: 0.0 if number % 97 == 0 else 0.8,
        "hard and harder": lambda number: 0.02 if number % 4 == 0 else 0.15,
    }
    assert "problems-never-solved" not in codes(with_rates(rates[why], seed))
