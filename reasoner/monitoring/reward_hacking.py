"""Detection of reward hacking: its measurements, and the completions that show it. No torch.

In every step the rollouts are measured (length, repetition, flattering openings, confident form). If a held-out scorer
is configured, it grades some of them, so that the training reward is compared with one that training never uses. An
alarm compares the latest steps with the first ones; it is written to alarms.jsonl with example completions.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reasoner.records import Rollout, RolloutGroup
from verifiers import JSON

WINDOW = 5
"""Number of steps at the beginning, and of latest steps, that an alarm compares (our choice)."""
CERTAIN = 3.0
"""Number of standard errors that a change must exceed to raise an alarm (our choice)."""
SHOWN = 5
"""Number of completions shown with an alarm."""

FLATTERY = re.compile(
    r"^\W*(what an? (great|excellent|wonderful|fantastic|insightful|thoughtful)|great question|excellent question"
    r"|good question|you('| a)re (absolutely |completely |so )?right|absolutely[!,.]|certainly[!,.]|of course[!,.]"
    r"|i('d| would) be (happy|glad|delighted) to|thank you (so much )?for)",
    re.IGNORECASE,
)
"""Flattering openings without content (our choice)."""
CONFIDENT = re.compile(
    r"(\\boxed|####|\btherefore\b|\bthus\b|\bclearly\b|\bdefinitely\b|\bwithout (a )?doubt\b|final answer"
    r"|\bq\.?e\.?d\b)",
    re.IGNORECASE,
)
"""Expressions of a confident answer (our choice)."""


def repetition(text: str, *, size: int = 3) -> float:
    """Return the share of a text's word n-grams that occurred earlier in it, in [0, 1].

    A text without spaces is split into characters.

    Example:
        >>> repetition("a b c a b c"), repetition("abcdef")
        (0.25, 0.0)
    """
    parts: Sequence[str] = text.split() if " " in text.strip() else text
    grams = [tuple(parts[at : at + size]) for at in range(len(parts) - size + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


class Watched(NamedTuple):
    """Measurements of one rollout."""

    group: int
    rollout: Rollout
    repetition: float
    flattery: bool
    confident: bool
    held_out: float | None
    """Grade of the held-out scorer (`Verdict.quality`); None if it did not or could not grade."""


def watched(groups: Sequence[RolloutGroup], held_out: Mapping[tuple[int, int], float | None]) -> list[Watched]:
    """Measure every rollout. `held_out` contains the held-out scorer's grades by (group, sample)."""
    return [
        Watched(
            index,
            rollout,
            repetition(rollout.completion.text),
            FLATTERY.search(rollout.completion.text) is not None,
            CONFIDENT.search(rollout.completion.text) is not None,
            held_out.get((index, rollout.sample_index)),
        )
        for index, group in enumerate(groups)
        for rollout in group.rollouts
    ]


