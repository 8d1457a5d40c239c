"""Runs that sample ahead of the trainer: is what they train on too old, and who waits for whom."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reasoner.observe.explain.finding import Finding, Level
from reasoner.observe.explain.significance import percent
from reasoner.storage.history import History

FEW_STEPS = 3
LOW = 0.7
"""Effective sample size below which batches count as too old (our choice). In `benchmarks/ahead_learning.py --tiny` a
run at 0.55 gained less than half the reward that one without batches ahead did; one at 0.95 gained nearly all of it."""
OFTEN, FEW_LOW = 0.1, 3
"""Share and number of steps with a low effective sample size that are named though the others are not (our choice): in
the quickstart 1 of 70 steps with ahead 4, 5 of 23 with 16, where the reward rose at half the speed."""
WAITING = 0.4
"""Share of a step spent waiting for the sampler that is worth a sentence; our choice."""
DOWNHILL = frozenset({"rewards-collapsed", "reward-falls", "right-answers-fall", "all-wrong", "truncated", "no-answer"})
"""Findings that batches which are too old may cause."""
NEVER = 0.02
"""Share of waiting below which a batch ahead is not needed; our choice."""


def ahead_rules(history: History) -> Iterator[Finding]:
    """Yield the findings of this module's rules; none for a run that samples nothing ahead."""
    if history.config.rollout.ahead and len(history.series("lag/effective_sample")) >= FEW_STEPS:
        yield from _stale(history)
        yield from _who_waits(history)


def _stale(history: History) -> Iterator[Finding]:
    """Importance weights of a lagging batch that rest on a few tokens, at the end or before the rewards fell away."""
    sizes, lags = history.series("lag/effective_sample"), history.series("lag/mean")
    if lags.max() < 1:
        return
    late = float(sizes[-max(1, len(sizes) // 3) :].mean())
    fell = _fell_at(history)
    before = [size for step, size in zip(history.steps_of("lag/effective_sample"), sizes, strict=True) if step <= fell]
    worst = float(min(before)) if before else 1.0
    low = sizes[sizes < LOW]
    now_and_then = len(low) >= FEW_LOW and len(low) >= OFTEN * len(sizes)
    if min(late, worst) >= LOW and not now_and_then:
        return
    size = min(late, worst, float(low.mean()) if now_and_then else 1.0)
    if min(late, worst) >= LOW:
        found = f"it was below {LOW} in {len(low)} of {len(sizes)} steps, {low.min():.2g} in one"
    elif worst < LOW:
        found = f"it fell to {worst:.2f} before the reward had lost half of its best value (step {fell})"
    else:
        found = f"it was {sizes[0]:.2f} in the first step"
    clips = (
        ", or set algorithm.proximal=sampler, whose clip holds tokens back that have moved since they were sampled"
        if history.config.proximal == "trainer"
        else ""
    )
    yield Finding(
        code="stale",
        level=Level.WARNING,
        cost=min(1.0, 1 - size) * (1.0 if min(late, worst) < LOW else len(low) / len(sizes)),
        title=f"The batches are too old for the policy: their effective sample size is {size:.2f} of 1"
        + ("" if min(late, worst) < LOW else f" in {percent(len(low) / len(sizes))} of the steps")
        + f" ({lags.mean():.1f} updates old on average)",
        evidence=(f"{found}; part of the tokens carries most of the update's weight",),
        change=f"lower optim.lr or rollout.ahead, so that the policy moves less between batches{clips}.",
        explains=frozenset({"gap", "diverging"}) | (DOWNHILL if worst < LOW else frozenset()),
    )


def _fell_at(history: History) -> int:
    """Return the step at which the reward, for good, had lost half of its best value; 0 if it never had."""
    rewards, steps = history.series("reward/mean"), history.steps_of("reward/mean")
    size = max(2, len(rewards) // 10)
    if len(rewards) < 3 * size:
        return 0
    means = np.convolve(rewards, np.ones(size) / size, mode="valid")
    best = int(means.argmax())
    if means[best] <= 0 or rewards[-size:].mean() > means[best] / 2:
        return 0
    return next(step for step, value in zip(steps[best:], rewards[best:], strict=True) if value < means[best] / 2)


def _who_waits(history: History) -> Iterator[Finding]:
    """A trainer that waits for a sampler that is too slow, or a window that is larger than needed."""
    step = history.series("time/step")
    waits = [history.series(name) for name in ("time/rollout", "time/ahead_wait")]
    if any(len(wait) != len(step) for wait in waits):
        return
    whole = max(1e-9, float(step.sum()))
    share = float(sum(wait.sum() for wait in waits)) / whole
    idle = float(history.series("time/sampler_idle").sum()) / whole
    evidence = (f"the sampler was idle for {percent(idle)} of the time",)
    if share >= WAITING and step.mean() >= 0.5:
        yield Finding(
            code="sampler-slow",
            level=Level.NOTE,
            cost=share / 4,
            title=f"The trainer waits {percent(share)} of the time for completions, although they are sampled ahead",
            evidence=evidence,
            change="give the sampler more devices (engine.options.servers), or sample fewer or shorter completions a"
            " step.",
        )
    elif share < NEVER and history.config.rollout.ahead > 1:
        yield Finding(
            code="ahead-unneeded",
            level=Level.NOTE,
            cost=0.01,
            title=f"The trainer never waits with rollout.ahead={history.config.rollout.ahead}: a smaller one would do",
            evidence=evidence,
            change="lower rollout.ahead by one: the completions are then trained on while they are younger.",
        )
