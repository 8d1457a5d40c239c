"""The loop: sample, grade, pack, annotate, estimate, update, sync. GRPO, RLOO, REINFORCE++ and their kin are this one.

Letters: P problems, G group, B rows, N completion tokens.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from reasoner.algorithm.advantage import Estimator, get_estimator
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.kl_control import KLControl
from reasoner.algorithm.objective import Objective, loss_needs, make_objective
from reasoner.config.stage import StageConfig
from reasoner.monitoring.hacking_monitor import Watch
from reasoner.monitoring.metrics import rollout_metrics, step_metrics, update_figures
from reasoner.monitoring.no_signal import REPEAT_EVERY, no_signal_advice
from reasoner.policy.policy import UpdateStats
from reasoner.policy.step_probe import StepProbe
from reasoner.policy.value import value_metrics
from reasoner.records import Dropped, Kept, RolloutGroup
from reasoner.rollout.grading import check_graded
from reasoner.rollout.producer import sample_portions
from reasoner.rollout.round import Sampled, merged
from reasoner.rollout.selection import select, shape
from reasoner.seeds import request_seed
from reasoner.session.session import Clock, Session
from reasoner.storage.find_model import list_checkpoints
from reasoner.storage.rows import update_rows


def train(session: Session) -> None:
    """Run the steps that are left; see DESIGN in docs/ for the path of one batch."""
    config = session.config
    estimator, leash = get_estimator(config.algorithm.advantage), KLControl(config.algorithm, session.state)
    if session.fresh:
        session.evaluate()
        session.checkpoint()
    silent, watch = 0, Watch(session)
    for step in range(session.step + 1, 0 if leash.over_budget else config.steps + 1):
        clock = Clock()
        done = learn(session, estimator, leash, step, clock)
        metrics = dict(done.metrics)
        if done.kept:
            metrics["gap/probe"] = session.sync()
        clock.lap("sync")
        session.step = step
        metrics |= rollout_metrics(done.groups) | watch.look(step, done.groups)
        metrics |= step_metrics(session, done.sampled, done.kept, clock)
        session.run.log(step, metrics)
        session.display.step(step, metrics)
        silent = 0 if metrics["groups/signal"] > 0 or not estimator.group_relative else silent + 1
        if silent % REPEAT_EVERY == 1:
            session.display.note(no_signal_advice(metrics))
        if leash.over_budget:
            return end_over_budget(session, leash)
        session.end_step()


class Learned(NamedTuple):
    """What a step sampled, and what became of it."""

    sampled: Sampled
    groups: list[RolloutGroup]
    """As sampled, with what the config adds to their rewards."""
    kept: Kept
    metrics: dict[str, float]
    """Of the update; empty where no group had signal."""


def learn(session: Session, estimator: Estimator, leash: KLControl, step: int, clock: Clock) -> Learned:
    """Sample the groups of a step and update the policy on them, portion by portion as they are graded."""
    config, policy = session.config, session.policy
    probe = StepProbe()
    warming_up = "values" in estimator.needs and step <= config.value.warmup_steps
    objective = None if warming_up else probe.recording(make_objective(config, kl_coef=leash.loss_coef))
    once = config.optim.updates_per_step * config.optim.inner_epochs == 1
    parts: list[Sampled] = []
    groups: list[RolloutGroup] = []
    batches: list[Batch] = []
    kept: Kept = []
    dropped: list[Dropped] = []
    for part in sample_portions(session, step):
        clock.lap("rollout")
        shaped = shape(
            part.groups,
            max_tokens=config.rollout.max_tokens,
            penalty_tokens=config.algorithm.overlong_penalty_tokens,
        )
        session.run.write_rollouts(shaped, first_group=len(groups))
        taken, left = select(shaped, estimator, config, first_group=len(groups))
        parts.append(part)
        groups += shaped
        kept += taken
        dropped += left
        if taken:
            session.engine.sleep()  # all is sampled; the weights of the update's end wake it
            batches.append(annotated(session, taken, estimator, leash))
            clock.lap("logprobs")
            if once:
                policy.accumulate(batches[-1], objective)
                clock.lap("update")
    check_graded(groups, max_share=config.grading.max_ungraded_share)
    session.difficulty.record((rollout for group in groups for rollout in group.rollouts), step=step)
    clock.lap("rollout")
    metrics: dict[str, float] = {}
    if batches:
        batch = Batch.joined(batches)
        if once:
            metrics = update_figures([policy.step(scale=whole_step_scale(batch, config))], early=False)
        else:
            metrics = update_policy(session, batch, objective, step)
        probe.gather(batch)
        metrics |= probe.figures(policy) | value_metrics(batch) | leash.update(batch, step=step)
        session.state |= leash.state()
        clock.lap("update")
        session.run.append("updates.jsonl", update_rows(step, kept, batch, dropped, probe))
    else:
        session.run.append("updates.jsonl", update_rows(step, [], None, dropped))
    return Learned(merged(parts), groups, kept, metrics)


def annotated(session: Session, rows: Kept, estimator: Estimator, leash: KLControl) -> Batch:
    """The rows with all that the loss needs; their weights are those of a whole step where the step is one portion."""
    config = session.config
    batch = Batch.of_rollouts(rows, config=config)
    if config.grading.portions > 1:
        most = config.rollout.problems_per_step * config.rollout.group_size
        batch = batch.reweighed(config, rows=most, tokens=most * config.rollout.max_tokens)
    batch = session.policy.annotate(batch, needs=estimator.needs | loss_needs(config))
    return leash.estimate(batch, estimator)


def whole_step_scale(batch: Batch, config: StageConfig) -> float:
    """What takes the weights that the portions of a step had to those of the whole step: 1 for a single portion."""
    if config.grading.portions == 1:
        return 1.0
    had = batch.weights_N.double().sum().item()
    return batch.reweighed(config).weights_N.double().sum().item() / had if had else 1.0


def update_policy(session: Session, batch: Batch, objective: Objective | None, step: int) -> dict[str, float]:
    """Every optimizer step on one batch: inner epochs, each in updates_per_step parts of the shuffled rows.

    They end early once the policy has moved further from the one that sampled than optim.stop_kl.
    """
    optim = session.config.optim
    rows = list(range(len(batch)))
    stats: list[UpdateStats] = []
    for epoch in range(optim.inner_epochs):
        if optim.updates_per_step > 1:
            random.Random(request_seed(session.config.seed, "rows", step, epoch)).shuffle(rows)
        for part in range(optim.updates_per_step):
            chosen = rows[part :: optim.updates_per_step]
            if chosen:
                whole = len(chosen) == len(batch)
                taken = batch if whole else batch.select(sorted(chosen)).reweighed(session.config)
                stats.append(session.policy.update(taken, objective))
                moved = stats[-1].metrics.get("policy/approx_kl", 0.0) / max(1.0, stats[-1].metrics["tokens"])
                if optim.stop_kl is not None and moved > optim.stop_kl:
                    return update_figures(stats, early=True)
    return update_figures(stats, early=False)


def end_over_budget(session: Session, leash: KLControl) -> None:
    """Say that the KL budget is spent; roll back to the newest checkpoint within it where the config says so."""
    algorithm, root = session.config.algorithm, session.run.path / "checkpoints"
    said = f"the policy is more than algorithm.kl_budget={algorithm.kl_budget} nats a completion from its reference"
    within = [folder for folder in list_checkpoints(root) if int(folder.name.split("-")[1]) <= leash.last_within]
    if algorithm.kl_over_budget == "rollback" and within:
        session.roll_back(within[-1])
        said += f"; the final model is that of {within[-1].name}, which was within it"
    session.display.note(f"stopping after step {session.step}: {said}")
