"""The loop: sample, grade, pack, annotate, estimate, update, sync. GRPO, RLOO, REINFORCE++ and their kin are this one.

Letters: P problems, G group, B rows, N completion tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from reasoner.algorithm.advantage import Estimator, get_estimator, group_signal
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.kl_control import Leash
from reasoner.algorithm.loss import LossTerms, policy_loss
from reasoner.config.sections import ConfigError, StageConfig
from reasoner.data.sampler import request_seed
from reasoner.monitoring.hacking_monitor import Watch
from reasoner.monitoring.metrics import peak_memory_mb, rollout_metrics
from reasoner.monitoring.no_signal import REPEAT_EVERY, no_signal_advice
from reasoner.policy.checkpoint import list_checkpoints
from reasoner.policy.policy import Objective, TokenScores, UpdateStats
from reasoner.policy.step_probe import StepProbe
from reasoner.policy.value import value_metrics
from reasoner.records import Rollout, RolloutGroup
from reasoner.rollout.round import Sampled, check_graded, merged, shape
from reasoner.session.session import Clock, Session
from verifiers import JSON


def train(session: Session) -> None:
    """Run the steps that are left; see DESIGN in docs/ for the path of one batch."""
    config = session.config
    estimator, leash = get_estimator(config.algorithm.advantage), Leash(config.algorithm, session.state)
    if session.fresh:
        session.evaluate()
        session.checkpoint()
    silent, watch = 0, Watch(session)
    for step in range(session.step + 1, 0 if leash.over else config.steps + 1):
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
        if leash.over:
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


def learn(session: Session, estimator: Estimator, leash: Leash, step: int, clock: Clock) -> Learned:
    """Sample the groups of a step and update the policy on them, portion by portion as they are graded."""
    config, policy = session.config, session.policy
    probe = StepProbe()
    warming_up = "values" in estimator.needs and step <= config.value.warmup_steps
    objective = None if warming_up else probe.recording(make_objective(config, kl_coef=leash.in_loss))
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
        metrics |= probe.figures(policy) | value_metrics(batch) | leash.pull(batch, step=step)
        session.state |= leash.state()
        clock.lap("update")
        session.run.append("updates.jsonl", update_rows(step, kept, batch, dropped, probe))
    else:
        session.run.append("updates.jsonl", update_rows(step, [], None, dropped))
    return Learned(merged(parts), groups, kept, metrics)


def annotated(session: Session, rows: Kept, estimator: Estimator, leash: Leash) -> Batch:
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


class Dropped(NamedTuple):
    """A rollout that leaves the update, and why."""

    group: int
    rollout: Rollout
    reason: str


Kept = list[tuple[int, Rollout]]
"""(group, rollout) of every row of the update."""


def sample_step(session: Session, step: int) -> Sampled:
    """All the rollouts of a step, graded."""
    return merged(list(sample_portions(session, step)))


def sample_portions(session: Session, step: int) -> Iterator[Sampled]:
    """The step's rollouts, in the config's number of portions; with dynamic sampling, in rounds.

    There further rounds follow until enough groups have signal. A round is taken or left as a whole and in order, so
    that what is kept does not depend on what finished first (DAPO, arXiv:2503.14476, section 3.2); they come as one.
    """
    rollout = session.config.rollout
    wanted, rounds = rollout.problems_per_step, 1 + rollout.dynamic_sampling_rounds
    parts: list[Sampled] = []
    for turn in range(rounds):
        problems_P = session.sampler.take(wanted)
        with session.display.progress(f"step {step}: sampling", wanted * rollout.group_size) as advance:
            sampled = session.sample(problems_P, seed_parts=(step, turn), step=step, on_progress=advance)
        if rounds == 1:
            yield from sampled.graded(session.config.grading.portions)
            return
        parts.append(sampled.all())
        if sum(has_signal(group) for part in parts for group in part.groups) >= wanted:
            break
    yield merged(parts)


def has_signal(group: RolloutGroup) -> bool:
    """Whether the group's rewards differ; ungraded rollouts do not count."""
    return group_signal([rollout.reward for rollout in group.rollouts if rollout.reward is not None])


def select(
    groups: Sequence[RolloutGroup], estimator: Estimator, config: StageConfig, *, first_group: int = 0
) -> tuple[Kept, list[Dropped]]:
    """Rows of the update, and what leaves it: ungraded rollouts, and groups without signal where that is exact.

    A group without signal has zero advantages; it stays only where a KL or entropy term would still move it, or the
    estimator does not compare within groups. With dynamic sampling the surplus of groups with signal leaves too.
    """
    algorithm = config.algorithm
    signal_only = estimator.group_relative and algorithm.kl_coef == 0 and algorithm.entropy_coef == 0
    room = config.rollout.problems_per_step if config.rollout.dynamic_sampling_rounds else len(groups)
    kept: Kept = []
    dropped: list[Dropped] = []
    for index, group in enumerate(groups, first_group):
        signal = has_signal(group) or not signal_only
        taken = signal and room > 0
        room -= taken
        for rollout in group.rollouts:
            if rollout.reward is None:
                dropped.append(Dropped(index, rollout, str(rollout.verdict.outcome)))
            elif taken:
                kept.append((index, rollout))
            else:
                dropped.append(Dropped(index, rollout, "surplus" if signal else "no signal in its group"))
    return kept, dropped


def loss_needs(config: StageConfig) -> frozenset[str]:
    """What the loss wants annotated: old log-probabilities only where several updates share a batch."""
    needs: set[str] = set()
    if config.optim.updates_per_step * config.optim.inner_epochs > 1:
        needs.add("old_logprobs")
    if config.algorithm.kl_coef > 0:
        needs.add("ref_logprobs")
    return frozenset(needs)


