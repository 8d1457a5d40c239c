"""Verdict of a rubric from those of its criteria: points, groups, gates, penalties."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from verifiers.compose import by_value
from verifiers.rubric.criteria import Criterion, leaves
from verifiers.verdict import JSON, Outcome, Verdict, fixed, graded

BACK = " (fallback)"
"""Suffix of a criterion's name that names its fallback."""


class Counted(NamedTuple):
    """A criterion and how far it is met."""

    criterion: Criterion
    met: float
    """From 0 to 1."""


class Total(NamedTuple):
    """Points earned and possible, in the unit of weights and points."""

    earned: float
    possible: float
    """Sum of the positive values; 0 if there is none."""

    @property
    def share(self) -> float | None:
        """Earned divided by possible, possibly negative; None if nothing can be earned."""
        return self.earned / self.possible if self.possible else None


def total_of(counted: Iterable[Counted]) -> Total:
    """Sum v r (earned) and the positive v (possible) over criteria with value v and reward r.

    Example:
        >>> points = (7.0, 5.0, 10.0, -6.0), (1.0, 0.0, 1.0, 1.0)
        >>> rows = [Criterion(name=str(p), kind="judged", spec="q", points=p) for p in points[0]]
        >>> total_of(map(Counted, rows, points[1]))
        Total(earned=11.0, possible=22.0)
    """
    listed = [*counted]
    return Total(
        math.fsum(one.criterion.value * one.met for one in listed),
        math.fsum(max(0.0, one.criterion.value) for one in listed),
    )


def weigh(criteria: Sequence[Criterion], verdicts: Mapping[str, Verdict], *, clip: bool = True) -> Verdict:
    """Combine the verdicts of criteria and fallbacks into the verdict of the rubric.

    Its components are the rewards of the criteria or, if there are tags, the share of the points under each tag: a data
    set with a rubric for each row has thousands of criteria and few tags.

    Args:
        criteria: of the rubric.
        verdicts: by name, of every criterion of `leaves`, and of every fallback as the criterion's name + BACK.
        clip: keep the reward within [0, 1].
    """
    decided = {leaf.name: _deciding(leaf, verdicts) for leaf in leaves(criteria)}
    whole = {one.name: _group(one, decided) if one.members else decided[one.name] for one in criteria}
    shut = [one for one in criteria if one.gate and _is_below(whole[one.name].reward, one.threshold)]
    fault = next((one for one in criteria if not whole[one.name].graded), None)
    every, detail = {**decided, **whole}, dict[str, JSON]()
    tags = _by_tag(criteria, every) if all(verdict.graded for verdict in whole.values()) else {}
    if shut:
        joined = fixed(Outcome.INCORRECT, f"gate {shut[0].name} is not met: {whole[shut[0].name].reason}")
    elif fault is not None:
        joined = fixed(whole[fault.name].outcome, f"{fault.name}: {whole[fault.name].reason}")
    else:
        counted = [Counted(one, met(one, whole[one.name])) for one in criteria]
        total, lost = total_of(counted), math.fsum(one.criterion.penalty * one.met for one in counted)
        reward = round((1.0 if total.share is None else total.share) - lost, 9)
        detail = {"points": {"earned": total.earned, "possible": total.possible, "reward": reward}}
        reason = _reason(counted, whole, reward)
        joined = graded(min(1.0, max(0.0, reward)), reason) if clip else by_value(reward, reason)
    rows = [*criteria, *leaves([one for one in criteria if one.members])]
    kept: dict[str, JSON] = {one.name: _shown(one, every[one.name]) for one in rows}
    return replace(
        joined,
        answer=next((verdict.answer for verdict in decided.values() if verdict.answer is not None), None),
        detail={**joined.detail, **detail, "criteria": kept},
        seconds=math.fsum(verdict.seconds for verdict in verdicts.values()),
        components=tags or {name: verdict.reward for name, verdict in whole.items() if verdict.reward is not None},
    )


def met(criterion: Criterion, verdict: Verdict) -> float:
    """Return how far a criterion is met, from 0 to 1.

    A criterion that counts against the text is met if its verdict is limit_exceeded: otherwise a text too long to be
    judged would escape the deduction.
    """
    if criterion.counts_against and verdict.outcome is Outcome.LIMIT_EXCEEDED:
        return 1.0
    return verdict.reward or 0.0


def _group(group: Criterion, decided: Mapping[str, Verdict]) -> Verdict:
    """Build the verdict of a group from those of its members, by GROUP/NAME."""
    verdicts = [decided[f"{group.name}/{member.name}"] for member in group.members]
    for one, verdict in zip(group.members, verdicts, strict=True):
        if not verdict.graded:
            return fixed(verdict.outcome, f"{one.name}: {verdict.reason}")
    counted = [Counted(one, met(one, verdict)) for one, verdict in zip(group.members, verdicts, strict=True)]
    if group.by == "all":
        reward = min(one.met for one in counted)
    elif group.by == "any":
        reward = max(one.met for one in counted)
    else:
        reward = total_of(counted).share or 0.0
    worst = min(range(len(counted)), key=lambda at: _gain(counted[at]))
    reason = f"{counted[worst].criterion.name}: {verdicts[worst].reason}" if reward < 1 else "every criterion is met"
    return graded(min(1.0, max(0.0, round(reward, 9))), reason)


def _by_tag(criteria: Sequence[Criterion], verdicts: Mapping[str, Verdict]) -> dict[str, float]:
    """Return the unclipped share of the points under each tag, without tags that cannot earn any, as in HealthBench."""
    tagged: dict[str, list[Counted]] = {}
    for one in (*criteria, *leaves([one for one in criteria if one.members])):
        for tag in one.tags:
            tagged.setdefault(tag, []).append(Counted(one, met(one, verdicts[one.name])))
    shares = {tag: total_of(counted).share for tag, counted in sorted(tagged.items())}
    return {tag: round(share, 9) for tag, share in shares.items() if share is not None}


def _gain(one: Counted) -> float:
    """Return the points that a criterion lost, as a number <= 0: those not earned, or those deducted."""
    value = one.criterion.value
    return value * (one.met - 1) if value > 0 else value * one.met - one.criterion.penalty * one.met


def _reason(counted: Sequence[Counted], whole: Mapping[str, Verdict], reward: float) -> str:
    """Name the criterion that lost the most points, with its reason."""
    worst = min(counted, key=lambda one: (_gain(one), one.met))
    if _gain(worst) >= 0 and reward >= 1:
        return "every gate is met" if all(one.criterion.gate for one in counted) else "every criterion is met"
    return f"{worst.criterion.name}: {whole[worst.criterion.name].reason}"


def _shown(one: Criterion, verdict: Verdict) -> JSON:
    return {
        **({"penalty": one.penalty} if one.penalty else {"weight": one.value}),
        "gate": one.gate,
        "reward": verdict.reward,
        "outcome": str(verdict.outcome),
        "verifier": verdict.verifier,
        **verdict.detail,
    }


def _deciding(criterion: Criterion, verdicts: Mapping[str, Verdict]) -> Verdict:
    """Return the criterion's verdict, or its fallback's if the judge failed (verifier_error)."""
    verdict = verdicts[criterion.name]
    if verdict.outcome is not Outcome.VERIFIER_ERROR or criterion.fallback is None:
        return verdict
    instead = verdicts[criterion.name + BACK]
    return replace(instead, detail={**instead.detail, "instead_of": verdict.reason})


def _is_below(reward: float | None, threshold: float) -> bool:
    return reward is not None and reward < threshold


__all__ = ["BACK", "Counted", "Total", "met", "total_of", "weigh"]
