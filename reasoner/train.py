"""The training loop of GRPO, RLOO, REINFORCE++, PPO and related methods: one step, stage by stage.

    stage                  consumes                          waits for
    producer.groups        problems, the engine's weights    completions, and the verdicts of a portion
    select                 a portion of graded groups        -
    session.annotate       rows of the update                forward passes of policy, reference, value model, teacher
    kl.estimate            rewards, values, log-probs        -
    update.add / finish    advantages, the loss              backward passes, the optimizer
    session.sync           the policy's new weights          the engine: the next step samples with them

A step has one or several portions (`grading.portions`). With several, the first groups are annotated and their gradient
is accumulated while others are still being graded. The optimizer sees the same gradient either way.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from reasoner.algorithm.advantage import Estimator, get_estimator
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.kl_control import KLControl
from reasoner.algorithm.objective import loss_needs, make_objective
from reasoner.monitoring.hacking_monitor import HackingMonitor
from reasoner.monitoring.metrics import advantage_metrics, teacher_metrics, update_metrics
from reasoner.monitoring.no_signal import SilentSteps
from reasoner.monitoring.staleness import staleness_metrics
from reasoner.policy.policy import Policy
from reasoner.policy.step_probe import StepProbe
from reasoner.policy.step_update import StepUpdate
from reasoner.policy.value import value_metrics
from reasoner.rollout.grading import check_graded
from reasoner.rollout.round import Sampled
from reasoner.rollout.selection import select, shaped
from reasoner.session.session import Session
from reasoner.session.step_record import StepRecord
from reasoner.storage.find_model import list_checkpoints, step_of


def train(session: Session) -> None:
    """Run the remaining steps."""
    config, state = session.config, session.state
    estimator, kl = get_estimator(config.algorithm.advantage), KLControl(config.algorithm, state.kl)
    monitor = HackingMonitor(config, pool=session.pool, run=session.run, raised=state.alarms, note=session.display.note)
    silent = SilentSteps(config.algorithm)
    if session.fresh:
        session.evaluate()
        session.checkpoint()
    for step in range(session.step + 1, 0 if state.kl.over_budget else session.last + 1):
        record = StepRecord(session, step)
        metrics = learn(session, session.producer.groups(step), estimator, kl, record)
        metrics = record.finish(metrics | monitor.observe(step, record.groups) | record.training_metrics())
        if advice := silent.advice(metrics, record.groups):
            session.display.note(advice)
        if state.kl.over_budget:
            return end_over_budget(session)
        session.end_step()


def learn(
    session: Session, portions: Iterable[Sampled], estimator: Estimator, kl: KLControl, record: StepRecord
) -> dict[str, float]:
    """Update the policy on the groups of one step and sync its weights to the engine; return the metrics."""
    config, policy, step = session.config, session.policy, record.step
    probe, version = StepProbe(), policy.version
    warming_up = "values" in estimator.needs and step <= config.value.warmup_steps  # only the value model is trained
    objective = None if warming_up else probe.recording(make_objective(config, kl_coef=kl.loss_coef))
    update = StepUpdate(policy, objective, step=step)
    for portion in record.rollouts(shaped(portions, config)):
        rows = record.selected(select(portion, estimator, config))
        if not rows:
            continue
        with record.part("logprobs"):
            session.engine.sleep()  # sampling is done; the sync below wakes the engine
            batch = Batch.of_rollouts(rows, config=config)
            batch = session.annotate(batch, needs=estimator.needs | loss_needs(config))
            batch = kl.estimate(batch, estimator)
        with record.part("update"):
            update.add(batch)
    check_graded(record.groups, max_share=config.grading.max_ungraded_share)
    session.difficulty.record((rollout for group in record.groups for rollout in group.rollouts), step=step)
    metrics: dict[str, float] = {}
    with record.part("update"):
        if updated := update.finish():
            probe.gather(updated.batch)
            metrics = update_metrics(updated) | probe.metrics(policy) | value_metrics(updated.batch)
            scored = with_reference(updated.batch, policy, rows=config.watched_kl_rows)
            metrics |= advantage_metrics(updated.batch) | teacher_metrics(updated.batch) | kl.update(scored, step=step)
    record.updates(updated, probe)
    if ahead := session.producer.ahead:
        metrics |= staleness_metrics(record.kept, probe, version=version) if updated else {}
        with record.part("ahead_wait"):
            if config.rollout.during_update == "wait":
                ahead.settle()  # the batches under way are sampled with one version of the weights
        metrics["time/sampler_idle"] = ahead.idle_seconds()
    with record.part("sync"):
        if updated:
            metrics["gap/probe"] = session.sync()
    return metrics


def with_reference(batch: Batch, policy: Policy, *, rows: int) -> Batch:
    """Return a sample of a batch's trained rows, with the reference's log-probabilities, evenly spaced over the batch.

    The batch itself if `rows` is 0, or if nothing of it is trained on.
    """
    trained = torch.unique(batch.row_N[batch.loss_mask_N]).tolist()
    if not rows or not trained:
        return batch
    sample = trained[:: max(1, len(trained) // rows)][:rows]
    return policy.annotate(batch.select(sample), needs=frozenset({"ref_logprobs"}))


def end_over_budget(session: Session) -> None:
    """Report that the KL budget is exceeded. If configured, roll back to the newest checkpoint within the budget."""
    algorithm, root = session.config.algorithm, session.run.path / "checkpoints"
    reason = f"the policy is more than algorithm.kl_budget={algorithm.kl_budget} nats per completion from its reference"
    within = [folder for folder in list_checkpoints(root) if (step_of(folder) or 0) <= session.state.kl.last_within]
    if algorithm.kl_over_budget == "rollback" and within:
        session.roll_back(within[-1])
        reason += f"; the final model is that of {within[-1].name}, which was within it"
    session.display.note(f"stopping after step {session.step}: {reason}")