def make_objective(config: StageConfig, *, kl_coef: float | None = None) -> Objective:
    """The config's policy loss as a function of a micro-batch; kl_coef None: the config's."""
    algorithm = config.algorithm
    coef = algorithm.kl_coef if kl_coef is None else kl_coef

    def objective(scores: TokenScores, micro: Batch) -> LossTerms:
        return policy_loss(
            scores.logprobs_N,
            scores.entropy_N,
            micro,
            loss=algorithm.loss,
            loss_options=algorithm.loss_options,
            importance=algorithm.importance,
            importance_options=algorithm.importance_options,
            kl=algorithm.kl,
            kl_coef=coef,
            entropy_coef=algorithm.entropy_coef,
        )

    return objective


def check_algorithm(config: StageConfig) -> None:
    """Take the loss of one made-up group, so that a wrong name or option is found before anything is sampled.

    Raises:
        ConfigError: an estimator, loss or correction that there is not, or an option that it does not take.
    """
    if config.method not in ("grpo", "ppo"):
        return
    rows = max(2, config.rollout.group_size)
    zeros_N = torch.zeros(rows)
    batch = Batch(
        input_ids=tuple(torch.zeros(2, dtype=torch.long) for _ in range(rows)),
        prompt_lengths_B=torch.ones(rows, dtype=torch.long),
        row_N=torch.arange(rows),
        loss_mask_N=torch.ones(rows, dtype=torch.bool),
        reward_B=torch.arange(rows, dtype=torch.float64) % 2,
        group_B=torch.zeros(rows, dtype=torch.long),
        weights_N=zeros_N,
        rollout_logprobs_N=zeros_N,
        old_logprobs_N=zeros_N,
        ref_logprobs_N=zeros_N,
        values_N=zeros_N,
    )
    leash = Leash(config.algorithm, {})
    try:
        batch = leash.estimate(batch, get_estimator(config.algorithm.advantage))
        make_objective(config, kl_coef=leash.in_loss)(TokenScores(zeros_N, zeros_N), batch)
    except (ValueError, TypeError) as error:
        raise ConfigError("bad-value", f"algorithm: {error}") from error


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


def end_over_budget(session: Session, leash: Leash) -> None:
    """Say that the KL budget is spent; roll back to the newest checkpoint within it where the config says so."""
    algorithm, root = session.config.algorithm, session.run.path / "checkpoints"
    said = f"the policy is more than algorithm.kl_budget={algorithm.kl_budget} nats a completion from its reference"
    within = [folder for folder in list_checkpoints(root) if int(folder.name.split("-")[1]) <= leash.within]
    if algorithm.kl_over_budget == "rollback" and within:
        session.roll_back(within[-1])
        said += f"; the final model is that of {within[-1].name}, which was within it"
    session.display.note(f"stopping after step {session.step}: {said}")


def update_figures(stats: Sequence[UpdateStats], *, early: bool) -> dict[str, float]:
    """Figures of a step's updates, and whether they ended early."""
    return mean_stats(stats) | {"optim/updates": float(len(stats)), "optim/stopped_early": float(early)}


def mean_stats(stats: Sequence[UpdateStats]) -> dict[str, float]:
    """Token means over several updates, and the last learning rate."""
    tokens = max(1.0, sum(update.metrics.get("tokens", 0.0) for update in stats))
    names = {name for update in stats for name in update.metrics} - {"tokens"}
    figures = {
        name: max(update.metrics[name] for update in stats)
        if name.endswith("_max")
        else sum(update.metrics.get(name, 0.0) for update in stats) / tokens
        for name in sorted(names)
    }
    return figures | {
        "optim/loss": sum(update.loss for update in stats) / len(stats),
        "optim/grad_norm": sum(update.grad_norm for update in stats) / len(stats),
        "optim/lr": stats[-1].lr,
        "optim/tokens": tokens,
    }


def step_metrics(session: Session, sampled: Sampled, kept: Kept, clock: Clock) -> dict[str, float]:
    """Time split, throughput, memory and data of a step."""
    times = clock.metrics()
    times["time/generation"] = sampled.generation_seconds
    times["time/grading_wait"] = sampled.grading_wait_seconds
    return times | {
        "throughput/tokens_per_second": sampled.tokens / max(1e-9, times["time/step"]),
        "throughput/generated_per_second": sampled.tokens / max(1e-9, sampled.generation_seconds),
        "memory/peak_mb": peak_memory_mb(),
        "data/epoch": session.sampler.epochs,
        "data/problems_seen": float(len(session.difficulty)),
        "groups/rows_kept": float(len(kept)),
        "policy/version": float(session.policy.version),
    }


def update_rows(
    step: int, kept: Kept, batch: Batch | None, dropped: Sequence[Dropped], probe: StepProbe | None = None
) -> list[Mapping[str, JSON]]:
    """Lines of updates.jsonl: every rollout's advantage and the trainer's log-probabilities, or why it left."""
    rows: list[Mapping[str, JSON]] = []
    if batch is not None and batch.advantages_N is not None:
        ends = torch.tensor(batch.row_starts()[:-1], dtype=torch.long)
        for place, ((group, rollout), advantage) in enumerate(
            zip(kept, batch.advantages_N[ends].tolist(), strict=True)
        ):
            row: dict[str, JSON] = {"step": step, "group": group, "sample": rollout.sample_index}
            row |= {"advantage": advantage, "trainer_logprobs": probe.trainer_logprobs(place) if probe else None}
            rows.append(row)
    for group, rollout, reason in dropped:
        rows.append({"step": step, "group": group, "sample": rollout.sample_index, "dropped": reason})
    return sorted(rows, key=lambda row: (row["group"], row["sample"]))  # pyright: ignore[reportArgumentType]
