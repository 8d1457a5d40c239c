"""Rules that compute again what the records determine: advantages from rewards, the loss from advantages, limits.

In a healthy run both agree to rounding, so that a difference needs no statistics.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from reasoner.algorithm.group_baselines import GROUP_ADVANTAGES
from reasoner.config.methods import METHODS
from reasoner.observe.explain.finding import Finding, Level, Place, places
from reasoner.observe.explain.policy_rules import DOWNHILL
from reasoner.observe.explain.significance import change, percent
from reasoner.storage.history import History, Row

LITTLE_LEARNED = frozenset({*DOWNHILL, "no-progress", "no-movement", "learning-rate-too-high"}) - {"descends"}
"""Findings that a policy which does not learn may cause."""
WRONG_UPDATE = LITTLE_LEARNED | {"descends"}
"""Findings that wrong advantages or a wrong loss may cause."""


def recomputed_rules(history: History) -> Iterator[Finding]:
    """Yield the findings of this module's rules."""
    learns_from = METHODS[history.config.method].learns_from
    if learns_from is None:
        return
    yield from _rate_of_config(history)
    if learns_from != "rewards":
        yield from _diverges(history)
        yield from _stays(history)
        return
    yield from _advantages(history)
    yield from _loss(history)
    yield from _random_policy(history)
    yield from _random_more_and_more(history)
    yield from _cut_early(history)


def _advantages(history: History) -> Iterator[Finding]:
    """Yield a finding if recorded advantages are not those of the estimator, computed from the recorded rewards."""
    algorithm = history.config.algorithm
    estimator = GROUP_ADVANTAGES.get(algorithm.advantage)
    if estimator is None or algorithm.normalize_components or (algorithm.kl_in == "reward" and algorithm.kl_coef > 0):
        return
    options = {name: value for name, value in algorithm.advantage_options.items() if value is not None}
    off: list[list[Row]] = []
    expected: list[float] = []
    recorded: list[float] = []
    whole = 0
    for group in history.groups:
        graded = [row for row in group if row.reward is not None]
        if not graded or any(row.advantage is None for row in graded):
            continue
        own = estimator([row.reward or 0.0 for row in graded], **options)
        theirs = [row.advantage or 0.0 for row in graded]
        whole += 1
        expected += own
        recorded += theirs
        if not np.allclose(own, theirs, rtol=DIFFERS, atol=DIFFERS):
            off.append(graded)
    share = len(off) / max(1, whole)
    if whole < 8 or share < 0.1:
        return
    scale = _scale(np.asarray(expected), np.asarray(recorded))
    said = ", ".join(f"{row.reward:.3g} -> {row.advantage:.3g}" for row in off[0][:6])
    yield Finding(
        code="advantages-not-of-the-rewards",
        level=Level.FAULT if scale is None else Level.WARNING,
        cost=min(1.0, 0.4 + share / 2) if scale is None else 0.3,
        title=f"The advantages of {percent(share)} of the groups are not those that algorithm.advantage="
        f"{algorithm.advantage} gives for their rewards"
        + ("" if scale is None else f": they are {scale:.3g} times as large"),
        evidence=(f"group {Place(*off[0][0].place)}, reward -> advantage: {said}",),
        change="check what happens between the rewards and the advantages: the scale, a clip, a filter, rows of another"
        " group.",
        rollouts=places([row for group in off for row in group]),
        explains=WRONG_UPDATE | {"loss-not-of-the-rows"},
    )


DIFFERS = 1e-3
"""Difference of two advantages above rounding (our choice)."""


def _scale(expected: NDArray[np.float64], recorded: NDArray[np.float64]) -> float | None:
    """Return the positive factor between two series; None if none fits all."""
    factor = float(expected @ recorded / max(float(expected @ expected), 1e-12))
    fits = factor > 0 and np.allclose(factor * expected, recorded, rtol=0.01, atol=0.01 * np.abs(recorded).max())
    return factor if fits else None


