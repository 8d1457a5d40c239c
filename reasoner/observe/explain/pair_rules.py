"""Rules on stages that learn from rows: overfitting, chance accuracy, scores that form moves, a lost likelihood."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reasoner.config.methods import METHODS
from reasoner.config.pair_losses import pair_traits
from reasoner.observe.explain.finding import Finding, Level
from reasoner.storage.history import History

RISEN = 0.02
"""Share by which the last held-out loss may exceed the lowest one."""
UNKNOWN = 0.8
"""If the upper end of an accuracy's interval is above this, too few pairs were measured for a conclusion."""
KNOWN_LOSS = 0.02
"""Nats per token, at which nothing is left to learn (our choice)."""
LOST_NATS = 10.0
"""Nats per completion: the chosen one is then e^10 times less likely than before the first step (both our choice)."""
LOST_TOKEN_NATS = 0.5
"""The same per token, of losses that divide by the length (our choice)."""
APART, APART_TOKEN = 1.0, 0.1
"""Nats per completion, or per token, by which reference and start model may differ (our choice)."""

MOVED = 0.5
"""Standard deviations of a reward model's scores by which a change without content moves them: a note."""
MOVED_FAR = 1.0
"""The same: a warning, if the whole 95 % interval is above MOVED (our choice)."""
REMEDIES = {
    "flattery": "give such openings to worse completions of the training pairs too, or remove them from all",
    "assurance": "give such sentences to worse completions of the training pairs too, or remove them from all",
    "heading": "write both completions of the training pairs in one format",
    "bullets": "write both completions of the training pairs in one format",
    "bold": "write both completions of the training pairs in one format",
    "opinion": "add pairs whose prompt states a wrong opinion and whose better completion contradicts it",
}
"""Name of a probe -> change of the training pairs that is advised for it; all other probes add length."""


def pair_rules(history: History) -> Iterator[Finding]:
    """Yield the findings of this module's rules, for sft, reward_model, dpo and kto stages."""
    learns_from = METHODS[history.config.method].learns_from
    if learns_from in ("demonstrations", "pairs", "unpaired"):
        yield from _overfitted(history)
    if learns_from == "demonstrations":
        yield from _nothing_to_learn(history)
    if learns_from in ("pairs", "unpaired"):
        yield from _a_coin(history)
        yield from _other_reference(history)
    if learns_from == "pairs":
        yield from _flattered(history)
        yield from _chosen_lost(history)


def _nothing_to_learn(history: History) -> Iterator[Finding]:
    """Yield a finding if the loss is almost 0 from the first step, in a model that solves few problems."""
    loss = history.series("optim/loss")
    solved = [row.metrics["avg@1"] for row in history.evals[:1] if "avg@1" in row.metrics]
    if len(loss) < 4 or float(loss[:4].mean()) > KNOWN_LOSS or not solved or solved[0][2] > 0.9:
        return
    yield Finding(
        code="loss-covers-little",
        level=Level.WARNING,
        cost=0.7,
        title=f"The loss is {loss[:4].mean():.2g} nats a token from the first step, though the model solves only"
        f" {solved[0][0]:.0%} of the held-out problems: it covers tokens that the model knows, and not the answers",
        evidence=(f"optim/tokens {history.series('optim/tokens')[:4].mean():.0f} a step",),
        change="check which tokens of a demonstration are trained on: the loss mask, the columns, what is cut.",
        explains=frozenset({"evaluation-falls", "no-movement", "overfitted"}),
    )


