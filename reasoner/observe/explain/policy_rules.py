"""Rules on how the policy moves: too far, downhill or not at all; and on a loss near 0."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from reasoner.config.estimators import traits_of
from reasoner.config.methods import METHODS
from reasoner.observe.explain.finding import Finding, Level, Place, places
from reasoner.observe.explain.significance import change, percent, t_value
from reasoner.storage.find_model import list_checkpoints
from reasoner.storage.history import History, Row

LARGE_STEP_KL = 0.1
"""Nats per token. With k2 it is s^2 / 2 for a log-ratio of spread s. At 0.02 one step moves the average token by the
usual clip range (s = 0.2), at 0.1 by more than twice that (s = 0.45), for which PPO and GRPO are not meant."""
REPLACED_STEP_KL = 1.0
"""Nats per token: after such a step the sampled text says little about what the policy would write."""
FEW_UPDATES = 3
"""With fewer updates, the median of their steps says nothing about the run (our choice)."""


def policy_rules(history: History) -> Iterator[Finding]:
    """Yield the findings of this module's rules; none for a stage that trains nothing."""
    if METHODS[history.config.method].learns_from is None:
        return
    yield from _recorded_sign(history)
    yield from _centred(history)
    yield from _group_sums(history)
    yield from _descends(history)
    yield from _step_size(history)
    yield from _back_at_the_start(history)
    yield from _collapse(history)
    yield from _right_answers_fall(history)
    yield from _gradients_add_up(history)
    yield from _standing_still(history)
    yield from _held(history)
    yield from _balanced(history)
    yield from _loss_near_zero(history)


def _recorded_sign(history: History) -> Iterator[Finding]:
    """Yield a finding if rollouts better than those they are compared with have an advantage below 0, or the reverse.

    Group-relative estimators always compare within the group (except with a KL in the reward). Others may compare with
    the whole step, so only rollouts that are better than both means, or worse than both, are counted for them.
    Advantages unrelated to the rewards have the wrong sign in half of these. If components are normalized before they
    are added, or a teacher gives the advantages, the reward does not determine the sign, and nothing is checked.
    """
    algorithm = history.config.algorithm
    if algorithm.normalize_components or traits_of(algorithm.advantage).baseline == "teacher":
        return
    penalized = algorithm.kl_in == "reward" and algorithm.kl_coef > 0
    estimator = algorithm.advantage
    own = traits_of(estimator).group_relative and not penalized
    wrong: list[Row] = []
    pairs = 0
    for rows in history.by_step.values():
        used = [row for row in rows if row.advantage and row.reward is not None]
        of_group: dict[int, list[float]] = {}
        for row in used:
            of_group.setdefault(row.group, []).append(row.reward or 0.0)
        of_step = [row.reward or 0.0 for row in used]
        for row in used:
            compared = [of_group[row.group]] if own else [of_group[row.group], of_step]
            better = [(row.reward or 0.0) - float(np.mean(others)) for others in compared]
            if min(better) > 1e-6 or max(better) < -1e-6:
                pairs += 1
                if better[0] * (row.advantage or 0.0) < 0:
                    wrong.append(row)
    share = len(wrong) / pairs if pairs else 0.0
    # value models and a KL in the reward also affect the sign; for a user's own estimator neither is assumed
    least = 0.01 if own else 0.25 if ":" in estimator else 0.6
    if pairs < 8 or share < least:
        return
    mixed = 0.25 < share < 0.75
    yield Finding(
        code="advantage-sign-flipped",
        level=Level.FAULT,
        cost=min(1.0, 0.2 + share),
        title=f"The advantage has the wrong sign in {percent(share)} of the rollouts: "
        + ("it has nothing to do with their rewards" if mixed else "better ones are made less likely"),
        evidence=(
            f"{len(wrong)} of {pairs} rollouts that were better (worse) than the mean reward of their"
            f" {'group' if own else 'group and of their step'} have a negative (positive) advantage in updates.jsonl",
        ),
        change="fix the advantage estimator: reward above the mean must give an advantage above 0, to the rollout that"
        " earned it.",
        rollouts=places(wrong),
        explains=frozenset({*DOWNHILL, *MISMATCHED}),
    )


