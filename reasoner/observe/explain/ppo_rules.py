"""Rules on PPO's failures: a diverging value model, wrong KL control, collapsing rewards, reward hacking."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reasoner.config.methods import METHODS
from reasoner.observe.explain.finding import Finding, Level
from reasoner.observe.explain.significance import change, percent
from reasoner.storage.history import History
from verifiers.stats import from_best

CERTAIN = 3.0
"""Standard errors by which a curve must have moved (our choice)."""
AGREED = 0.1
"""Correlation over a step's rollouts below which the reward says almost nothing about the held-out scorer's."""
BLOWN_UP = 10.0
"""Squared error of the values relative to that of values of 0, which is the mean square of the returns."""
DEAD = 0.1
"""Explained variance below which a value model has almost no effect (all of these are our choice)."""
CLIP_STEPS = 5
"""Distance of the mean value from the mean return in units of value.clip_range: so many steps at least. Values that
follow their returns are within one."""
CLIPPED = 0.1
"""Share of the tokens whose value the clip holds; where values follow their returns it is seldom above."""
DISCOUNTED = 0.7
"""Share of the reward that gamma leaves to the average token of a completion (all our choice)."""
FAR_NATS = 10.0
"""Nats per completion: the sampled text is then e^10 times likelier under the policy than under its reference."""
FAR_NATS_TOKEN = 0.5
"""Nats per token, for short completions: each token is 1.6 times likelier than under the reference (both our
choice)."""


def ppo_rules(history: History) -> Iterator[Finding]:
    """Yield the findings of this module's rules; none for a stage without a value model, KL and learned reward."""
    if METHODS[history.config.method].learns_from is None:
        return
    yield from _value_diverges(history)
    yield from _value_idle(history)
    yield from _value_clipped(history)
    yield from _discounted(history)
    yield from _returns_lost(history)
    yield from _kl_control(history)
    yield from _collapse(history)
    yield from _hacked(history)
    yield from _disagrees(history)