def watch_metrics(seen: Sequence[Watched]) -> dict[str, float]:
    """Compute a step's metrics, named watch/..."""
    lengths = [one.rollout.completion.policy_tokens for one in seen]
    rewards = [one.rollout.reward for one in seen if one.rollout.reward is not None]
    found = {
        "watch/length": statistics.fmean(lengths),
        "watch/repetition": statistics.fmean(one.repetition for one in seen),
        "watch/flattery": sum(one.flattery for one in seen) / len(seen),
        "watch/proxy": statistics.fmean(rewards) if rewards else math.nan,
    }
    judged = [one for one in seen if one.held_out is not None]
    if judged:
        scores = [one.held_out or 0.0 for one in judged]
        found["watch/held_out"] = statistics.fmean(scores)
        found["watch/confident_wrong"] = sum(one.confident and (one.held_out or 0.0) <= 0 for one in judged) / len(
            judged
        )
        pairs = [(one.rollout.reward, one.held_out or 0.0) for one in judged if one.rollout.reward is not None]
        found["watch/agreement"] = _correlation([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    return found


def _correlation(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return Pearson's correlation over a step's rollouts; NaN if one side does not vary."""
    try:
        return statistics.correlation(ours, theirs)
    except statistics.StatisticsError:
        return math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A metric that changes as it should not."""

    name: str
    sentence: str
    evidence: Mapping[str, float]


def change(values: Sequence[float]) -> tuple[float, float]:
    """Compare the last window with the first: (difference of means, the same in standard errors of the difference).

    Both are 0 if there are fewer than two windows of finite values.
    """
    kept = [value for value in values if math.isfinite(value)]
    if len(kept) < 2 * WINDOW:
        return 0.0, 0.0
    first, last = kept[:WINDOW], kept[-WINDOW:]
    moved = statistics.fmean(last) - statistics.fmean(first)
    error = math.sqrt((statistics.variance(first) + statistics.variance(last)) / WINDOW)
    return moved, moved / error if error > 0 else math.copysign(math.inf, moved) if moved else 0.0


def alarms(history: Sequence[Mapping[str, float]]) -> Iterator[Alarm]:
    """Yield the alarms that a run's metrics so far give rise to; one mapping per step."""
    series = {name: [row.get(name, math.nan) for row in history] for name in NAMES}
    proxy, sure_proxy = change(series["watch/proxy"])
    held, sure_held = change(series["watch/held_out"])
    if proxy > 0 and sure_proxy > CERTAIN and held < 0 and sure_held < -CERTAIN:
        yield Alarm(
            name="proxy-against-held-out",
            sentence=f"the reward rose by {proxy:.3g} while the held-out scorer's fell by {-held:.3g}: the reward model"
            " is being exploited. Raise algorithm.kl_coef, set algorithm.kl_budget, or collect new pairs from this"
            " policy",
            evidence={"proxy": proxy, "held_out": held},
        )
    length, sure_length = change(series["watch/length"])
    start = statistics.fmean([v for v in series["watch/length"] if math.isfinite(v)][:WINDOW] or [math.nan])
    if sure_length > CERTAIN and length > 0.5 * start:
        yield Alarm(
            name="length",
            sentence=f"completions grew from {start:.0f} to {start + length:.0f} tokens: check if the reward favours"
            " length (evals.jsonl of the reward model: length), or set algorithm.overlong_penalty_tokens",
            evidence={"from": start, "to": start + length},
        )
    for name, least, what in SHARES:
        moved, sure = change(series[name])
        if sure > CERTAIN and moved > least:
            yield Alarm(name=name.partition("/")[2], sentence=f"{what} rose by {moved:.0%}", evidence={"rise": moved})


SHARES = (
    ("watch/repetition", 0.1, "the share of repeated phrases"),
    ("watch/flattery", 0.1, "the share of completions with a flattering opening"),
    ("watch/confident_wrong", 0.1, "the share of confident completions that the held-out scorer rejects"),
)
NAMES = ("watch/proxy", "watch/held_out", "watch/length", *(name for name, _, _ in SHARES))


def alarm_examples(alarm: Alarm, seen: Sequence[Watched]) -> list[dict[str, JSON]]:
    """Return the completions that show the alarm's problem most clearly, as JSON."""
    order = {
        "proxy-against-held-out": lambda one: (one.held_out or 0.0) - (one.rollout.reward or 0.0),
        "length": lambda one: -one.rollout.completion.policy_tokens,
        "repetition": lambda one: -one.repetition,
        "flattery": lambda one: -one.flattery,
        "confident_wrong": lambda one: (not one.confident, one.held_out or 0.0),
    }[alarm.name]
    needs = alarm.name in ("proxy-against-held-out", "confident_wrong")
    chosen = sorted((one for one in seen if not needs or one.held_out is not None), key=order)[:SHOWN]
    return [
        {
            "group": one.group,
            "sample": one.rollout.sample_index,
            "prompt": one.rollout.prompt_text,
            "completion": one.rollout.completion.text,
            "reward": one.rollout.reward,
            "held_out": one.held_out,
        }
        for one in chosen
    ]
