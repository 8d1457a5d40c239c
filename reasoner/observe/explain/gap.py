"""Rules on the log-probabilities of both sides: does the engine sample from the trainer's policy?

Let q be the distribution that was sampled and p the trainer's at the same weights. For any p and q of equal support
E_q[p / q] = 1, and E_p[-log p] is p's entropy. Each rule uses one of these two facts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reasoner.config.tolerances import TOLERANCES
from reasoner.observe.explain.finding import Finding, Level, places
from reasoner.observe.explain.significance import percent, t_value
from reasoner.storage.history import Floats, History, Row

ENOUGH_TOKENS = 200


class Gap(NamedTuple):
    """Log-probabilities of the tokens of some steps by engine and trainer."""

    engine: Floats
    trainer: Floats

    @property
    def mean_abs(self) -> float:
        """Mean |trainer - engine| in nats."""
        return float(np.abs(self.trainer - self.engine).mean())

    @property
    def ratio(self) -> float:
        """Mean trainer / engine probability; it is 1 in expectation if both have the same support."""
        return float(np.exp(np.minimum(self.trainer - self.engine, 50.0)).mean())


def tolerance(history: History) -> float:
    """Return the tolerated mean difference, in nats per token, for the dtypes of the run."""
    names = [history.config.engine.dtype, history.config.model.dtype]
    device = str(history.environment.get("device", "cpu"))
    auto = "float32" if device == "cpu" else "bfloat16"
    return max(TOLERANCES[auto if name == "auto" else name].sampled for name in names)


def gap_rules(history: History) -> Iterator[Finding]:
    """Yield findings on stale weights, another temperature, a truncated distribution, or other differences."""
    measured, ahead = _measured(history), history.config.rollout.ahead > 0
    if measured:
        allowed = tolerance(history)
        whole = Gap(*(np.concatenate(side) for side in zip(*measured.values(), strict=True)))
        yield from _same_evaluation(history)
        if max(gap.mean_abs for gap in measured.values()) > allowed:
            yield _name_gap(history, measured, whole, allowed)
        elif not ahead:
            yield from _sharper(history, measured)
        if ahead:
            yield from _rarely_synced(history)
    else:
        yield from _same_evaluation(history)
        series = history.series("gap/logprob_abs")
        if not ahead and len(series) and series.max() > tolerance(history):
            yield _different(history, float(series.max()), float(np.median(history.series("gap/ratio"))), 0.0)


def _rarely_synced(history: History) -> Iterator[Finding]:
    """A gap that grows over several steps and falls at once, again and again: weights that arrive at every k-th sync.

    With batches sampled ahead a gap is expected, but it is that of the lag, which does not change from step to step.
    """
    gap, steps = history.series("gap/logprob_abs"), history.steps_of("gap/logprob_abs")
    lag = history.series("lag/max")
    falls = [
        place
        for place in range(2, len(gap))
        if gap[place] < gap[place - 1] / 3 and gap[place - 1] > 3 * tolerance(history)
    ]
    apart = np.diff(falls)
    if len(falls) < 2 or apart.max() - apart.min() > 1 or apart.min() <= 2 * (1 + (lag.max() if len(lag) else 0)):
        return
    every = int(np.median(apart))
    parts = [gap[max(0, place - every) : place] for place in falls]
    if not all(part[-2:].mean() > 2 * part[:2].mean() for part in parts):
        return
    yield Finding(
        code="weights-rarely-synced",
        level=Level.FAULT,
        cost=0.7,
        title=f"The engine gets new weights only at every {every}th step: until then the gap grows",
        evidence=(
            f"gap/logprob_abs falls from {gap[falls[0] - 1]:.2g} to {gap[falls[0]]:.2g} at step {steps[falls[0]]}, from"
            f" {gap[falls[1] - 1]:.2g} to {gap[falls[1]]:.2g} at step {steps[falls[1]]}; the recorded lag is"
            f" {lag.max() if len(lag) else 0:g} at most",
        ),
        change="look at the engine's load_weights: it is called after every update, and must load each time.",
        explains=frozenset({"stale", "engine-trainer-gap", "no-progress"}),
    )


def _measured(history: History) -> dict[int, Gap]:
    """Return the gap of each step whose update was recorded, if it has at least ENOUGH_TOKENS tokens.

    Of batches that were sampled ahead only the tokens count that the weights of their step sampled: the others differ
    by the age of their weights, which is no fault.
    """
    found: dict[int, Gap] = {}
    ahead = history.config.rollout.ahead > 0
    after = {int(row["step"] or 0): row.get("policy/version") for row in history.metrics}
    for step in history.steps:
        began = after.get(step - 1, 0 if step == 1 else None)
        if ahead and began is None:
            continue
        version = int(began or 0) if ahead else None
        engine, trainer = history.trained_tokens(history.by_step[step], version=version)
        if len(engine) >= ENOUGH_TOKENS:
            found[step] = Gap(engine, trainer)
    return found


def _name_gap(history: History, measured: dict[int, Gap], whole: Gap, allowed: float) -> Finding:
    """Return a finding that names the cause of a gap above the tolerance, as far as it can be recognised."""
    steps = sorted(measured)
    curve = history.series("gap/logprob_abs")
    if len(curve) < 2 or history.config.rollout.ahead:
        curve = np.asarray([measured[step].mean_abs for step in steps], dtype=np.float64)
    if len(curve) > 2 and curve[0] <= allowed:
        return _stale(history, curve, allowed)
    difference = whole.trainer - whole.engine
    above = float((difference > allowed).mean())
    if whole.ratio < 1 - 5 * allowed and above < 0.01:
        return _nucleus(history, whole, difference)
    fit = _affine(whole)
    if fit.explained > 0.5:
        return _temperature(history, whole, fit)
    return _different(history, whole.mean_abs, whole.ratio, _moved(history))


class Fit(NamedTuple):
    """Least-squares line over tokens: trainer - engine = (slope - 1) * engine + offset."""

    slope: float
    explained: float
    """Share of the gap's variance that the line explains (R^2)."""