def _value_diverges(history: History) -> Iterator[Finding]:
    """Yield a finding if the value's error grows while it explains little, or once grew and it explains nothing."""
    explained, error = history.series("value/explained_variance"), history.series("value/error_squared")
    grown, zero = change(error), history.series("value/return_squared")
    if grown is None or not len(explained) or len(zero) != len(error):
        return
    last = float(explained[-max(2, len(explained) // 4) :].mean())
    times = float((error / zero.clip(1e-12))[1:].max())  # the first is that of a value model that has learned nothing
    if last < -0.5 and grown.z > CERTAIN and grown.last > 2 * grown.first:
        evidence = f"its squared error went from {grown.first:.3g} to {grown.last:.3g}"
    elif last < DEAD and times > BLOWN_UP:
        evidence = f"its squared error reached {error.max():.3g}, {times:.0f} times that of a value of 0"
    else:
        return
    yield Finding(
        code="value-diverging",
        level=Level.FAULT,
        cost=0.7,
        title="The value model diverges: advantages are measured against a baseline that is no better than none",
        evidence=(
            evidence,
            f"explained variance is {last:.2f} in the last quarter (1 perfect, 0 no better than a constant)",
        ),
        change="lower value.lr, keep value.clip_range, warm the value up first (value.warmup_steps), or start it from"
        " the reward model (value.init).",
    )


def _value_idle(history: History) -> Iterator[Finding]:
    """Yield a finding if the values stay where they began while the returns are elsewhere."""
    before, returns = history.series("value/before"), history.series("value/returns")
    if len(before) < 10 or len(returns) != len(before):
        return
    far = float(np.abs(returns - before).mean())
    moved = float(np.abs(before - before[0]).max())
    if far < 0.05 or moved > 0.01 * far:
        return
    yield Finding(
        code="value-idle",
        level=Level.WARNING,
        cost=0.6,
        title=f"The value model does not learn: its mean value stays at {before[0]:.2g}, the mean return is"
        f" {returns.mean():.2g}",
        evidence=(
            f"value/before has moved by {moved:.2g} in {len(before)} steps; advantages are measured without a baseline",
        ),
        change=f"raise value.lr (now {history.config.value.lr if history.config.value.lr is not None else 'optim.lr'}),"
        " and check that the value's parameters are trained.",
        explains=frozenset({"no-progress", "advantages-not-centred"}),
    )


def _value_clipped(history: History) -> Iterator[Finding]:
    """Yield a finding if values never came near their returns and the clip of the value loss keeps them from there.

    Values that were near once, and are not later, lag behind returns that changed: another rule names the change.
    """
    before, returns, clipped = (history.series(f"value/{name}") for name in ("before", "returns", "clip_fraction"))
    most = history.config.value.clip_range
    if most is None or len(before) < 10 or not len(before) == len(returns) == len(clipped):
        return
    late = -(len(before) // 4)
    value, due, share = (float(curve[late:].mean()) for curve in (before, returns, clipped))
    steps, nearest = abs(due - value) / most, float((np.sign(due - value) * (returns - before)).min())
    if steps < CLIP_STEPS or share < CLIPPED or nearest < most:
        return
    width = history.series("reward/std")[late:]
    yield Finding(
        code="value-clip-too-small",
        level=Level.WARNING,
        cost=0.6,
        title=f"The value clip keeps the values from their returns: {value:.3g} and {due:.3g} on average in the last"
        " quarter",
        evidence=(
            f"one step moves a value by about value.clip_range={most:g}, so that they are {steps:.0f} steps behind;"
            f" {percent(share)} of the tokens are clipped",
        ),
        change="scale the reward to a spread of about 1"
        + (f" (it is {width.mean():.2g})" if len(width) else "")
        + ", raise value.clip_range to that spread, or set it to null.",
        explains=frozenset({"no-progress", "value-idle"}),
    )


def _discounted(history: History) -> Iterator[Finding]:
    """Yield a finding if gamma takes much of a reward at the end from the average token of a completion."""
    algorithm, lengths = history.config.algorithm, history.series("completion/length_mean")
    gamma = float(str(algorithm.advantage_options.get("gamma", 1.0)))
    if algorithm.advantage != "gae" or gamma >= 1 or not len(lengths):
        return
    length = max(1, round(float(lengths.mean())))
    left = float(np.mean(gamma ** np.arange(length)))
    if left > DISCOUNTED:
        return
    returns, rewards = history.series("value/returns"), history.series("reward/mean")
    yield Finding(
        code="reward-discounted",
        level=Level.WARNING,
        cost=0.5,
        title=f"gamma={gamma:g} discounts the reward over tokens: the average token of a completion gets"
        f" {percent(left)} of it",
        evidence=(
            f"the first of {length} tokens gets {percent(gamma ** (length - 1))}, and a longer completion less",
            *(
                [f"value/returns is {returns.mean():.2g} on average, reward/mean {rewards.mean():.2g}"]
                if len(returns) and len(rewards)
                else []
            ),
        ),
        change="set algorithm.advantage_options.gamma=1: a completion is rewarded once, at its end.",
        explains=frozenset({"no-progress", "returns-below-reward"}),
    )


def _returns_lost(history: History) -> Iterator[Finding]:
    """Yield a finding if the returns of the tokens are far below what the rewards leave them.

    With values of 0 the return of the token t before the last one is (gamma lam)^t times the completion's reward, and
    values that are learned bring it nearer to the reward.
    """
    algorithm = history.config.algorithm
    returns, rewards = history.series("value/returns"), history.series("reward/mean")
    lengths = history.series("completion/length_mean")
    if algorithm.advantage != "gae" or (algorithm.kl_in == "reward" and algorithm.kl_coef > 0):
        return
    if len(returns) < 5 or not len(returns) == len(rewards) == len(lengths) or float(rewards.min()) < 0.05:
        return
    options = algorithm.advantage_options
    keeps = float(str(options.get("lam", 0.95))) * float(str(options.get("gamma", 1.0)))
    left = [np.mean(keeps ** np.arange(max(1, round(length)))) for length in lengths]
    share = float(np.median(returns / (rewards * np.asarray(left))))
    if share > 0.4:
        return
    yield Finding(
        code="returns-below-reward",
        level=Level.FAULT,
        cost=0.8,
        title=f"The returns of the tokens are {percent(max(share, 0.0))} of what the rewards give them: most tokens do"
        " not see the reward",
        evidence=(f"value/returns is {returns.mean():.2g} on average, reward/mean {rewards.mean():.2g}",),
        change="check where the reward is put: on the last token of a completion, so that every token before has it in"
        " its return.",
        explains=frozenset({"no-progress", "value-idle", "reward-falls"}),
    )


def _kl_control(history: History) -> Iterator[Finding]:
    """Yield a finding on a KL that grows without penalty under a learned reward, or a penalty that allows no change."""
    kl, coef = history.series("kl/ref"), history.series("kl/coef")
    reward, spread = change(history.series("reward/mean")), history.series("reward/std")
    moved = change(kl)
    if moved is None or reward is None or not len(coef) or not len(spread):
        return
    weight, width = float(coef[-1]), float(spread[: max(2, len(spread) // 4)].mean())
    gain = max(reward.last - reward.first, width)
    penalty = weight * moved.last
    length = change(history.series("completion/length_mean"))
    far = FAR_NATS if length is None else min(FAR_NATS, FAR_NATS_TOKEN * length.last)
    learned = history.config.reward is not None
    held_out = change(history.series("watch/held_out"))
    rises = held_out is not None and held_out.z > CERTAIN  # what the reward should measure still gains from it
    if learned and not rises and moved.last > far and moved.z > CERTAIN and penalty < 0.1 * gain:
        yield Finding(
            code="kl-coef-too-small",
            level=Level.WARNING,
            cost=0.6,
            title=f"The KL coefficient is too small: the policy is {moved.last:.1f} nats per completion from its start",
            evidence=(
                f"kl/ref went from {moved.first:.2g} to {moved.last:.3g} nats a completion",
                f"its penalty is {penalty:.2g}, the rewards' own spread {width:.2g}: nothing restrains the policy",
            ),
            change=f"raise algorithm.kl_coef (to about {0.5 * gain / moved.last:.2g}), let it adapt"
            " (algorithm.kl_target), or set algorithm.kl_budget to stop in time.",
            explains=frozenset({"rises", "solved"}),
        )
    elif weight > 2 * width > 0 and moved.last < 0.5 and reward.z < 2:
        yield Finding(
            code="kl-coef-too-large",
            level=Level.WARNING,
            cost=0.6,
            title="The KL coefficient is too large: the policy stays at its reference and the reward does not rise",
            evidence=(
                f"one nat costs {weight:.3g}, while rewards differ by {width:.2g} (their spread)",
                f"kl/ref is {moved.last:.2g} nats a completion at the end; the reward went from {reward.first:.3g} to"
                f" {reward.last:.3g}",
            ),
            change=f"lower algorithm.kl_coef (to about {0.2 * width:.2g}), or set algorithm.kl_target to let it adapt.",
            explains=frozenset({"reward-falls", "right-answers-fall", "no-progress"}),
        )


def _collapse(history: History) -> Iterator[Finding]:
    """Yield a finding if rewards fell from their best level by more than their own spread."""
    rewards, spread = history.series("reward/mean"), history.series("reward/std")
    narrowed = change(spread)
    size = max(2, len(rewards) // 4)
    if narrowed is None or narrowed.first <= 0 or len(rewards) < 2 * size:
        return
    best = max(range(len(rewards) - 2 * size + 1), key=lambda start: rewards[start : start + size].mean())
    fall = change(np.concatenate([rewards[best : best + size], rewards[-size:]]), parts=2)
    if fall is None or fall.first - fall.last < narrowed.first or fall.z > -CERTAIN:
        return
    spreads = (fall.first - fall.last) / narrowed.first
    evidence = [f"reward/mean went from {fall.first:.3g} to {fall.last:.3g}, {spreads:.1f} spreads down"]
    if narrowed.last < 0.1 * narrowed.first:
        evidence.append("the rewards of a step hardly differ any more, so training cannot recover")
    yield Finding(
        code="rewards-collapsed",
        level=Level.FAULT,
        cost=0.9,
        title="The rewards have collapsed: training has made the policy worse by its own reward",
        evidence=tuple(evidence),
        change="go back to the best checkpoint; lower optim.lr or algorithm.entropy_coef, use fewer inner_epochs or a"
        " lower stop_kl.",
        explains=frozenset({"reward-falls", "right-answers-fall", "length-drift", "truncated", "all-wrong"}),
    )


def _hacked(history: History) -> Iterator[Finding]:
    """Yield a finding if the reward does not fall while the held-out scorer, or the evaluation, does."""
    proxy = change(history.series("reward/mean"))
    if proxy is None or proxy.z < -CERTAIN or history.config.reward is None:
        return
    evidence: list[str] = []
    cost = 0.0
    held_out = from_best(history.series("watch/held_out").tolist(), lowest=False)
    if held_out is not None and held_out.sure and held_out.moved < 0:
        evidence.append(f"the held-out scorer's reward fell from its best, {held_out.best:.3g}, to {held_out.last:.3g}")
        cost = 0.9
    fell = evaluation_fell(history)
    if fell:
        evidence.append(fell)
        cost = 0.9
    if not evidence:
        return
    scorer = "reward model" if history.config.reward.name == "reward-model" else "reward"
    grown = change(history.series("completion/length_mean"))
    if grown is not None and grown.z > CERTAIN and grown.last > 1.3 * grown.first:
        longer = percent(grown.last / grown.first - 1)
        evidence.append(f"completions became {longer} longer ({grown.first:.0f} to {grown.last:.0f} tokens)")
    yield Finding(
        code="reward-model-hacked",
        level=Level.FAULT,
        cost=cost,
        title=f"The {scorer} is being hacked: its reward went from {proxy.first:.3g} to {proxy.last:.3g} while what"
        " it should measure fell",
        evidence=tuple(evidence),
        change="raise algorithm.kl_coef or set algorithm.kl_budget, use an ensemble with a disagreement penalty, and"
        " train the reward model again on pairs of this policy (one more round)"
        + ("; alarms.jsonl has the completions." if _has_alarms(history) else "."),
        explains=frozenset({"rises", "solved", "length-drift", "truncated", "all-wrong", "reward-disagrees"}),
    )


def _has_alarms(history: History) -> bool:
    return history.folder is not None and (history.folder / "alarms.jsonl").is_file()


def _disagrees(history: History) -> Iterator[Finding]:
    """Yield a finding if reward and held-out scorer stop ranking rollouts alike, often before their means part."""
    agreement = change(history.series("watch/agreement"))
    held_out = change(history.series("watch/held_out"))
    if agreement is None or held_out is None or agreement.last > AGREED or agreement.z > -CERTAIN:
        return
    if held_out.z > CERTAIN:
        return  # the held-out score still rises
    yield Finding(
        code="reward-disagrees",
        level=Level.FAULT if agreement.last < -AGREED else Level.WARNING,
        cost=0.7,
        title="The reward no longer agrees with the held-out scorer on which completions are better: their correlation"
        f" went from {agreement.first:.2f} to {agreement.last:.2f}",
        evidence=(
            f"watch/agreement fell by {-agreement.z:.0f} standard errors; above 0.3 a reward says something about what"
            " it should measure, near 0 nothing, and below 0 it rewards the opposite",
        ),
        change="go back to a checkpoint from before it fell, raise algorithm.kl_coef, and train the reward model again"
        " on pairs of this policy (one more round).",
        explains=frozenset({"rises", "solved"}),
    )


def evaluation_fell(history: History) -> str:
    """Describe by how much the last evaluation is below the best earlier one; "" unless their intervals are apart."""
    found: list[tuple[str, tuple[float, float, float]]] = []
    for row in history.evals:
        metrics = row.metrics
        name = history.config.eval.deciding if history.config.eval.deciding in metrics else next(iter(metrics), "")
        if name:
            found.append((name, metrics[name]))
    if len(found) < 2:
        return ""
    name, last = found[-1]
    earlier = [estimate for other, estimate in found[:-1] if other == name]  # a stage may evaluate pairs and problems
    if not earlier:
        return ""
    best = max(earlier, key=lambda estimate: estimate[0])
    if not np.isfinite(last[0]) or last[2] >= best[1]:
        return ""
    return f"the evaluation's {name} fell from {best[0]:.3g} [{best[1]:.3g}, {best[2]:.3g}] to {last[0]:.3g}"