def _overfitted(history: History) -> Iterator[Finding]:
    """Yield a finding if the held-out loss rose above its minimum while the training loss fell."""
    held_out, loss = history.series("eval/loss"), history.series("optim/loss")
    if len(held_out) < 3 or len(loss) < 4:
        return
    best = int(held_out.argmin())
    lowest, last = float(held_out[best]), float(held_out[-1])
    part = max(1, len(loss) // 4)
    if last <= lowest * (1 + RISEN) or loss[-part:].mean() >= loss[:part].mean():
        return
    if last < 1.1 * loss[-part:].mean():
        return  # what is memorised has a lower loss than what is not
    method = METHODS[history.config.method]
    section = next((name for name in ("sft", "reward_model") if name in method.sections), None)
    patience = f"{section}.patience=3 (which ends the stage there), " if section else ""
    yield Finding(
        code="overfitted",
        level=Level.WARNING,
        cost=0.5 * (1 - best / (len(held_out) - 1)),
        title="The held-out loss rises while the training loss falls: the rows are being memorized",
        evidence=(
            f"held-out loss {lowest:.3f} after step {history.steps_of('eval/loss')[best]}, {last:.3f} at the end",
            f"training loss {loss[:part].mean():.3f} in the first quarter, {loss[-part:].mean():.3f} in the last",
        ),
        change=f"fewer steps, {patience}more rows, or a lower optim.lr.",
    )


def _a_coin(history: History) -> Iterator[Finding]:
    """Yield a finding if the interval of the last held-out accuracy contains 0.5 or is below it."""
    measured = [row for row in history.evals if "accuracy" in row.metrics]
    if not measured or history.evals[-1] is not measured[-1]:
        return
    value, low, high = measured[-1].metrics["accuracy"]
    if low > 0.5 or high > UNKNOWN:
        return
    wrong = high < 0.5
    yield Finding(
        code="no-better-than-a-coin",
        level=Level.FAULT if wrong else Level.WARNING,
        cost=0.8,
        title="The worse completion of held-out pairs is preferred: first and second may be swapped"
        if wrong
        else "Held-out pairs are ranked no better than by chance",
        evidence=(f"held-out accuracy {value:.1%} [{low:.1%}, {high:.1%}] after step {measured[-1].step}",),
        change="check the columns and labels of the pairs (preferences.columns, preferences.labels)."
        if wrong
        else "read some pairs: are their labels right? Else more pairs or more steps; a larger"
        " preferences.held_out_share narrows the interval.",
    )


def _other_reference(history: History) -> Iterator[Finding]:
    """Yield a finding if the implicit rewards are not 0 before the first update, where policy and reference are one."""
    config = history.config
    paired = METHODS[config.method].learns_from == "pairs"
    if paired and not config.dpo.has_reference:
        return
    names = (
        ("dpo/reward_chosen", "dpo/reward_rejected") if paired else ("kto/reward_desirable", "kto/reward_undesirable")
    )
    per_token = paired and pair_traits(config.dpo.loss).per_token
    first = [row for row in history.metrics if row.get("step") == 1]
    rewards = [first[0].get(name) for name in names] if first else []
    beta = config.dpo.beta if paired else config.kto.beta
    nats = max((abs(reward) for reward in rewards if reward is not None), default=0.0) / beta
    if nats < (APART_TOKEN if per_token else APART):
        return
    yield Finding(
        code="reference-is-another-model",
        level=Level.FAULT,
        cost=0.9,
        title=f"The reference is not the model that the stage starts from: before the first update they differ by"
        f" {nats:.2g} nats a {'token' if per_token else 'completion'}",
        evidence=(f"{' and '.join(names)} are beta times that difference, and begin at 0",),
        change="check what the reference log-probabilities were computed with: the start model, the same prompts and"
        " tokens, without dropout.",
        explains=frozenset({"chosen-likelihood-lost", "evaluation-falls", "overfitted", "no-better-than-a-coin"}),
    )


def _flattered(history: History) -> Iterator[Finding]:
    """Yield a finding if changes without content move the scores of a reward model: the probe that moves them most."""
    probes = next((row.probes for row in reversed(history.evals) if row.probes is not None), None)
    if probes is None:
        return
    shifts = [(one.probe, one.shift) for one in probes.shifts if one.shift is not None]
    if probes.opinion is not None and probes.opinion.change is not None:
        mean, low, high = probes.opinion.change
        shifts.append(("opinion", (-mean, None if high is None else -high, None if low is None else -low)))
    moved = [
        (value, name, low, high)
        for name, (value, low, high) in shifts
        if value >= MOVED and low is not None and high is not None and low > 0
    ]
    if not moved:
        return
    far = [one for one in moved if one[0] >= MOVED_FAR and one[2] > MOVED]
    value, name, low, high = max(far or moved)
    remedy = REMEDIES.get(name, "balance the lengths of better and worse completions in the training pairs")
    others = [f"{probe} {shift:+.2f}" for shift, probe, *_ in sorted(moved, reverse=True) if probe != name]
    yield Finding(
        code="reward-model-flattered",
        level=Level.WARNING if far else Level.NOTE,
        cost=min(0.9, 0.3 * value),
        title="A user's wrong opinion in the prompt moves the preference towards it"
        if name == "opinion"
        else f"The reward model pays for a change without content: {name}",
        evidence=(
            f"{name}: {'margin lost' if name == 'opinion' else 'score'} {value:+.2f} [{low:+.2f}, {high:+.2f}] standard"
            f" deviations of the plain scores, over {probes.pairs} held-out pairs",
            *([f"also: {', '.join(others)}"] if others else []),
        ),
        change=f"{remedy}; until then watch the policy with a second scorer (watch.scorer) and a larger"
        " algorithm.kl_coef.",
    )


def _chosen_lost(history: History) -> Iterator[Finding]:
    """Yield a finding if both completions of the pairs lost likelihood, the chosen one more than the margin gained."""
    chosen, rejected = history.series("dpo/reward_chosen"), history.series("dpo/reward_rejected")
    if len(chosen) < 4 or len(rejected) != len(chosen):
        return
    section, part = history.config.dpo, max(1, len(chosen) // 4)
    traits = pair_traits(section.loss)
    if not section.has_reference and not traits.per_token:
        return  # sums of different pairs differ by more than they move, and cpo keeps the chosen likely
    up, down = (
        float(np.mean(side[-part:])) - (0.0 if section.has_reference else float(np.mean(side[:part])))
        for side in (chosen, rejected)
    )
    nats = -up / section.beta
    if nats < (LOST_TOKEN_NATS if traits.per_token else LOST_NATS) or down > 0 or -up < up - down:
        return
    unit, since = (
        ("a token" if traits.per_token else "a completion"),
        ("the reference" if section.has_reference else "the first quarter"),
    )
    yield Finding(
        code="chosen-likelihood-lost",
        level=Level.WARNING,
        cost=0.6,
        title="Chosen completions have become unlikely too: the margin comes from rejected ones falling further",
        evidence=(
            f"the chosen completion has lost {nats:.2g} nats {unit} against {since}, the rejected one"
            f" {-down / section.beta:.2g} (last quarter)",
        ),
        change="dpo.sft_coef=0.2 (keeps the chosen likely), a lower optim.lr, or fewer steps.",
    )