def _affine(gap: Gap) -> Fit:
    """Fit the gap as a line in the engine's log-probabilities.

    Between two temperatures of the same logits, log p_b = (T_a / T_b) log p_a + a term of the position alone. So the
    gap is mostly a line in log p_a, whatever its size. A gap from other weights, dtypes or models hardly depends on log
    p_a.
    """
    engine = gap.engine.astype(np.float64)
    difference = gap.trainer.astype(np.float64) - engine
    spread = float(engine.var())
    if spread < 1e-8 or difference.var() == 0:
        return Fit(1.0, 0.0)
    covariance = float(np.cov(engine, difference, ddof=0)[0, 1])
    return Fit(1 + covariance / spread, covariance**2 / (spread * float(difference.var())))


def _stale(history: History, gaps: NDArray[np.float64], allowed: float) -> Finding:
    """Return the finding for a gap that was absent at the first step, when both sides had the initial weights."""
    behind = float((gaps > allowed).mean())
    falls_back = any(b < allowed < a for a, b in itertools.pairwise(gaps[1:]))
    title = (
        "The engine falls behind: it gets the trainer's weights only now and then"
        if falls_back
        else "The engine lags: it samples from weights that are about a step old"
        if _one_step_old(history, gaps)
        else "The trainer's weights do not reach the engine: it still samples from the ones that it started with"
    )
    probe = history.series("gap/probe")
    evidence = [
        f"engine and trainer agree at the first step ({gaps[0]:.1e} nats a token) and differ later by up to"
        f" {gaps.max():.2g}; a gap due to kernels or dtypes would have been there from the first step",
    ]
    if not history.config.engine.sync_check:
        evidence.append("engine.sync_check is off: nothing verified the weight syncs")
    elif len(probe):
        evidence.append(f"the probe after the syncs differed by up to {probe.max():.2g} nats a token")
    return Finding(
        code="weights-not-synced",
        level=Level.FAULT,
        cost=max(0.5, behind),
        title=title,
        evidence=tuple(evidence),
        change=_sync_advice(history),
        explains=frozenset(
            {
                "engine-trainer-gap",
                "no-progress",
                "reward-falls",
                "right-answers-fall",
                "rewards-collapsed",
                "descends",
                *SYMPTOMS,
            }
        ),
    )


def _one_step_old(history: History, gaps: NDArray[np.float64]) -> bool:
    """Return True if the gap is about what one step moves the policy, sqrt(2 step_kl) for k2, or less.

    The sum of the gaps must be below twice the sum of these movements.
    """
    moved = np.sqrt(2 * history.series("policy/step_kl").clip(min=0))
    if len(moved) != len(gaps) or len(gaps) < 4:
        return False
    return float(gaps[1:].sum()) < 2 * float(moved[:-1].sum())


