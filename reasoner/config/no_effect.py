"""Settings that are valid on their own but have no effect in this stage, or not the effect of their name."""

from __future__ import annotations

from collections.abc import Iterator

from reasoner.config.errors import ConfigError
from reasoner.config.estimators import traits_of
from reasoner.config.methods import METHODS
from reasoner.config.stage import RunConfig, StageConfig

NEARLY_GREEDY = 0.05
"""Temperature below which the samples of a group hardly differ (our choice): there a token whose log-probability is
0.2 nats lower has a chance of 2 %."""


def refuse_no_effect(stage: StageConfig) -> None:
    """Check for settings with which nothing can be learned, or which have no effect at all.

    Raises:
        ConfigError: the message says what has no effect, why, and what to set.
    """
    found = [*_evaluation(stage)]
    if METHODS[stage.method].samples:
        found += _sampling(stage)
    if METHODS[stage.method].learns_from == "rewards":
        found += _rewards(stage)
    if found:
        raise ConfigError("no-effect", "; ".join(found))


def little_effect(stage: StageConfig) -> list[str]:
    """Return sentences on settings with less effect than their names say; a run may continue with them."""
    method = METHODS[stage.method]
    found = [*_schedule(stage)]
    if method.learns_from == "rewards":
        found += _updates(stage)
    if method.samples and stage.rollout.temperature < NEARLY_GREEDY:
        found.append(
            f"rollout.temperature={stage.rollout.temperature:g} is nearly greedy: the samples of a group will hardly"
            " differ; set it near 1"
        )
    if stage.eval.metric is not None and not stage.evaluates:
        found.append(f"eval.metric={stage.eval.metric} decides nothing: this stage solves no evaluation problems")
    return found


def unread_settings(run: RunConfig) -> list[str]:
    """Return sentences on sections that are set but that no stage of the run reads."""
    read = {section for stage in run.stages for section in METHODS[stage.method].sections}
    methods = ", ".join(dict.fromkeys(stage.method for stage in run.stages))
    found: list[str] = []
    for name in dict.fromkeys(section for row in METHODS.values() for section in row.sections):
        keys = {key for stage in run.stages for key in getattr(stage, name).model_dump(exclude_defaults=True)}
        if keys and name not in read:
            readers = " or ".join(method for method, row in METHODS.items() if name in row.sections)
            listed = ", ".join(f"{name}.{key}" for key in sorted(keys))
            found.append(f"{listed} does nothing: {readers} reads it, and this run is {methods}")
    return found


def _evaluation(stage: StageConfig) -> Iterator[str]:
    section = stage.eval
    if stage.evaluates and section.temperature == 0 and section.samples > 1:
        yield (
            f"eval.temperature must be above 0 for eval.samples={section.samples}; got 0. Greedy samples of one"
            " problem are copies of each other, so that pass@k is pass@1. Set eval.samples to 1, or eval.temperature"
            " to the temperature of later use, such as 0.7"
        )


def _sampling(stage: StageConfig) -> Iterator[str]:
    rollout = stage.rollout
    alone = rollout.group_size < 2
    if rollout.sampling == "difficulty" and alone:
        yield (
            "rollout.group_size must be at least 2 for rollout.sampling=difficulty; got 1. Problems are drawn by the"
            " chance that the rewards of a group differ, which is 0 for all of them. Set rollout.sampling to epoch"
        )
    if rollout.dynamic_sampling_rounds and alone:
        yield (
            "rollout.group_size must be at least 2 for rollout.dynamic_sampling_rounds; got 1. A group of one has no"
            " signal, so that every round would be sampled and dropped. Set rollout.dynamic_sampling_rounds to 0"
        )


