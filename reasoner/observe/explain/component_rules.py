"""Rules on composed rewards: a component that rises alone, and one that counts for more than the right answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from reasoner.observe.explain.finding import Finding, Level, places
from reasoner.observe.explain.significance import Change, change, percent
from reasoner.storage.history import History, Row
from verifiers.stats import wilson_interval

OUTWEIGHS = 3.0
"""Weighted spread of a component within groups, divided by that of the deciding component. At this ratio nine tenths
of the variance of the compared rewards come from the component (our choice)."""
REVERSED = 0.05
"""Share of the pairs of a right and a wrong answer to one problem in which the wrong one earns more (our choice)."""
MIXED = 8
"""Minimum number of groups with right and wrong answers for the comparison."""


def component_rules(history: History) -> Iterator[Finding]:
    """Yield the findings of this module's rules."""
    yield from _rises_alone(history)
    yield from _rejects_right(history)
    tasks: dict[str, list[list[Row]]] = {}
    for group in history.groups:
        weighed = [row for row in group if row.decided_by in row.weights and row.mark is not None]
        if any(row.right for row in weighed) and not all(row.right for row in weighed):
            tasks.setdefault(group[0].task, []).append(weighed)
    for groups in tasks.values():
        if len(groups) >= MIXED:
            yield from _outweighs(groups, normalized=history.config.algorithm.normalize_components)


def _rises_alone(history: History) -> Iterator[Finding]:
    """Yield a finding if one component rises while the others do not, unless it decides which answers are right.

    Components other than the deciding one that were almost full (0.9 or more) at the start are ignored: they cannot
    rise.
    """
    names = {name for row in history.rows for name in row.components}
    moved: dict[str, Change] = {}
    for name in sorted(names):
        means = [
            float(np.mean([row.components[name] for row in history.by_step[step] if name in row.components] or [0.0]))
            for step in history.steps
        ]
        found = change(np.asarray(means))
        if found is not None:
            moved[name] = found
    deciders = {row.decided_by for row in history.rows}
    rising = {name: found.last - found.first for name, found in moved.items() if name in deciders or found.first < 0.9}
    if len(rising) < 2:
        return
    top = max(rising, key=lambda name: rising[name])
    rest = sum(value for name, value in rising.items() if name != top)
    if top in deciders or rising[top] < 0.1 or moved[top].z < 3 or rest > 0.1 * rising[top]:
        return
    yield Finding(
        code="one-component-dominates",
        level=Level.WARNING,
        cost=0.5,
        title=f"Only the reward component {top!r} rises ({rising[top]:+.2f}); the others do not ({rest:+.2f} together)",
        evidence=tuple(
            f"{name}: {found.last - found.first:+.3f} from the first quarter to the last"
            for name, found in moved.items()
        ),
        change="lower its weight, or reward it only together with a right answer.",
    )


def _rejects_right(history: History) -> Iterator[Finding]:
    """Yield a finding if a component gives nothing to any right answer of some problems, and all to those of others."""
    problems: dict[str, list[Row]] = {}
    for row in history.graded:
        if row.right and row.decided_by in row.weights:
            problems.setdefault(row.problem, []).append(row)
    rows = [row for found in problems.values() if len(found) > 1 for row in found]
    for name in sorted({name for row in rows for name, weight in row.weights.items() if weight > 0}):
        if any(row.decided_by == name for row in rows):
            continue
        most = max(row.components.get(name, 0.0) for row in rows)
        kinds = [
            {row.components.get(name, 0.0) > 0.1 * most for row in found}
            for found in problems.values()
            if len(found) > 1
        ]
        none, every = (sum(kind == {got} for kind in kinds) / len(kinds) for got in (False, True))
        if most <= 0 or len(kinds) < MIXED or none + every < 0.9 or not 0.15 < none < 0.95:
            continue
        row = next(row for row in rows if row.components.get(name, 0.0) <= 0.1 * most)
        yield Finding(
            code="component-rejects-right",
            level=Level.WARNING,
            cost=min(1.0, 0.4 + none),
            title=f"The component {name!r} gives nothing to the right answers of {percent(none)} of the problems, and"
            " everything to those of the others: it depends on the problem and not on what the policy does",
            evidence=(f"such as {row.completion[-60:]!r}, which is right: {row.reason[:160]}",),
            change=f"check what {name!r} asks for (a pattern, a length): every right answer should be able to have it.",
            rollouts=places([row for row in rows if row.components.get(name, 0.0) <= 0.1 * most]),
            explains=frozenset({"reward-falls", "right-answers-fall", "no-progress", "component-outweighs-answer"}),
        )