SYMPTOMS = ("importance-weights", "clipping", "collapse", "kl-high")
OF_ANOTHER_DISTRIBUTION = frozenset(
    {"engine-trainer-gap", "sampling-sharper", "reward-falls", "right-answers-fall", "rewards-collapsed", *SYMPTOMS}
)
"""Consequences of an engine that samples from another distribution than the trainer scores."""


def _nucleus(history: History, whole: Gap, difference: Floats) -> Finding:
    lowest = float(np.exp(np.quantile(difference, 0.001)))
    return Finding(
        code="top-p-unaccounted",
        level=Level.FAULT,
        cost=max(0.3, 1 - whole.ratio),
        title=f"Mean ratio {whole.ratio:.3f}: the engine samples from a truncated distribution (top-p, top-k or min-p)"
        " that the trainer does not account for",
        evidence=(
            f"the trainer gives every sampled token less probability than the engine did (mean ratio {whole.ratio:.3f},"
            f" none in 1,000 below {lowest:.2f}); were both distributions over the same tokens, the mean would be 1",
            f"that is what renormalising over a nucleus does: about {percent(1 - whole.ratio)} of the probability is"
            f" cut off per token, and a smallest ratio of {lowest:.2f} points to top_p near {lowest:.2f}",
        ),
        change="sample with top_p=1, top_k=0 and min_p=0 in training, also in engine.options and in the model's"
        " generation_config, which some engines read.",
        explains=OF_ANOTHER_DISTRIBUTION,
    )


def _temperature(history: History, whole: Gap, fit: Fit) -> Finding:
    configured = history.config.rollout.temperature
    return Finding(
        code="temperature-mismatch",
        level=Level.FAULT,
        cost=max(0.3, min(1.0, whole.mean_abs)),
        title="Engine and trainer use different temperatures",
        evidence=(
            f"the trainer's log-probabilities are a line in the engine's of slope {fit.slope:.2f}"
            f" ({percent(fit.explained)} of the gap's variance), as two temperatures of the same logits give; the slope"
            " is about T_engine / T_trainer",
            f"the gap is there from the first step ({whole.mean_abs:.2g} nats a token), so it is not stale weights;"
            f" rollout.temperature is {configured:g}",
        ),
        change="divide the trainer's logits by the temperature that the engine samples with, and let the engine return"
        " processed log-probabilities (vLLM: logprobs_mode=processed_logprobs).",
        explains=OF_ANOTHER_DISTRIBUTION,
    )


def _different(history: History, mean_abs: float, ratio: float, moved: float) -> Finding:
    some, where = _concentrated(history)
    return Finding(
        code="engine-trainer-gap",
        level=Level.FAULT if mean_abs > 0.1 else Level.WARNING,
        cost=min(1.0, 0.3 + mean_abs),
        title=f"Engine and trainer disagree on the sampled tokens by {mean_abs:.2g} nats a token{some}",
        evidence=(
            *where,
            f"at most {tolerance(history):g} is explained by kernels in this dtype; mean ratio {ratio:.3f}",
            "it is neither a truncated distribution (the ratios are on both sides of 1), nor a temperature, nor weights"
            " that fell behind (it is there from the first step)",
        ),
        change="check that both sides use the same model, dtype, tokenizer and rope or attention options:"
        " `reasoner doctor CONFIG` scores the same tokens on both. Until then keep algorithm.importance=truncated.",
        explains=frozenset(SYMPTOMS),
    )


