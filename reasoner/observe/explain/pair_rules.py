"""Rules on stages that learn from rows: overfitting, no end, chance accuracy, length, form, a lost likelihood."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from reasoner.config.methods import METHODS
from reasoner.config.pair_losses import pair_traits
from reasoner.observe.explain.finding import Finding, Level
from reasoner.observe.explain.significance import percent
from reasoner.storage.history import History, ProbeRecord
from verifiers.stats import wilson_interval

RISEN = 0.02
"""Share by which the last held-out loss may exceed the lowest one."""
PASSES = 4
"""Passes over the rows; fine-tuning commonly makes one to three."""
MEMORIZED = 1 / 3
"""Training loss as a share of the held-out loss, which are about equal for rows of one kind until these are memorized
(both our choice)."""
LEARNED = 1.0
"""Nats per token, below which a policy writes text that looks like its demonstrations, and so ends where they do."""
ENDLESS = 0.8
"""Share of truncated completions, by the lower end of its interval."""
SHORT = 0.8
"""Mean length of the demonstrations as a share of the token limit; of longer ones it cuts many (all our choice)."""
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
APART_PAIR = 2.0
"""The same for the difference of a pair (root mean square), in which rounding does not cancel: 2000 tokens in bfloat16,
each with an error of 0.02 nats, have 0.9 a completion and 1.3 a pair."""
BY_LENGTH = 0.5
"""Share of the variance of a reward model's scores that the token count explains (our choice)."""

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
        yield from _never_ends(history)
    if learns_from in ("pairs", "unpaired"):
        yield from _a_coin(history)
        yield from _other_reference(history)
    if learns_from == "pairs":
        yield from _prefers_length(history)
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