def _centred(history: History) -> Iterator[Finding]:
    """Yield a finding if almost all advantages have one sign, so that rollouts become likelier however good they are.

    Without a value model, advantages are differences from a baseline, so those of a step nearly cancel: a centred group
    sums to 0, and with a baseline of the other rollouts or of the batch the sum is 0 on average.
    """
    if traits_of(history.config.algorithm.advantage).baseline not in ("group", "step"):
        return  # a value model's baseline, or none by design
    sums: list[float] = []
    sizes: list[float] = []
    for rows in history.by_step.values():
        advantages = [row.advantage for row in rows if row.advantage is not None and row.dropped is None]
        sums.append(float(np.sum(advantages)))
        sizes.append(float(np.sum(np.abs(advantages))))
    total = float(np.sum(sizes))
    if len(sums) < 3 or total <= 0 or abs(float(np.sum(sums))) < LOPSIDED * total:
        return
    share = float(np.sum(sums)) / total
    yield Finding(
        code="advantages-not-centred",
        level=Level.FAULT,
        cost=0.6,
        title=f"The advantages have no baseline: they sum to {percent(abs(share))} of their size, but should cancel",
        evidence=(
            f"{'rewarded' if share > 0 else 'all'} rollouts are made {'likelier' if share > 0 else 'less likely'}"
            " whether or not they were better than the others of their problem, which teaches nothing and adds noise",
        ),
        change="subtract the mean reward of the group (algorithm.advantage: grpo, rloo, dr_grpo) in the estimator.",
        explains=frozenset({"no-progress", "reward-falls", "right-answers-fall", *MISMATCHED}),
    )


LOPSIDED = 0.5
"""|Sum of the advantages| / sum of their sizes. At a half, three quarters of the weight has one sign (our choice)."""

MISMATCHED = ("advantages-not-of-their-group", "advantages-not-of-the-rewards", "loss-not-of-the-rows")
"""What says less exactly that advantages are wrong."""

DOWNHILL = (
    "reward-falls",
    "right-answers-fall",
    "rewards-collapsed",
    "collapse",
    "descends",
    "all-wrong",
    "truncated",
    "no-progress",
    "no-answer",
    "entropy",
)


def _group_sums(history: History) -> Iterator[Finding]:
    """Yield a finding if the advantages of whole groups do not sum to 0, though their baseline is the group's mean."""
    algorithm = history.config.algorithm
    if traits_of(algorithm.advantage).baseline != "group" or not traits_of(algorithm.advantage).group_relative:
        return
    if algorithm.kl_in == "reward" and algorithm.kl_coef > 0:
        return
    off: list[list[Row]] = []
    whole = 0
    for group in history.groups:
        advantages = np.asarray([row.advantage for row in group if row.advantage is not None], dtype=np.float64)
        if len(advantages) < len(group) or not np.abs(advantages).max(initial=0.0):
            continue
        whole += 1
        if abs(advantages.mean()) > 0.05 * np.abs(advantages).mean():
            off.append(group)
    share = len(off) / max(1, whole)
    if whole < 8 or share < 0.2:
        return
    yield Finding(
        code="advantages-not-of-their-group",
        level=Level.FAULT,
        cost=min(1.0, 0.3 + share / 2),
        title=f"The advantages of {percent(share)} of the groups do not sum to 0: they are not compared with the other"
        " samples of their own problem",
        evidence=(
            f"algorithm.advantage={algorithm.advantage} subtracts the group's mean; group {Place(*off[0][0].place)} has"
            f" rewards {[round(row.reward or 0.0, 2) for row in off[0]][:8]} and advantages"
            f" {[round(row.advantage or 0.0, 2) for row in off[0]][:8]}",
        ),
        change="check the baseline: over the samples of one problem, not over the batch, and with its own rewards.",
        rollouts=places([row for group in off for row in group]),
        explains=frozenset({"no-progress", "reward-falls", "all-wrong", *MISMATCHED})
        - {"advantages-not-of-their-group"},
    )