def _rewards(stage: StageConfig) -> Iterator[str]:
    algorithm, rollout, optim = stage.algorithm, stage.rollout, stage.optim
    if algorithm.kl == "k1" and algorithm.kl_in == "loss" and algorithm.kl_coef > 0:
        yield (
            "algorithm.kl must be k2 or k3 in the loss; got k1, whose gradient there is 0 in expectation: it would not"
            " restrain the policy. Set algorithm.kl to k3, or algorithm.kl_in to reward, where k1 is right"
        )
    rows = rollout.problems_per_step * rollout.group_size
    if rows == 1 and traits_of(algorithm.advantage).baseline == "step" and ":" not in algorithm.advantage:
        yield (
            f"algorithm.advantage={algorithm.advantage} compares the rows of a step, and there is one: every advantage"
            " is 0. Set rollout.problems_per_step or rollout.group_size to 2 or more"
        )
    if optim.updates_per_step > rows:
        yield (
            f"optim.updates_per_step must be at most the {rows} rows of a step; got {optim.updates_per_step}. The"
            " other parts would be empty"
        )


def _schedule(stage: StageConfig) -> Iterator[str]:
    optim, method = stage.optim, METHODS[stage.method]
    if method.learns_from is not None and optim.warmup_steps >= stage.steps:
        yield (
            f"optim.warmup_steps={optim.warmup_steps} is not over in {stage.steps} steps: the learning rate never"
            f" reaches optim.lr={optim.lr:g}; set it below steps"
        )
    demonstrated = method.learns_from == "demonstrations"
    section, patience = "sft", stage.sft.patience if demonstrated else None
    if method.policy == "reward":
        section, patience = "reward_model", stage.reward_model.patience
    if patience is not None and (not stage.eval.every or stage.eval.every * patience > stage.steps):
        yield (
            f"{section}.patience={patience} never ends the stage: evaluations are"
            + (f" {stage.eval.every} steps apart" if stage.eval.every else " only before and after")
            + f" in {stage.steps} steps; set eval.every to less"
        )
    if demonstrated and stage.sft.until_accuracy is not None and stage.sft.check_every > stage.steps:
        yield (
            f"sft.until_accuracy={stage.sft.until_accuracy:g} is never checked: sft.check_every="
            f"{stage.sft.check_every} in {stage.steps} steps; set sft.check_every to less"
        )


def _updates(stage: StageConfig) -> Iterator[str]:
    algorithm, optim, rollout = stage.algorithm, stage.optim, stage.rollout
    once = optim.updates_per_step * optim.inner_epochs == 1
    valued = traits_of(algorithm.advantage).baseline == "value"
    if valued and stage.value.warmup_steps >= stage.steps:
        yield (
            f"value.warmup_steps={stage.value.warmup_steps} covers all {stage.steps} steps: only the value model"
            " learns, the policy stays unchanged; set it below steps"
        )
    if once and optim.stop_kl is not None:
        yield (
            f"optim.stop_kl={optim.stop_kl:g} never acts: it is checked between two updates, and a step has one; set"
            " optim.updates_per_step or optim.inner_epochs above 1, or leave it out"
        )
    ranges = {name: algorithm.loss_options.get(name) for name in ("clip_low", "clip_high")}
    shut = [name for name, value in ranges.items() if value == 0]
    if shut and not once:
        yield (
            f"algorithm.loss_options.{shut[0]}=0: after the first update of a step every token that moved in that"
            " direction is clipped and has no gradient; set it to 0.2 (gspo: 0.0003)"
        )
    if algorithm.reference is not None and not stage.needs_reference:
        yield (
            f"algorithm.reference={algorithm.reference} is never used: no KL is measured; set algorithm.kl_coef above"
            " 0 or algorithm.kl_budget"
        )
    if algorithm.kl_in == "reward" and algorithm.kl_coef > 0 and algorithm.kl == "k2":
        yield "algorithm.kl=k2 has no effect with algorithm.kl_in=reward, which subtracts k1; leave it out"
    if stage.grading.portions > rollout.problems_per_step:
        yield (
            f"grading.portions={stage.grading.portions} is more than the {rollout.problems_per_step} groups of a step:"
            " some portions are empty; set it to rollout.problems_per_step or less"
        )
    if rollout.sampling == "difficulty" and stage.reward is not None and stage.reward.name == "reward-model":
        yield (
            "rollout.sampling=difficulty learns nothing from a reward model, whose scores have no pass mark: all"
            " problems stay equal; set rollout.sampling to epoch"
        )