def _outweighs(groups: Sequence[Sequence[Row]], *, normalized: bool) -> Iterator[Finding]:
    """Yield a finding if a component of a weighted reward counts for much more than the one that decides right answers.

    It compares the differences within groups with right and wrong answers, from which advantages are made: either the
    component's weighted spread is many times that of the deciding one, or wrong answers earn more than right ones. If
    components are normalized before they are added, only the weights decide the spread.

    Args:
        groups: of one task, each with right and wrong answers and a weighted reward.
        normalized: value of `algorithm.normalize_components`.
    """
    decider = groups[0][0].decided_by or ""
    others = [name for name in groups[0][0].weights if name != decider]
    if not others:
        return
    spreads = {name: _spread(groups, name, normalized=normalized) for name in (decider, *others)}
    pairs = [] if normalized else [pair for group in groups for pair in _right_and_wrong(group)]
    upside_down = [(good, bad) for good, bad in pairs if _earned(bad) > _earned(good) + 1e-9]
    share = len(upside_down) / len(pairs) if pairs else 0.0
    certain = bool(pairs) and wilson_interval(len(upside_down), len(pairs)).low > REVERSED
    top = max(others, key=lambda name: _advance(upside_down, name) if certain else spreads[name])
    if not certain and spreads[top] < OUTWEIGHS * spreads[decider]:
        return
    weights = groups[0][0].weights
    values = [row.weights[top] * row.components.get(top, 0.0) for group in groups for row in group]
    evidence = [
        f"weight {weights[top]:g} against {weights[decider]:g} of {decider!r}, which decides what is right; among the"
        f" samples of one problem it spreads by {spreads[top]:.2g}, {decider!r} by {spreads[decider]:.2g}",
        f"its weighted value is between {min(values):.3g} and {max(values):.3g} in these groups",
    ]
    if certain:
        evidence.insert(
            0, f"in {len(upside_down)} of {len(pairs)} pairs of a right and a wrong answer the wrong one earns more"
        )
    yield Finding(
        code="component-outweighs-answer",
        level=Level.WARNING,
        cost=max(0.5, share),
        title=f"The reward component {top!r} outweighs the right answer: "
        + (
            f"by it a wrong answer earns more than a right one in {percent(share)} of the pairs"
            if certain
            else f"it makes {spreads[top] / max(spreads[decider], 1e-9):.0f} times the differences"
        ),
        evidence=tuple(evidence),
        change=f"lower the weight of {top!r} until its whole range is worth less than a right answer, give it only"
        " after a right answer (`gate`), or set algorithm.normalize_components=true with the intended weights.",
        rollouts=places([bad for _, bad in upside_down] or [row for group in groups for row in group]),
        explains=frozenset(
            {
                "one-component-dominates",
                "right-answers-fall",
                "reward-model-hacked",
                "evaluation-falls",
                "all-wrong",
                "length-drift",
                "no-progress",
            }
        ),
    )


def _spread(groups: Sequence[Sequence[Row]], name: str, *, normalized: bool) -> float:
    """Return the root mean square, over groups, of the weighted component's standard deviation within the group."""
    columns = [np.asarray([row.weights[name] * row.components.get(name, 0.0) for row in group]) for group in groups]
    if normalized:
        stds = [abs(group[0].weights[name]) * float(np.ptp(c) > 1e-6) for group, c in zip(groups, columns, strict=True)]
    else:
        stds = [float(column.std()) for column in columns]
    return float(np.sqrt(np.mean(np.square(stds))))


def _right_and_wrong(group: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    right, wrong = [row for row in group if row.right], [row for row in group if row.mark == 0]
    return product(right, wrong)


def _earned(row: Row) -> float:
    return row.verdict_reward or 0.0


def _advance(pairs: Sequence[tuple[Row, Row]], name: str) -> float:
    """Return by how much the weighted component of the second row exceeds that of the first, averaged over pairs."""
    return float(
        np.mean(
            [
                bad.weights[name] * (bad.components.get(name, 0.0) - good.components.get(name, 0.0))
                for good, bad in pairs
            ]
        )
    )
