"""Rules on what a run sets itself: the learning rate over its length, and the reference model of the KL."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reasoner.config.methods import METHODS
from reasoner.observe.explain.finding import Finding, Level
from reasoner.observe.explain.significance import percent
from reasoner.storage.history import History

IDLE_RATE = 1e-3
"""Share of optim.lr below which a step trains nothing (our choice)."""
START_KL = 0.05
"""Nats per token: policy and reference are the same model before the first update, so that the KL is 0."""
FAR_KL = 0.5
"""Nats per token at which a reference that the config names is hardly the model that the policy starts from (our
choice)."""
MOVED = 1e-3
"""Nats per token, added over the steps, after which the KL to a fixed reference cannot be 0."""


def schedule_rules(history: History) -> Iterator[Finding]:
    """Yield the findings of this module's rules."""
    if METHODS[history.config.method].learns_from is None:
        return
    yield from _rate(history)
    yield from _optimizer(history)
    yield from _reference(history)
    yield from _negative(history)


PULLED = frozenset(
    {
        "kl-coef-too-large",
        "kl-coef-too-small",
        "reward-falls",
        "rewards-collapsed",
        "all-wrong",
        "truncated",
        "length-drift",
        "evaluation-cut",
        "no-progress",
    }
)
"""Findings that a pull towards the wrong model, or away from the right one, may cause."""


def _negative(history: History) -> Iterator[Finding]:
    """A KL to the reference whose estimate is below 0: of samples of the policy, log policy - log reference is not."""
    kl = history.series("kl/ref")
    last = kl[-max(3, len(kl) // 4) :]
    if len(kl) < 5 or float(np.median(last)) > -1.0:
        return
    yield Finding(
        code="kl-negative",
        level=Level.FAULT,
        cost=0.8,
        title=f"The KL to the reference is negative ({np.median(last):.2g} nats a completion in the last steps): the"
        " samples are likelier under the reference than under the policy that wrote them",
        evidence=("its mean over samples of the policy is at least 0",),
        change="check the sign of the KL (log policy - log reference), and that both score the sampled tokens.",
        explains=PULLED,
    )


def _rate(history: History) -> Iterator[Finding]:
    """A learning rate that is 0 in a part of the run, or that warms up for most of it."""
    optim, steps = history.config.optim, history.config.steps
    rates = history.series("optim/lr")
    still = rates < IDLE_RATE * optim.lr
    idle = float(still.mean()) if len(rates) else 0.0
    warming = min(optim.warmup_steps, steps) / steps
    if len(rates) >= 5 and idle > 0.2:
        zero = [step for step, none in zip(history.steps_of("optim/lr"), still, strict=True) if none]
        yield Finding(
            code="learning-rate-zero",
            level=Level.FAULT,
            cost=max(0.5, idle),
            title=f"The learning rate is 0 in {percent(idle)} of the steps: nothing is learned there",
            evidence=(f"steps {zero[0]} to {zero[-1]}; optim.lr={optim.lr:g}, schedule {optim.schedule}",),
            change="check the schedule's length against the number of steps (optim.schedule, optim.warmup_steps,"
            " steps).",
            explains=frozenset({"no-progress", "no-movement"}),
        )
    elif len(rates) >= 5 and warming > 0.5:
        yield Finding(
            code="warm-up-too-long",
            level=Level.WARNING,
            cost=warming / 2,
            title=f"The learning rate warms up for {percent(warming)} of the run (optim.warmup_steps="
            f"{optim.warmup_steps} of {steps} steps)",
            evidence=(f"its largest value so far is {rates.max():.2g} of optim.lr={optim.lr:g}",),
            change=f"set optim.warmup_steps={max(1, steps // 10)}.",
            explains=frozenset({"no-progress", "no-movement"}),
        )


def _optimizer(history: History) -> Iterator[Finding]:
    """Settings of AdamW that outweigh the gradient: a weight decay that shrinks the weights, a large epsilon."""
    optim, rates = history.config.optim, history.series("optim/lr")
    shrunk = 1 - float(np.prod(1 - np.clip(rates * optim.weight_decay, 0.0, 1.0)))
    if shrunk > 0.05:
        yield Finding(
            code="weight-decay-too-large",
            level=Level.WARNING,
            cost=0.5 + shrunk / 2,
            title=f"The weight decay has shrunk the weights by {percent(shrunk)}: it moves the policy, whatever the"
            " rewards are",
            evidence=(f"optim.weight_decay={optim.weight_decay:g}, multiplied by the learning rate in each update",),
            change="lower optim.weight_decay to 0.01 or 0.",
            explains=frozenset({"reward-falls", "right-answers-fall", "rewards-collapsed", "no-progress", "descends"}),
        )
    if optim.eps >= LARGE_EPS:
        yield Finding(
            code="epsilon-too-large",
            level=Level.WARNING,
            cost=0.5,
            title=f"optim.eps={optim.eps:g} outweighs the gradient: the steps are smaller than optim.lr says",
            evidence=(
                "AdamW divides by the root of the mean squared gradient of an element plus eps; that root is about the"
                " gradient's norm over the root of the number of parameters",
            ),
            change="set optim.eps=1e-8.",
            explains=frozenset({"no-progress", "no-movement"}),
        )


LARGE_EPS = 1e-4
"""Epsilon of AdamW that no common recipe reaches: they use 1e-8 to 1e-5 (our choice)."""


def _reference(history: History) -> Iterator[Finding]:
    """A reference that differs from the start model before anything was learned, or that moves with the policy."""
    kl, steps = history.series("policy/kl_ref"), history.steps_of("policy/kl_ref")
    if not len(kl):
        return
    optim, algorithm = history.config.optim, history.config.algorithm
    moved = float(history.series("policy/step_kl").clip(min=0).sum())
    at_start = steps[0] <= 1 and optim.updates_per_step * optim.inner_epochs == 1
    named = algorithm.reference
    if at_start and kl[0] > (START_KL if named is None else FAR_KL):
        yield Finding(
            code="reference-is-another-model",
            level=Level.FAULT if named is None else Level.WARNING,
            cost=0.8 if named is None else 0.7,
            title=f"The reference of the KL{f' ({named})' if named else ''} is not the start model: they differ by"
            f" {kl[0]:.2g} nats a token before the first update",
            evidence=("the policy is pulled towards another model from the first step on",),
            change="load the reference from the model that the policy starts from (leave algorithm.reference out).",
            explains=PULLED,
        )
    elif len(kl) >= 5 and abs(kl).max() < 1e-7 and moved > MOVED:
        yield Finding(
            code="reference-moves",
            level=Level.FAULT,
            cost=0.6,
            title="The KL to the reference is 0 in every step, though the policy moves: the reference follows it",
            evidence=(f"policy/step_kl adds up to {moved:.2g} nats a token over {len(kl)} steps",),
            change="keep a copy of the start model as reference: it shares its parameters with the policy, or is"
            " updated with it.",
        )
