"""What the records determine is computed again: advantages, the loss, limits. Half of the cases are near misses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from reasoner.algorithm.group_baselines import GROUP_ADVANTAGES
from reasoner.observe.explain import findings
from tests.unit.reasoner.runs import Made, make_history, make_records

SEEDS = pytest.mark.parametrize("seed", range(2))


def codes(made: Made, **config: object) -> list[str]:
    return [finding.code for finding in findings(make_history(made, **config))]


def learned(estimator: str = "grpo", aggregation: str = "token", seed: int = 0, **more: object) -> Made:
    """Records with the advantages of an estimator, completions of many lengths, and the loss of the update."""
    rng = np.random.default_rng(seed)

    def change(row: dict, _: np.random.Generator) -> None:
        row["tokens"] = length = int(rng.integers(3, 13))
        row["token_ids"], row["rollout_logprobs"] = row["token_ids"][:length], row["rollout_logprobs"][:length]

    made = make_records(seed=seed, change=change, **more)  # type: ignore[arg-type]
    rows = {(row["step"], row["group"], row["sample"]): row for row in made.rollouts}
    for step in sorted({row["step"] for row in made.rollouts}):
        of_step = [update for update in made.updates if update["step"] == step and "advantage" in update]
        for group in {update["group"] for update in of_step}:
            mine = [update for update in of_step if update["group"] == group]
            own = GROUP_ADVANTAGES[estimator]([rows[step, group, one["sample"]]["reward"] for one in mine])
            for update, advantage in zip(mine, own, strict=True):
                update["advantage"] = advantage
        tokens = np.asarray([rows[step, one["group"], one["sample"]]["tokens"] for one in of_step], dtype=float)
        for update, length in zip(of_step, tokens, strict=True):
            update["trainer_logprobs"] = update["trainer_logprobs"][: int(length)]
        weights = {
            "token": tokens / tokens.sum(),
            "sequence": np.full(len(tokens), 1 / len(tokens)),
            "constant": tokens / (len(tokens) * 12),
        }[aggregation]
        metrics = next(row for row in made.metrics if row["step"] == step)
        metrics["optim/loss"] = -float(weights @ [one["advantage"] for one in of_step])
        metrics["optim/tokens"] = float(tokens.sum())
    return made


def with_metric(made: Made, name: str, value: Callable[[int], float]) -> Made:
    for row in made.metrics:
        row[name] = value(row["step"])
    return made


CONFIG = {"rollout": {"max_tokens": 12}, "optim": {"lr": 1e-5}}
OWN = {"advantages-not-of-the-rewards", "loss-not-of-the-rows", "cut-before-the-limit", "learning-rate-not-of-config"}


@SEEDS
@pytest.mark.parametrize("estimator", ["grpo", "dr_grpo", "rloo"])
@pytest.mark.parametrize("aggregation", ["token", "sequence", "constant"])
def test_a_healthy_run_agrees(estimator: str, aggregation: str, seed: int) -> None:
    algorithm = {"advantage": estimator, "aggregation": aggregation}
    assert not OWN & {*codes(learned(estimator, aggregation, seed), algorithm=algorithm, **CONFIG)}


# ----------------------------------------------------------------------------------------------------- advantages


@pytest.mark.parametrize(
    "wrong",
    [
        lambda advantage: min(max(advantage, -1.0), 1.0),  # a clip
        lambda advantage: advantage + 0.3,  # the mean of something else
        lambda advantage: max(advantage, 0.0),  # only what is better
        lambda advantage: advantage * abs(advantage),
    ],
)
def test_advantages_that_are_not_the_estimators_are_named(wrong: Callable[[float], float]) -> None:
    made = learned(accuracy=lambda step: 0.25)
    for update in made.updates:
        if "advantage" in update:
            update["advantage"] = wrong(update["advantage"])
    causes = ("of-the-rewards", "of-their-group", "centred", "zero")
    assert codes(made, **CONFIG)[0].removeprefix("advantages-").removeprefix("not-") in causes


def test_advantages_of_another_scale_are_a_warning_that_says_the_factor() -> None:
    made = learned()
    for update in made.updates:
        if "advantage" in update:
            update["advantage"] *= 1.5
    for row in made.metrics:
        row["optim/loss"] *= 1.5
    found = findings(make_history(made, **CONFIG))
    (one,) = [finding for finding in found if finding.code == "advantages-not-of-the-rewards"]
    assert one.level == "warning"
    assert "1.5 times" in one.title


@pytest.mark.parametrize(
    "algorithm",
    [
        {"advantage": "reinforce_pp"},
        {"advantage": "grpo", "kl_in": "reward", "kl_coef": 0.1},
        {"advantage": "grpo", "normalize_components": True},
    ],
)
def test_advantages_that_need_more_than_the_groups_rewards_are_not_computed(algorithm: dict) -> None:
    made = learned()
    for update in made.updates:
        if "advantage" in update:
            update["advantage"] *= 0.7
    assert "advantages-not-of-the-rewards" not in codes(made, algorithm=algorithm, **CONFIG)


# ------------------------------------------------------------------------------------------------------- the loss


@SEEDS
@pytest.mark.parametrize("fault", ["another aggregation", "half of the rows", "twice"])
def test_a_loss_that_is_not_of_the_rows_is_named(fault: str, seed: int) -> None:
    if fault == "another aggregation":
        made = learned(aggregation="sequence", seed=seed)
    else:
        made, rng = learned(seed=seed), np.random.default_rng(seed)
        for row in made.metrics:
            row["optim/loss"] = row["optim/loss"] * 2 if fault == "twice" else 0.05 * float(rng.normal())
    found = findings(make_history(made, **CONFIG))
    (one,) = [finding for finding in found if finding.code == "loss-not-of-the-rows"]
    assert ("aggregation=sequence" in one.title) == (fault == "another aggregation")


@SEEDS
@pytest.mark.parametrize("why", ["several updates", "kl", "entropy", "ahead", "gap"])
def test_a_loss_with_other_parts_is_not_that(why: str, seed: int) -> None:
    made, rng = learned(seed=seed), np.random.default_rng(seed)
    config: dict[str, object] = {**CONFIG}
    if why == "several updates":
        config["optim"] = {"lr": 1e-5, "updates_per_step": 2}
        with_metric(made, "optim/loss", lambda step: 0.3)
    elif why == "kl":
        config["algorithm"] = {"kl_coef": 0.1}
        with_metric(made, "policy/kl_ref", lambda step: 0.02 * step)
        for row in made.metrics:
            row["optim/loss"] += 0.1 * 0.9 * row["policy/kl_ref"]
    elif why == "entropy":
        config["algorithm"] = {"entropy_coef": 0.05}
        for row in made.metrics:
            row["optim/loss"] -= 0.05 * 1.1 * row["policy/entropy"]
    elif why == "ahead":
        config["rollout"] = {"max_tokens": 12, "ahead": 1}
        config["engine"] = {"name": "hf"}
        with_metric(made, "optim/loss", lambda step: 0.3)
    else:
        with_metric(made, "gap/logprob_abs", lambda step: 0.015)
        for row in made.metrics:
            row["optim/loss"] += 0.01 * float(rng.normal())
    assert "loss-not-of-the-rows" not in codes(made, **config)


# ------------------------------------------------------------------------------------------------- limits, rates


def test_completions_cut_below_the_limit_are_named() -> None:
    def cut(row: dict, rng: np.random.Generator) -> None:
        if rng.random() < 0.2:
            row["finish_reason"] = "length"

    made = make_records(change=cut)
    assert codes(made, rollout={"max_tokens": 20})[0] == "cut-before-the-limit"
    assert "cut-before-the-limit" not in codes(made, rollout={"max_tokens": 12})


@pytest.mark.parametrize(
    ("rate", "schedule", "named"),
    [
        (lambda step: 1e-4, "constant", True),  # ten times the config's
        (lambda step: 1e-5 * 0.9**step, "constant", True),
        (lambda step: 1e-5 * (1 - step / 20), "linear", False),
        (lambda step: 1e-5 * min(1, step / 4), "constant", False),  # the warm-up
        (lambda step: 1e-5, "constant", False),
    ],
)
def test_the_rate_is_that_of_the_config(rate: Callable[[int], float], schedule: str, named: bool) -> None:
    made = with_metric(make_records(), "optim/lr", rate)
    optim = {"lr": 1e-5, "schedule": schedule, "warmup_steps": 4}
    assert ("learning-rate-not-of-config" in codes(made, optim=optim)) == named


# --------------------------------------------------------------------------------------------------- the entropy


def test_a_policy_that_was_never_trained_is_named() -> None:
    def far(row: dict, rng: np.random.Generator) -> None:
        row["token_ids"] = rng.integers(0, 256, len(row["token_ids"])).tolist()

    made = make_records(accuracy=lambda step: 0.0, change=far)
    assert codes(with_metric(made, "policy/entropy", lambda step: 5.5))[0] == "policy-untrained"
    assert "policy-untrained" not in codes(with_metric(made, "policy/entropy", lambda step: 3.0))


def test_an_untrained_policy_does_not_explain_updates_that_go_downhill() -> None:
    def far(row: dict, rng: np.random.Generator) -> None:
        row["token_ids"] = rng.integers(0, 256, len(row["token_ids"])).tolist()

    made = with_metric(make_records(accuracy=lambda step: 0.3, change=far), "policy/entropy", lambda step: 5.5)
    found = codes(with_metric(made, "policy/step_gain", lambda step: -0.01 - 0.0001 * step))
    assert found.index("descends") < found.index("policy-untrained")


@SEEDS
@pytest.mark.parametrize(
    ("coef", "entropy", "accuracy", "named"),
    [
        (0.1, lambda step: 0.5 + 0.1 * step, lambda step: 0.6 - 0.03 * step, True),
        (0.1, lambda step: 0.5 + 0.1 * step, lambda step: 0.2 + 0.04 * step, False),  # it learns all the same
        (0.1, lambda step: 0.5 - 0.01 * step, lambda step: 0.6 - 0.03 * step, False),
        (0.0, lambda step: 0.5 + 0.1 * step, lambda step: 0.6 - 0.03 * step, False),
    ],
)
def test_an_entropy_bonus_that_outweighs_the_reward_is_named(
    coef: float, entropy: Callable[[int], float], accuracy: Callable[[int], float], named: bool, seed: int
) -> None:
    made = with_metric(make_records(steps=16, accuracy=accuracy, seed=seed), "policy/entropy", entropy)
    assert ("entropy-coef-too-large" in codes(made, algorithm={"entropy_coef": coef})) == named


# ------------------------------------------------------------------------------------------- stages without rewards


@SEEDS
@pytest.mark.parametrize(
    ("loss", "named"),
    [
        (lambda step: 2.0 / step if step < 15 else 0.3 * (step - 13), True),
        (lambda step: 2.0 / step, False),
        (lambda step: 0.5, False),
        (lambda step: 2.0 / step + (1.0 if step == 25 else 0.0), False),  # one bad batch
    ],
)
def test_a_loss_that_rises_again_is_named(loss: Callable[[int], float], named: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = Made([], [], [])
    made.metrics = [
        {"step": step, "optim/loss": loss(step) * float(np.exp(0.05 * rng.normal())), "optim/lr": 1e-3,
         "optim/grad_norm": 1.0, "optim/tokens": 500.0}
        for step in range(1, 31)
    ]  # fmt: skip
    config = {"method": "sft", "steps": 30, "optim": {"lr": 1e-3}}
    assert ("loss-diverges" in codes(made, **config)) == named


@SEEDS
@pytest.mark.parametrize(
    ("loss", "named"),
    [
        (lambda step: 1.3, True),
        (lambda step: 1.3 * 0.97**step, False),
        (lambda step: 1.3 if step < 10 else 1.0, False),
        (lambda step: 0.005, False),  # nothing is left to learn
    ],
)
def test_a_loss_that_stays_is_named(loss: Callable[[int], float], named: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = Made([], [], [])
    made.metrics = [
        {"step": step, "optim/loss": loss(step) * float(np.exp(0.03 * rng.normal())), "optim/lr": 1e-7,
         "optim/grad_norm": 1.0, "optim/tokens": 500.0}
        for step in range(1, 31)
    ]  # fmt: skip
    assert ("loss-does-not-fall" in codes(made, method="sft", steps=30, optim={"lr": 1e-7})) == named