def _descends(history: History) -> Iterator[Finding]:
    """Yield a finding if updates go downhill: to first order an update adds A * (log after - log before) to its
    objective.

    Each step counts by its direction, gain / sqrt(2 step_kl), so that one long step does not outweigh the others, and
    by its share of groups with signal, since that of a few rows is mostly noise.
    """
    gain, moved = history.series("policy/step_gain"), history.series("policy/step_kl")
    if len(gain) < 5 or len(gain) != len(moved):
        return
    signal = dict(zip(history.steps_of("groups/signal"), history.series("groups/signal"), strict=True))
    weights = np.asarray([max(signal.get(step, 1.0), 1e-3) for step in history.steps_of("policy/step_gain")])
    direction = t_value(gain / np.sqrt(2 * moved.clip(min=1e-12)), weights)
    if direction > -3:
        return
    if np.median(moved) > LARGE_STEP_KL:
        return  # steps this long may end anywhere: another rule reports the step size
    below = float(weights[gain < 0].sum() / weights.sum())
    if below < 0.7:
        return
    yield Finding(
        code="descends",
        level=Level.FAULT,
        cost=0.9 + 0.1 * below,
        title="The updates lower the objective instead of raising it: the advantage or the loss has the wrong sign",
        evidence=(
            f"after {percent(below)} of {len(gain)} updates the rollouts with a positive advantage had become less"
            f" likely and those with a negative one likelier (policy/step_gain {gain.mean():.2g};"
            f" by direction {-direction:.1f} standard errors below 0); an ascent step raises it",
        ),
        change="check the sign of algorithm.loss (it is minimised: -ratio * advantage) and of the advantage estimator.",
        explains=frozenset(DOWNHILL) - {"descends"},
    )


def _step_size(history: History) -> Iterator[Finding]:
    """Yield a finding on steps that are too large; it weighs less where few steps have an update at all."""
    moved = history.series("policy/step_kl")
    if not len(moved):
        return
    lr = history.series("optim/lr")
    full = moved[lr >= lr.max() / 2] if len(lr) == len(moved) else moved  # a schedule makes the last steps small
    middle, largest = float(np.median(full if len(full) >= FEW_UPDATES else moved)), float(moved.max())
    if middle <= LARGE_STEP_KL and (largest <= REPLACED_STEP_KL or (moved > LARGE_STEP_KL).sum() < FEW_UPDATES):
        return
    falls = _fall(history)
    replaced = middle > REPLACED_STEP_KL and len(moved) >= FEW_UPDATES
    where = history.steps_of("policy/step_kl")[int(moved.argmax())]
    gap = history.series("gap/logprob_abs")
    own = {"engine-trainer-gap"} if len(gap) and gap[0] > 0.01 else set[str]()  # it was there before any update
    yield Finding(
        code="learning-rate-too-high",
        level=Level.FAULT if falls is not None or replaced else Level.WARNING,
        cost=0.9 if falls is not None else 0.4 * len(moved) / max(len(moved), len(history.metrics)),
        title=f"The steps are too large: one update moves the policy by {max(middle, 0):.2g} nats a token"
        f" (median), up to"
        f" {largest:.2g}",
        evidence=(
            f"policy/step_kl is {largest:.2g} at step {where}; at 0.02 the average token already leaves the clip range"
            f" of 0.2. Learning rate {lr.max():.2g}"
            if len(lr)
            else f"policy/step_kl {largest:.2g} at step {where}",
            *([f"the reward fell from {falls.top:.3f} to {falls.end:.3f}"] if falls is not None else []),
        ),
        change="lower optim.lr ten- to a hundredfold (and raise optim.warmup_steps), then begin again from a checkpoint"
        f" before step {where}{_checkpoint_before(history, where)}.",
        explains=frozenset({*DOWNHILL, "all-right", "engine-trainer-gap", "clipping", "repetition"}) - own,
    )