def _loss(history: History) -> Iterator[Finding]:
    """Yield a finding if the recorded loss is not that of the rows in the update.

    Before the one update of a batch every ratio is 1, so that the loss is -sum_n w_n A_n with the aggregation's token
    weights w, apart from a KL, an entropy bonus and a gap of the engine, for which there is a margin.
    """
    config = history.config
    algorithm, once = config.algorithm, config.optim.updates_per_step * config.optim.inner_epochs == 1
    if not once or config.rollout.ahead or algorithm.loss not in ("clip", "gspo", "gspo_token"):
        return
    if algorithm.advantage not in GROUP_ADVANTAGES or algorithm.mask_truncated:
        return
    by_step = {
        name: dict(zip(history.steps_of(name), history.series(name).tolist(), strict=True))
        for name in ("optim/loss", "policy/kl_ref", "policy/entropy", "gap/logprob_abs", "gap/ratio")
    }
    found: defaultdict[str, list[float]] = defaultdict(list)
    for step, loss in by_step["optim/loss"].items():
        rows = [row for row in history.by_step.get(step, []) if row.advantage is not None and row.dropped is None]
        tokens_B = np.asarray([len(row.policy_logprobs) for row in rows], dtype=np.float64)
        advantages_B = np.asarray([row.advantage for row in rows], dtype=np.float64)
        gap = max(by_step["gap/logprob_abs"].get(step, 0.0), abs(by_step["gap/ratio"].get(step, 1.0) - 1))
        if len(rows) < 2 or not tokens_B.all() or not advantages_B.any() or gap > 0.02:
            continue
        beside = algorithm.kl_coef * by_step["policy/kl_ref"].get(step, 0.0) * (algorithm.kl_in == "loss")
        beside -= algorithm.entropy_coef * by_step["policy/entropy"].get(step, 0.0)
        for name, weights_B in _row_weights(tokens_B, config.rollout.max_tokens).items():
            size = float(weights_B @ np.abs(advantages_B))
            margin = abs(beside) + gap * size
            over = abs(loss - beside + float(weights_B @ advantages_B)) - margin
            found[name].append(max(0.0, over) / size)
    own = found[algorithm.aggregation]
    if len(own) < 5 or float(np.median(own)) < 0.02:
        return
    others = [name for name, values in found.items() if float(np.median(values)) < 0.002]
    yield Finding(
        code="loss-not-of-the-rows",
        level=Level.FAULT,
        cost=0.8,
        title="The recorded loss is not the loss of the rows in the update"
        + (f": it is that of algorithm.aggregation={others[0]}" if others else ""),
        evidence=(
            "with a ratio of 1 it is minus the mean advantage, weighted by"
            f" algorithm.aggregation={algorithm.aggregation}; it differs by {percent(float(np.median(own)))} of the"
            f" mean |advantage| (median of {len(own)} steps)",
        ),
        change="check the sum over micro-batches (rows or tokens that are left out, a second division) and the weights"
        " of the tokens.",
        explains=WRONG_UPDATE,
    )


def _row_weights(tokens_B: NDArray[np.float64], max_tokens: int) -> Mapping[str, NDArray[np.float64]]:
    """Return for each aggregation [B] summed weights of a row's tokens: sources in algorithm/token_weights.py."""
    rows = len(tokens_B)
    return {
        "token": tokens_B / tokens_B.sum(),
        "sequence": np.ones(rows) / rows,
        "constant": tokens_B / (rows * max_tokens),
    }


def _random_policy(history: History) -> Iterator[Finding]:
    """Yield a finding if the first entropy is that of a model that was never trained: the log of the vocabulary."""
    entropy = history.series("policy/entropy")
    largest = max((int(row.token_ids.max(initial=0)) for row in history.rows), default=0)
    if not len(entropy) or largest < 64 or history.steps_of("policy/entropy")[0] > 2:
        return
    uniform = float(np.log(largest + 1))
    if entropy[0] < UNTRAINED * uniform:
        return
    path = history.config.model.path
    yield Finding(
        code="policy-untrained",
        level=Level.FAULT if path else Level.WARNING,
        cost=0.95,
        title=f"The policy begins as one that was never trained: its entropy of {entropy[0]:.3g} nats is nearly that of"
        f" a uniform choice among all tokens ({uniform:.3g})",
        evidence=(f"its first completions: {[row.completion[:30] for row in history.rows[:2]]}",),
        change=f"check that the weights of {path} were loaded." if path else "begin with an sft stage.",
        explains=LITTLE_LEARNED | {"wrong-chat-template", "never-ends", "loss-near-zero", "no-diversity"},
    )


UNTRAINED = 0.9
"""Share of the log of the vocabulary above which an entropy is that of random weights (our choice)."""


def _random_more_and_more(history: History) -> Iterator[Finding]:
    """Yield a finding on an entropy bonus under which the policy becomes more random and not better."""
    coef, entropy = history.config.algorithm.entropy_coef, change(history.series("policy/entropy"))
    reward = change(history.series("reward/mean"))
    if coef <= 0 or entropy is None or reward is None or reward.z > 2:
        return
    if entropy.last < max(1.5 * entropy.first, entropy.first + 0.1) or entropy.z < 4:
        return
    yield Finding(
        code="entropy-coef-too-large",
        level=Level.FAULT if reward.z < -4 else Level.WARNING,
        cost=0.9 if reward.z < -4 else 0.5,
        title=f"The entropy bonus (algorithm.entropy_coef={coef:g}) outweighs the reward: the policy becomes more"
        " random, and not better",
        evidence=(
            f"policy/entropy {entropy.first:.3g} -> {entropy.last:.3g} nats a token, reward/mean {reward.first:.3f} ->"
            f" {reward.last:.3f}",
        ),
        change="lower algorithm.entropy_coef tenfold, or set it to 0.",
        explains=LITTLE_LEARNED | {"length-drift", "never-ends", "evaluation-falls", "repetition"},
    )