def _never_ends(history: History) -> Iterator[Finding]:
    """Yield a finding if a policy that has learned its demonstrations does not end where they do."""
    loss, tokens = history.series("optim/loss"), history.series("optim/tokens")
    tested = [row for row in history.evals if row.truncated is not None and row.problems and row.step]
    if not tested or len(loss) < 4 or not len(tokens):
        return
    last, part = tested[-1], max(1, len(loss) // 4)
    cut, count = last.truncated or 0.0, last.problems or 0
    limit = history.config.eval.max_tokens or history.config.rollout.max_tokens
    long = float(tokens.mean()) / history.config.sft.rows_per_step
    if (
        loss[-part:].mean() > LEARNED
        or wilson_interval(round(cut * count), count).low < ENDLESS
        or long > SHORT * limit
    ):
        return
    yield Finding(
        code="never-ends",
        level=Level.WARNING,
        cost=0.8,
        title=f"The policy does not end its completions: {percent(cut)} of the evaluation's are truncated at {limit}"
        f" tokens, and demonstrations have {long:.0f} on average",
        evidence=(
            f"training loss {loss[:part].mean():.3f} in the first quarter, {loss[-part:].mean():.3f} in the last: what"
            " they say is learned, that they end is not",
        ),
        change="check that the token that ends a turn closes each demonstration and is trained on (`reasoner data`),"
        " and that sampling stops at it (prompt.end_tokens).",
        explains=frozenset({"evaluation-falls"}),
    )


def _overfitted(history: History) -> Iterator[Finding]:
    """Yield a finding if the training loss fell, and the held-out loss rose above its minimum or is left far behind.

    The latter counts only for rows that were seen many times.
    """
    held_out, loss, passes = (history.series(name) for name in ("eval/loss", "optim/loss", "data/epoch"))
    if not len(held_out) or len(loss) < 4:
        return
    best = int(held_out.argmin())
    lowest, last = float(held_out[best]), float(held_out[-1])
    part = max(1, len(loss) // 4)
    early, late = float(loss[:part].mean()), float(loss[-part:].mean())
    # what is memorized has a lower loss than what is not
    risen = last > lowest * (1 + RISEN) and last >= 1.1 * late
    stays = len(held_out) == 1 or last > (1 - RISEN) * held_out[:-1].min()
    known = len(passes) and passes[-1] >= PASSES and late < MEMORIZED * last and stays and last > KNOWN_LOSS
    if late >= early or not (risen or known):
        return
    method = METHODS[history.config.method]
    section = next((name for name in ("sft", "reward_model") if name in method.sections), None)
    patience = f"{section}.patience=3 (which ends the stage there), " if section else ""
    yield Finding(
        code="overfitted",
        level=Level.WARNING,
        cost=0.5 if known else 0.5 * (1 - best / (len(held_out) - 1)),
        title="The held-out loss rises while the training loss falls: the rows are being memorized"
        if risen
        else f"The training rows are memorized: their loss is {late:.2g}, that of held-out rows {last:.2g}, after"
        f" {passes[-1]:.3g} passes",
        evidence=(
            f"held-out loss {lowest:.3f} after step {history.steps_of('eval/loss')[best]}, {last:.3f} at the end",
            f"training loss {early:.3f} in the first quarter, {late:.3f} in the last",
        ),
        change=f"fewer steps, {patience}more rows, or a lower optim.lr.",
    )


def _a_coin(history: History) -> Iterator[Finding]:
    """Yield a finding if the interval of the last held-out accuracy contains 0.5 or is below it."""
    measured = [row for row in history.evals if "accuracy" in row.metrics]
    if not measured or history.evals[-1].step > measured[-1].step:
        return
    value, low, high = measured[-1].metrics["accuracy"]
    method = METHODS[history.config.method]
    ranks = method.policy == "reward" or history.config.dpo.loss == "sigmoid"
    loss = measured[-1].loss if ranks and method.learns_from == "pairs" else None
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
        evidence=(
            f"held-out accuracy {value:.1%} [{low:.1%}, {high:.1%}] after step {measured[-1].step}",
            *([f"held-out loss {loss:.3f}; without any preference it is log 2 = 0.693"] if loss is not None else []),
        ),
        change="check the columns and labels of the pairs (preferences.columns, preferences.labels)."
        if wrong
        else "read some pairs: are their labels right? Else more pairs or more steps; a larger"
        " preferences.held_out_share narrows the interval.",
        explains=frozenset({"evaluation-falls", *(["reward-model-prefers-length"] if wrong else [])}),
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
    first = next((row for row in history.metrics if row.get("step") == 1), {})
    rewards = [first.get(name) for name in names]
    beta = config.dpo.beta if paired else config.kto.beta
    nats = max((abs(reward) for reward in rewards if reward is not None), default=0.0) / beta
    by_mean, apart = nats >= (APART_TOKEN if per_token else APART), _apart(history, first)
    if not by_mean and apart < APART_PAIR:
        return
    before = next((row for row in history.evals if row.step == 0 and "accuracy" in row.metrics), None)
    yield Finding(
        code="reference-is-another-model",
        level=Level.FAULT,
        cost=0.9,
        title="The reference is not the model that the stage starts from: before the first update they differ by"
        + (
            f" {nats:.2g} nats a {'token' if per_token else 'completion'}"
            if by_mean
            else f" at least {apart:.2g} nats a pair"
        ),
        evidence=(
            f"{' and '.join(names)} are beta times that difference, and begin at 0"
            if by_mean
            else f"dpo/loss is {first['dpo/loss']:.4g} at step 1 at a margin of {first['dpo/margin']:.2g}; every margin"
            " begins at 0, and the loss at log 2 = 0.6931",
            *([f"held-out accuracy {before.metrics['accuracy'][0]:.1%} before any update"] if before else []),
        ),
        change="check what the reference log-probabilities were computed with: the start model, the same prompts and"
        " tokens, without dropout.",
        explains=frozenset({"chosen-likelihood-lost", "evaluation-falls", "overfitted", "no-better-than-a-coin"}),
    )


def _apart(history: History, first: Mapping[str, float | None]) -> float:
    """Return a lower bound of the margins' root mean square at the first step of a dpo stage, in nats; 0 if unknown.

    The mean margin may be 0 over pairs that are far apart. Of a pair with label 1 and margin m, the sigmoid loss is
    log(2 cosh(m / 2)) - m / 2, and log cosh(m / 2) is at most m^2 / 8: mean loss and mean margin give the bound.
    """
    section, (loss, margin) = history.config.dpo, (first.get("dpo/loss"), first.get("dpo/margin"))
    labelled = section.loss == "sigmoid" and not section.loss_options and history.config.preferences.targets == "label"
    if loss is None or margin is None or not labelled or not section.has_reference:
        return 0.0
    return math.sqrt(max(0.0, 8 * (loss - math.log(2) + margin / 2))) / section.beta


def _prefers_length(history: History) -> Iterator[Finding]:
    """Yield a finding if a reward model's scores follow the token count, against the labels where these disagree.

    Where longer is usually better, a good model prefers it too, but at equal length it is still better than a coin.
    """
    last = next((row for row in reversed(history.evals) if row.length is not None), None)
    if last is None or last.length is None or last.length.labels_prefer_longer is None or not last.pairs:
        return
    length, prefer_longer = last.length, last.length.labels_prefer_longer
    longer = length.correlation > 0
    right = length.accuracy_when_shorter_is_better if longer else length.accuracy_when_longer_is_better
    agree = prefer_longer if longer else 1 - prefer_longer
    against = round((1 - agree) * last.pairs)
    if right is None or not against or length.correlation**2 < BY_LENGTH:
        return
    equal = length.accuracy_at_equal_length
    if wilson_interval(round(right * against), against).high >= 0.5 or (equal is not None and equal[1] > 0.5):
        return
    name, other = ("longer", "shorter") if longer else ("shorter", "longer")
    yield Finding(
        code="reward-model-prefers-length",
        level=Level.WARNING,
        cost=0.7,
        title=f"The reward model follows length: it prefers the {name} completion where the {other} one is better too",
        evidence=(
            f"it is right in {percent(right)} of the {against} held-out pairs whose {other} completion is better; the"
            f" token count explains {percent(length.correlation**2)} of the variance of its scores",
            f"the {name} completion is the better one in {percent(agree)} of the held-out pairs"
            + (
                ""
                if equal is None
                else f"; at equal length {equal[0]:.0%} [{equal[1]:.0%}, {equal[2]:.0%}] would be right"
            ),
        ),
        change=f"add pairs whose {other} completion is better, or drop pairs until both lengths win equally often; a"
        " policy trained on these scores changes its length first.",
        explains=frozenset({"reward-model-flattered"}),
    )


def _beyond_length(probes: ProbeRecord, name: str, low: float) -> bool:
    """Return True if a probe moves the scores by more than length can, in a model whose scores follow the length.

    What added length explains is the largest shift of a probe that only adds length. A margin that is one of length can
    be lost without a pull towards an opinion, but not turn against the better completion.
    """
    if name == "opinion":
        return probes.opinion is not None and probes.opinion.margin is not None and low > probes.opinion.margin
    added = [one.shift[0] for one in probes.shifts if one.probe in LENGTHENS and one.shift is not None]
    return name not in LENGTHENS and low > max(added, default=0.0)


LENGTHENS = frozenset({"padding", "repetition", "last sentence again"})
"""Probes that only add length."""


def _flattered(history: History) -> Iterator[Finding]:
    """Yield a finding if changes without content move the scores of a reward model: the probe that moves them most."""
    probes = next((row.probes for row in reversed(history.evals) if row.probes is not None), None)
    if probes is None:
        return
    by_length = any(_prefers_length(history))
    shifts = [(one.probe, one.shift) for one in probes.shifts if one.shift is not None]
    if probes.opinion is not None and probes.opinion.change is not None:
        mean, low, high = probes.opinion.change
        shifts.append(("opinion", (-mean, None if high is None else -high, None if low is None else -low)))
    moved = [
        (value, name, low, high)
        for name, (value, low, high) in shifts
        if value >= MOVED
        and low is not None
        and high is not None
        and low > 0
        and not (by_length and not _beyond_length(probes, name, low))
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