def _back_at_the_start(history: History) -> Iterator[Finding]:
    """A policy that from one step to the next is as it was when the run began, though no update moved it that far."""
    reward, entropy, moved = (
        dict(zip(history.steps_of(name), history.series(name).tolist(), strict=True))
        for name in ("reward/mean", "policy/entropy", "policy/step_kl")
    )
    steps = [step for step in history.steps if step in reward and step in entropy]
    for place in range(BACK + 2, len(steps) - BACK + 1):
        begin, before, after = (
            [*part] for part in (steps[:2], steps[place - BACK : place], steps[place : place + BACK])
        )
        first, high, low = (float(np.mean([reward[step] for step in part])) for part in (begin, before, after))
        rows = [row for step in (*before, *after) for row in history.by_step[step]]
        error = float(np.std([row.reward or 0.0 for row in rows])) * np.sqrt(2 / max(1, len(rows) // 2))
        if abs(high - low) < max(5 * error, 2 * abs(low - first)) or abs(high - low) < 0.1:
            continue
        sure, at_first, unsure = (float(np.mean([entropy[step] for step in part])) for part in (before, begin, after))
        largest = max(moved.get(step, 0.0) for step in (*before, *after))
        if abs(unsure - at_first) > abs(unsure - sure) / 2 or largest > LARGE_STEP_KL / 2:
            continue
        yield Finding(
            code="back-at-the-start",
            level=Level.FAULT,
            cost=0.95,
            title=f"At step {after[0]} the policy is what it was when the run began: what it had learned is lost",
            evidence=(
                f"reward/mean {high:.3f} in the {BACK} steps before, {low:.3f} from then on, {first:.3f} at first;"
                f" entropy {sure:.3g}, {unsure:.3g} and {at_first:.3g}; the updates around it moved the policy by"
                f" at most {largest:.2g} nats a token",
            ),
            change=f"look at what was loaded before step {after[0]}: a checkpoint that --resume did not restore, or the"
            " first model's weights in the engine or the trainer. Continue from a checkpoint before it.",
            explains=frozenset({*DOWNHILL, "evaluation-below-training"}),
        )
        return


BACK = 3
"""Steps on both sides of a step that are compared (our choice)."""


def _checkpoint_before(history: History, step: int) -> str:
    """Return settings for a new run from the newest checkpoint before a step, as text; "" without a run folder."""
    if history.folder is None:
        return ""
    kept = [
        folder
        for folder in list_checkpoints(history.folder / "checkpoints")
        if (found := re.fullmatch(r"step-(\d+)", folder.name)) and int(found[1]) < step
    ]
    if not kept:
        return " (none is left here: raise checkpoint.keep next time)"
    if (kept[-1] / "adapter").is_dir():
        return f" (`reasoner export {kept[-1]} FOLDER`, then model=FOLDER output=NEW)"
    return f" (model={kept[-1]}/model output=NEW)"


class Fall(NamedTuple):
    """Fall of the smoothed reward from its best value to the last."""

    top: float
    end: float
    step: int
    """Step of the best value."""
    errors: float
    """Size of the fall in standard errors of the smoothed curve."""


def _fall(history: History, name: str = "reward/mean") -> Fall | None:
    """Return the fall if the reward at the end is at least 4 standard errors and 30 % below its best; else None."""
    reward = history.series(name)
    if len(reward) < 8:
        return None
    width = max(2, len(reward) // 5)
    smooth = np.convolve(reward, np.ones(width) / width, mode="valid")
    best, end = int(smooth.argmax()), float(smooth[-1])
    noise = float(np.std(np.diff(reward)) / np.sqrt(2 * width))
    top, low = float(smooth[best]), min(0.0, float(reward.min()))
    if top - end < max(4 * noise, 0.02) or (end - low) > 0.7 * (top - low):
        return None
    return Fall(top, end, best + width, (top - end) / max(noise, 1e-9))


def _right_answers_fall(history: History) -> Iterator[Finding]:
    """Yield a finding if fewer answers are right while other components keep the reward up."""
    fall = _fall(history, "reward/pass_rate")
    paid = change(history.series("reward/mean"))
    composed = any(row.decided_by in row.weights for row in history.rows)
    if fall is None or paid is None or _fall(history) is not None or not composed:
        return
    parts = {name for row in history.rows for name in row.weights}
    moved = {
        name: found for name in sorted(parts) if (found := change(history.series(f"component/{name}"))) is not None
    }
    yield Finding(
        code="right-answers-fall",
        level=Level.WARNING,
        cost=min(1.0, (fall.top - fall.end) / max(fall.top, 1e-9)),
        title=f"Fewer answers are right: {percent(fall.top)} around step {fall.step}, {percent(fall.end)} at the end,"
        " which the reward does not show",
        evidence=(
            f"{fall.errors:.0f} standard errors of the smoothed share; the reward goes from {paid.first:.3f} in the"
            f" first quarter to {paid.last:.3f} in the last",
            *(f"component {name}: {found.first:.3f} -> {found.last:.3f}" for name, found in moved.items()),
        ),
        change="go back to the best checkpoint (checkpoints/best, or the step above); lower optim.lr, or the weights of"
        " the components other than the right answer.",
    )


def _collapse(history: History) -> Iterator[Finding]:
    fall = _fall(history)
    if fall is None:
        return
    entropy = history.series("policy/entropy")
    entropy_text = f"; entropy {entropy[0]:.3f} -> {entropy[-1]:.3f}" if len(entropy) > 1 else ""
    yield Finding(
        code="reward-falls",
        level=Level.WARNING,
        cost=min(1.0, (fall.top - fall.end) / max(fall.top, 1e-9)),
        title=f"The reward falls: {fall.top:.3f} around step {fall.step}, {fall.end:.3f} at the end",
        evidence=(f"{fall.errors:.0f} standard errors of the smoothed curve{entropy_text}",),
        change="go back to the best checkpoint (checkpoints/best, or the step above), lower optim.lr, or restrain the"
        " policy with algorithm.kl_coef.",
    )


def _gradients_add_up(history: History) -> Iterator[Finding]:
    """Yield a finding on gradient norms that grow from step to step without noise, as those of a sum of gradients do.

    The norm of one batch's policy gradient is mostly noise: neighbouring steps differ as much as distant ones, and the
    ratio of von Neumann (1941), mean squared successive difference over variance, is near 2. Of a running sum it is
    near 0.
    """
    norms = history.series("optim/grad_norm")
    if METHODS[history.config.method].learns_from != "rewards" or len(norms) < 12 or norms.min() <= 0:
        return
    logs = np.log(norms)
    grown = change(logs)
    smooth = float(np.mean(np.diff(logs) ** 2) / max(logs.var(), 1e-12))
    rising = float(np.mean(np.diff(norms) > 0))
    if grown is None or grown.last - grown.first < np.log(GROWN) or smooth > SMOOTH or rising < RISING:
        return
    yield Finding(
        code="gradients-add-up",
        level=Level.FAULT,
        cost=0.9,
        title=f"The gradient norm grows from step to step, from {norms[0]:.2g} to {norms[-1]:.2g}, nearly without"
        " noise: each step's gradient seems to be added to those before",
        evidence=(
            f"it rises in {percent(rising)} of the steps; its changes from one step to the next have"
            f" {percent(smooth / 2)} of the variance that independent batches give",
        ),
        change="check that gradients are set to zero after each update (zero_grad), and that no accumulation goes on"
        " over updates.",
        explains=frozenset({*DOWNHILL, "no-progress", "learning-rate-too-high", "clipping"}),
    )


GROWN = 2.0
"""Growth of the gradient norm, last quarter over first, from which on a sum is suspected (our choice)."""
SMOOTH = 0.15
"""Von Neumann's ratio below which a series has next to no noise (our choice)."""
RISING = 0.75
"""Share of steps in which a sum of gradients grows (our choice)."""


def _standing_still(history: History) -> Iterator[Finding]:
    moved = history.series("policy/step_kl")
    steps = history.config.steps
    reach = float(np.sqrt(2 * moved.clip(min=0)).mean()) * steps if len(moved) else 0.0
    if len(moved) < 10 or reach > SMALL_REACH:
        return
    optim = history.config.optim
    warming = (
        (f"optim.warmup_steps={optim.warmup_steps} of {steps} steps: the learning rate never reached optim.lr",)
        if optim.warmup_steps >= steps
        else ()
    )
    yield Finding(
        code="no-movement",
        level=Level.WARNING,
        cost=0.9,
        title=f"The policy hardly moves: if all {steps} steps went the same way, the average token's probability would"
        f" change by {percent(reach)}",
        evidence=(
            f"policy/step_kl {moved.mean():.1g} nats a token (k2, so a step moves the log-probabilities by"
            f" {float(np.sqrt(2 * moved.clip(min=0)).mean()):.1g}); optim.lr {history.config.optim.lr:g}, gradient norm"
            f" {_mean(history, 'optim/grad_norm'):.2g}, clipped at {history.config.optim.max_grad_norm:g}",
            *warming,
        ),
        change=f"set optim.warmup_steps={max(1, steps // 10)}."
        if warming
        else "raise optim.lr tenfold or more (and optim.max_grad_norm, if the norm is far above it), or check"
        " that parameters are trainable.",
        explains=frozenset({"no-progress"}),
    )


SMALL_REACH = 0.05
"""Change of the average token's log-probability over a whole run, if all of its steps added up. A smaller change is
below what any change of behaviour needs (our choice; steps that help are one or two orders of magnitude above)."""


def _held(history: History) -> Iterator[Finding]:
    """Yield a finding on a KL penalty that outweighs any advantage, so that the policy cannot leave its reference."""
    coef, kl = history.config.algorithm.kl_coef, history.series("policy/kl_ref")
    risen = change(history.series("reward/mean"))
    if coef < STIFF_KL or not len(kl) or len(history.metrics) < 12 or (risen is not None and risen.z > 3):
        return
    yield Finding(
        code="kl-coef-too-large",
        level=Level.WARNING,
        cost=0.6,
        title=f"The KL penalty (algorithm.kl_coef={coef:g}) keeps the policy at its reference, and the reward does not"
        " rise",
        evidence=(
            f"a token with an advantage of 1 stops moving where kl_coef times its log-ratio is 1: at {1 / coef:.2g}"
            f" nats; policy/kl_ref is {kl[-1]:.2g} nats a token at the end",
        ),
        change="lower algorithm.kl_coef to 0.001 .. 0.04, as in published GRPO runs, or to 0.",
        explains=frozenset({"no-progress", "no-movement"}),
    )


def _balanced(history: History) -> Iterator[Finding]:
    """Yield a finding if a KL penalty has taken nearly what it can of the gained reward, while rewards still differ.

    Near its start a policy gains g per unit of movement x and pays c x^2 / 2: at the best x, g / c, the penalty is half
    of the gain, and on the way there its share grows with x. Gains are counted in units of the advantage.
    """
    algorithm = history.config.algorithm
    reward, spread, signal = (history.series(name) for name in ("reward/mean", "reward/std", "groups/signal"))
    paid, risen = change(history.series("kl/penalty")), change(reward)
    if algorithm.kl_in != "loss" or algorithm.advantage not in ("grpo", "dr_grpo", "rloo"):
        return
    if paid is None or risen is None or risen.z < 3 or not len(spread) or not len(signal):
        return
    part = max(2, len(reward) // 4)
    unit = float(spread[:part].mean()) if algorithm.advantage == "grpo" else 1.0  # it divides by the spread
    share = paid.last * unit / (risen.last - float(reward[:2].mean()))
    left = float(signal[-part:].mean())
    if not BALANCED <= share < 1 or left < 0.5:
        return
    yield Finding(
        code="kl-coef-too-large",
        level=Level.NOTE,
        cost=0.3,
        title=f"The KL penalty has taken {percent(share)} of what the reward gained: at about half the policy stops,"
        f" though {percent(left)} of the groups still have signal",
        evidence=(
            f"algorithm.kl_coef={algorithm.kl_coef:g}; the penalty is {paid.last:.2g} a completion in the last quarter,"
            f" and the reward went from {reward[:2].mean():.3f} to {risen.last:.3f}",
        ),
        change="lower algorithm.kl_coef to a tenth, unless the policy is meant to stay near its reference.",
        explains=frozenset({"rises"}),
    )


BALANCED = 0.35
"""Share of the gained reward that the penalty takes: 70 % of the way to where the two balance (our choice)."""

STIFF_KL = 1.0
"""kl_coef at which the penalty balances an advantage of 1 at a log-ratio of 1."""


def _loss_near_zero(history: History) -> Iterator[Finding]:
    loss = history.series("optim/loss")
    algorithm, optim = history.config.algorithm, history.config.optim
    centred = METHODS[history.config.method].learns_from == "rewards" and traits_of(algorithm.advantage).group_relative
    if not len(loss) or not centred:
        return
    if optim.updates_per_step * optim.inner_epochs > 1 or np.abs(loss).mean() > 0.05:
        return
    yield Finding(
        code="loss-near-zero",
        level=Level.NOTE,
        cost=0.0,
        title=f"Loss near 0 (mean {loss.mean():.1g}) is expected here: on-policy with centred advantages",
        evidence=(
            "with one update per batch every ratio is 1, so the loss is minus the token-weighted mean advantage, which"
            " centring puts near 0; its gradient is not 0. Read reward/mean and policy/step_kl instead",
        ),
    )


def _mean(history: History, name: str) -> float:
    series = history.series(name)
    return float(series.mean()) if len(series) else float("nan")


def progress(history: History) -> float | None:
    """Return by how many standard errors the reward rose from the first quarter to the last; None if too short."""
    reward = history.series("reward/mean")
    found = change(reward)
    return None if found is None else found.z