def _cut_early(history: History) -> Iterator[Finding]:
    """Yield a finding on completions that were cut at a length below rollout.max_tokens."""
    limit = history.config.rollout.max_tokens
    rows = [row for row in history.rows if row.turns is None]
    early = [row for row in rows if row.truncated and row.tokens < limit]
    if len(early) < 5 or len(early) < 0.02 * len(rows):
        return
    lengths = np.asarray([row.tokens for row in early])
    total = np.asarray([row.tokens + len(row.prompt_ids) for row in early])
    context = len(set(total.tolist())) == 1 and len(set(lengths.tolist())) > 1
    yield Finding(
        code="cut-before-the-limit",
        level=Level.FAULT,
        cost=max(0.5, len(early) / len(rows)),
        title=f"{percent(len(early) / len(rows))} of the completions are cut at {np.median(lengths):.0f} tokens, below"
        f" rollout.max_tokens={limit}",
        evidence=(
            f"prompt and completion have {total[0]} tokens in each: the context of the engine ends there"
            if context
            else "their finish_reason is length, so that another limit than the config's was applied",
        ),
        change="check the engine's own limits (context, max_tokens of a request, of a server).",
        rollouts=places(early),
        explains=LITTLE_LEARNED | {"answers-cut", "evaluation-cut"},
    )


def _rate_of_config(history: History) -> Iterator[Finding]:
    """Yield a finding on a learning rate above optim.lr, or one of a constant schedule that is not constant."""
    optim, rates, steps = history.config.optim, history.series("optim/lr"), history.steps_of("optim/lr")
    if len(rates) < 5:
        return
    warm = np.asarray(steps) > optim.warmup_steps + 1
    above = float(rates.max()) > 1.01 * optim.lr
    sinks = optim.schedule == "constant" and warm.any() and float(rates[warm].min()) < 0.99 * optim.lr
    if not (above or sinks):
        return
    yield Finding(
        code="learning-rate-not-of-config",
        level=Level.FAULT,
        cost=0.7,
        title=f"The learning rate is not that of the config: {rates.min():.3g} to {rates.max():.3g}, where optim.lr="
        f"{optim.lr:g} with schedule {optim.schedule}",
        evidence=(f"last recorded rate {rates[-1]:.3g} at step {steps[-1]}",),
        change="look for what else sets the rate: a second scheduler, one that is stepped too often, a checkpoint's"
        " optimizer state.",
        explains=LITTLE_LEARNED | {"learning-rate-zero", "evaluation-falls"},
    )


def _diverges(history: History) -> Iterator[Finding]:
    """Yield a finding if the training loss of a stage without rewards ends far above its lowest part."""
    loss = history.series("optim/loss")
    size = len(loss) // 5
    if size < 2:
        return
    parts = [loss[place : place + size] for place in range(0, len(loss) - size + 1, size)]
    best = min(parts[:-1], key=np.mean)
    last = parts[-1]
    error = float(np.sqrt(best.var(ddof=1) / size + last.var(ddof=1) / size))
    rise = float(last.mean() - best.mean())
    if rise < 0.15 * abs(float(best.mean())) or rise < 4 * error or rise < 0.02:
        return
    optim, norms = history.config.optim, history.series("optim/grad_norm")
    yield Finding(
        code="loss-diverges",
        level=Level.FAULT,
        cost=0.9,
        title=f"The training loss rises again, from {best.mean():.3g} to {last.mean():.3g}: the steps are too large",
        evidence=(
            f"optim.lr={optim.lr:g}"
            + (f", gradient norm {np.median(norms):.2g} (median), {norms.max():.2g} at most" if len(norms) else ""),
        ),
        change="lower optim.lr three- to tenfold, or raise optim.warmup_steps.",
        explains=LITTLE_LEARNED | {"evaluation-falls", "no-better-than-a-coin", "overfitted", "chosen-likelihood-lost"},
    )


def _stays(history: History) -> Iterator[Finding]:
    """Yield a finding if the training loss of a stage without rewards is at its end what it was at its begin."""
    loss = history.series("optim/loss")
    found = change(loss)
    if found is None or len(loss) < 16 or not history.complete or found.first < 0.02:
        return
    if found.z < -3 or found.last < 0.98 * found.first:
        return
    norms = history.series("optim/grad_norm")
    if found.z > 4 and found.last > 1.15 * found.first:
        return  # it diverges
    yield Finding(
        code="loss-does-not-fall",
        level=Level.WARNING,
        cost=0.7,
        title=f"The training loss does not fall: {found.first:.3g} in the first quarter, {found.last:.3g} in the last",
        evidence=(
            f"optim.lr={history.config.optim.lr:g}"
            + (f", gradient norm {np.median(norms):.2g} (median)" if len(norms) else ""),
        ),
        change="raise optim.lr (tenfold, to begin with), or check that the weights are trained and that the rows say"
        " something that can be learned.",
        explains=frozenset({"no-progress", "no-better-than-a-coin", "evaluation-falls"}),
    )
