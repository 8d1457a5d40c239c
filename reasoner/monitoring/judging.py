"""Cost of judging in a step, and agreement of the votes on one question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from reasoner.records import RolloutGroup
from verifiers import JSON, Verifier
from verifiers.judge.budget import Usage
from verifiers.judge.verifier import ModelJudge

INNER = ("criteria", "judged", "answers")
"""Keys of a verdict's detail under which several details lie."""


def usage_of(verifiers: Sequence[Verifier]) -> Usage:
    """Calls, tokens and cost of the judges among some verifiers, each meter counted once."""
    meters = {id(one.meter): one.meter for one in verifiers if isinstance(one, ModelJudge)}
    total = Usage()
    for meter in meters.values():
        total += meter.usage
    return total


def judge_metrics(groups: Sequence[RolloutGroup], before: Usage, after: Usage) -> dict[str, float]:
    """Calls, cached answers, faults, tokens and cost of a step; agreement where questions had several votes.

    Args:
        groups: of the step.
        before: as `usage_of` when the step began.
        after: when it ended.
    Returns:
        Nothing where no judge was asked.
    """
    found: dict[str, float] = {}
    spent = after - before
    if spent.calls or spent.hits or spent.faults:
        found |= {
            "judge/calls": float(spent.calls),
            "judge/cached": float(spent.hits),
            "judge/faults": float(spent.faults),
            "judge/tokens": float(spent.prompt_tokens + spent.completion_tokens),
            "judge/cost": spent.cost,
        }
    votes = [one for group in groups for rollout in group.rollouts for one in votes_in(rollout.verdict.detail)]
    if votes:
        found["judge/agreement"] = sum(max(one) == min(one) for one in votes) / len(votes)
    return found


def votes_in(detail: Mapping[str, JSON]) -> Iterator[list[float]]:
    """The votes on each question that had several: the levels of one judge's calls, the rewards of a jury.

    Example:
        >>> [*votes_in({"criteria": {"kind": {"levels": [1, 2]}, "brief": {"reward": 1}}})]
        [[1.0, 2.0]]
    """
    judges = detail.get("judges")
    if isinstance(judges, dict):
        rewards = [one["reward"] for one in judges.values() if isinstance(one, dict) and "reward" in one]
        votes = [float(one) for one in rewards if isinstance(one, int | float)]
    else:
        levels = detail.get("levels")
        votes = [float(one) for one in levels if isinstance(one, int | float)] if isinstance(levels, list) else []
    inner = [held for key in INNER for held in _objects(detail.get(key))]
    if len(votes) > 1 and "answers" not in detail:
        yield votes
    for one in inner:
        yield from votes_in(one)


def _objects(value: JSON) -> list[dict[str, JSON]]:
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [one for one in held if isinstance(one, dict)]


__all__ = ["judge_metrics", "usage_of", "votes_in"]