def _concentrated(history: History) -> tuple[str, tuple[str, ...]]:
    """Describe the rollouts with a gap, if the others have none: (end of a title, evidence); empty if all have one."""
    rows = [row for row in history.rows if row.trainer is not None and len(row.trainer) == len(row.logprobs) > 0]
    if len(rows) < 32:
        return "", ()
    gaps = np.asarray([float(np.abs(row.trainer - row.logprobs).mean()) for row in rows if row.trainer is not None])
    far = gaps > 10 * tolerance(history)
    if not 0.01 < far.mean() < 0.6 or float(np.quantile(gaps[~far], 0.9)) > 2 * tolerance(history):
        return "", ()
    there, rest = ([row for row, one in zip(rows, far, strict=True) if one is kind] for kind in (np.True_, np.False_))
    longest = {step: max(len(row.prompt_ids) for row in found) for step, found in history.by_step.items()}
    said = [f"{gaps[far].mean():.2g} nats a token in {len(there)} rollouts, {gaps[~far].mean():.1g} in the others"]
    if all(len(row.prompt_ids) < longest[row.step] for row in there) and any(
        len(row.prompt_ids) == longest[row.step] for row in rest
    ):
        said.append("only where the prompt is shorter than the longest of its step: padding or positions in a batch")
    references: dict[int, list[tuple[int, str]]] = {}
    for step, found in history.by_step.items():
        references[step] = [*{(row.group, str(row.reference)) for row in found}]
    answers = [row for row in there if row.answer]
    theirs = [
        row
        for row in answers
        if str(row.reference) != row.answer
        and any(row.answer == gold for group, gold in references[row.step] if group != row.group)
    ]
    if len(theirs) > 0.2 * len(answers) and len(theirs) >= 8:
        said.append(
            f"{percent(len(theirs) / len(answers))} of their answers are the reference of another problem of the step,"
            f" such as {theirs[0].answer!r:.40}: these completions belong to other prompts"
        )
    return f", all of it in {percent(float(far.mean()))} of the rollouts", tuple(said)


def _sharper(history: History, measured: dict[int, Gap]) -> Iterator[Finding]:
    """Yield a finding if both sides report the same log-probabilities but the samples do not follow them.

    Tokens drawn from p have a mean surprisal equal to p's entropy. If a lower temperature or a nucleus is applied after
    the reported log-probabilities, the samples are less surprising than that; after a higher temperature they are more
    surprising. Both values are measured over the rows of the update. Groups without signal are dropped from it, and if
    many are, the remaining rows are the more surprising ones. Therefore too high a surprisal is tested only on steps
    that kept four fifths of their rollouts.
    """
    entropies = dict(zip(history.steps_of("policy/entropy"), history.series("policy/entropy"), strict=True))
    steps = [step for step in measured if step in entropies]
    whole = [step for step in steps if _kept(history.by_step[step]) >= 0.8]
    low, high = (_surprisal(measured, entropies, listed) for listed in (steps, whole))
    sharper = low.steps >= 3 and low.share < 0.8 and low.errors < -5
    flatter = high.steps >= 3 and high.share > 1.25 and high.errors > 5
    if not (sharper or flatter):
        return
    found = high if flatter else low
    cause = "a higher temperature or a penalty on repetition" if flatter else "top-p, top-k or a lower temperature"
    yield Finding(
        code="sampling-flatter" if flatter else "sampling-sharper",
        level=Level.FAULT,
        cost=min(1.0, 0.3 + 0.5 * abs(1 - found.share)),
        title="The samples are not drawn from the distribution whose log-probabilities the engine reports:"
        f" {cause} is applied after them",
        evidence=(
            f"tokens drawn from the reported distribution would have a mean surprisal of {found.entropy:.3f} nats, its"
            f" entropy; the sampled ones have {found.surprisal:.3f} ({percent(found.share)}), {found.steps} steps"
            " agree",
        ),
        change="let the engine return processed log-probabilities (vLLM: logprobs_mode=processed_logprobs), and sample"
        " with top_p=1, without penalties and with the temperature that the trainer uses (a model's"
        " generation_config may set others).",
        explains=frozenset({*SYMPTOMS, "no-answer", "truncated"} if flatter else SYMPTOMS),
    )


class Surprisal(NamedTuple):
    """Surprisal of the sampled tokens and entropy of their supposed distribution, in nats per token."""

    steps: int
    entropy: float
    surprisal: float
    errors: float
    """Difference of surprisal and entropy, in standard errors over the steps."""

    @property
    def share(self) -> float:
        """Surprisal divided by entropy; 1 if the entropy is below 0.01."""
        return self.surprisal / self.entropy if self.entropy >= 0.01 else 1.0


def _surprisal(measured: Mapping[int, Gap], entropies: Mapping[int, float], steps: Sequence[int]) -> Surprisal:
    """Compute the means over the given steps."""
    if not steps:
        return Surprisal(0, 0.0, 0.0, 0.0)
    surprisal = np.asarray([-measured[step].engine.mean() for step in steps], dtype=np.float64)
    entropy = np.asarray([entropies[step] for step in steps], dtype=np.float64)
    return Surprisal(len(steps), float(entropy.mean()), float(surprisal.mean()), t_value(surprisal - entropy))


def _kept(rows: Sequence[Row]) -> float:
    """Return the share of a step's rollouts that were used in its update."""
    return sum(row.trainer is not None for row in rows) / len(rows)


def _moved(history: History) -> float:
    """Return the nats per token by which all measured steps together moved the trainer's policy."""
    return float(history.series("policy/step_kl").sum())


def _same_evaluation(history: History) -> Iterator[Finding]:
    """Yield a finding if two evaluations are equal although the policy moved.

    Evaluations use the same seeds. So equal completions with equal log-probabilities mean equal weights. Equal text
    alone proves little if it is greedy or short, but its log-probabilities change with any weight. If these are not
    informative (some engines report 0 for greedy tokens), a passed probe after the syncs is trusted; without one,
    enough sampled tokens are required that some would have changed.
    """
    versions: dict[int, dict[tuple[int, int, str], Row]] = {}
    for row in history.eval_rows:
        versions.setdefault(row.step, {})[row.group, row.sample, row.problem] = row
    steps = sorted(versions)
    moved = _moved(history)
    if len(steps) < 2 or moved < 1e-3:
        return
    first, last = versions[steps[0]], versions[steps[-1]]
    pairs = [(row, last[key]) for key, row in first.items() if key in last]
    if len(pairs) < 16 or any(before.completion != after.completion for before, after in pairs):
        return
    drift = _logprob_drift(pairs)
    drift_text = ""
    if drift is not None:
        if drift > min(0.1 * tolerance(history), 0.05 * float(np.sqrt(2 * moved))):
            return
        drift_text = f", with log-probabilities that differ by {drift:.1g} nats a token"
    elif _probes_passed(history) or not _some_would_change(history, [row for row, _ in pairs], moved):
        return
    yield Finding(
        code="weights-not-synced",
        level=Level.FAULT,
        cost=1.0,
        title="The trainer's weights do not reach the engine: it still samples from the ones that it started with",
        evidence=(
            f"all {len(pairs)} evaluation completions after step {steps[-1]} are identical to those of step"
            f" {steps[0]}{drift_text}, though the trainer's policy moved by {moved:.2g} nats a token",
        ),
        change=_sync_advice(history),
        explains=frozenset(
            {"engine-trainer-gap", "no-progress", "reward-falls", "right-answers-fall", "rewards-collapsed", *SYMPTOMS}
        ),
        rollouts=places([row for row in history.eval_rows if row.step == steps[-1]]),
    )


def _logprob_drift(pairs: Sequence[tuple[Row, Row]]) -> float | None:
    """Return the mean |change| of a token's log-probability; None if the log-probabilities are not informative."""
    informative = [(a.logprobs, b.logprobs) for a, b in pairs if len(a.logprobs) and len(a.logprobs) == len(b.logprobs)]
    if not informative or not any(np.abs(before).max() > 1e-6 for before, _ in informative):
        return None
    return float(np.abs(np.concatenate([before - after for before, after in informative])).mean())


def _probes_passed(history: History) -> bool:
    """Return True if every weight sync was followed by a probe on which both sides agreed."""
    probe, allowed = history.series("gap/probe"), tolerance(history)
    return bool(history.config.engine.sync_check and len(probe) and probe.max() <= allowed)


def _some_would_change(history: History, rows: Sequence[Row], moved: float) -> bool:
    """Return True if at least ten of the sampled tokens would change when the policy moves by `moved` nats.

    With a common seed, a token changes with a probability of about the total variation, half of E|log-ratio|; that is
    0.4 sqrt(2 moved) for a normal log-ratio. Greedy tokens change only where the likeliest token does.
    """
    if history.config.eval.temperature == 0:
        return False
    return sum(row.tokens for row in rows) * 0.4 * float(np.sqrt(2 * moved)) >= 10


def _sync_advice(history: History) -> str:
    """Return advice for weights that do not arrive."""
    if not history.config.engine.sync_check:
        return "set engine.sync_check=true, and fix the engine's load_weights; `reasoner doctor CONFIG` tests one."
    return (
        "fix the engine's load_weights (a tied head, an adapter that is not merged, a cache that is not dropped are"
        " the usual causes); `reasoner doctor CONFIG` tests one sync."
    )
