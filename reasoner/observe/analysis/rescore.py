"""Regrading of stored rollouts with a changed or different verifier, and its effect on rewards. Needs no GPU.

Letters: G group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from reasoner.algorithm.group_baselines import (
    GROUP_ADVANTAGES,
    group_advantages,
    normalized_sums,
    terms_of,
)
from reasoner.config.found import graders_of
from reasoner.config.sections import AlgorithmSection
from reasoner.config.stage import StageConfig
from reasoner.storage.files import RunError
from reasoner.storage.history import History, Row, read_history, stage_folders
from verifiers import JSON, GradingRow, Verdict
from verifiers.pool import GradingPool, GradingRequest, PoolLimits
from verifiers.row_choice import Choice, RowGraders


class Regraded(NamedTuple):
    """A rollout with its old and new verdict."""

    row: Row
    verdict: Verdict

    @property
    def before(self) -> float | None:
        """The reward that the run used; None if it was not graded."""
        return self.row.reward

    @property
    def after(self) -> float | None:
        """The reward by the new verdict, with the same shaping; None if it was not graded."""
        return None if self.verdict.reward is None else self.verdict.reward + self.row.shaping

    @property
    def changed(self) -> bool:
        """True if the two rewards are not exactly equal."""
        return self.before != self.after


def regrade(
    rows: Sequence[Row],
    config: StageConfig,
    *,
    verifier: str | None = None,
    options: Mapping[str, JSON] | None = None,
    any_row: bool = False,
    workers: int = 2,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[Regraded]:
    """Grade rollouts again.

    Args:
        rows: stored rollouts.
        config: config of their run; its grading limits apply again.
        verifier: name of a verifier; None: the one that each row names.
        options: options of that verifier.
        any_row: True allows rows to name files, modules and URLs as verifiers, and to set limits and the sandbox.
        workers: number of grading processes.
        on_progress: called with the number of graded rows.
    Raises:
        RowRefused: a row names something that rows may not.
    """
    graders = RowGraders(verifier, options) if verifier else graders_of(config, any_row=any_row)
    requests = [_request(row, graders, own=verifier is None) for row in rows]
    grading = config.grading
    limits = PoolLimits(wall_seconds=grading.wall_seconds, memory_bytes=grading.memory_megabytes << 20)
    done: list[Regraded] = []
    with GradingPool(workers=workers, limits=limits) as pool:
        for row, verdict in zip(rows, pool.grade(requests), strict=True):
            done.append(Regraded(row, verdict))
            on_progress(len(done))
    return done


def _request(row: Row, graders: RowGraders, *, own: bool) -> GradingRequest:
    named = graders.choice(*((row.verifier, row.verifier_options) if own else (None, None)))
    chosen = named or Choice(row.verifier, row.verifier_options)
    grading = GradingRow(completion=row.answer_text, reference=row.reference, prompt=row.question, info=row.graded_info)
    return GradingRequest(chosen.verifier, grading, chosen.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescore:
    """Rewards and advantages of a run by the old and by the new verdicts."""

    rollouts: int
    changed: int
    """Rollouts with a different reward."""
    outcomes: Mapping[tuple[str, str], int]
    """(old, new) outcome to count, for the rollouts where they differ."""
    reward_before: float
    reward_after: float
    """Mean rewards over the graded rollouts, by the old and by the new verdicts."""
    groups: int
    signal_lost: int
    """Groups with a nonzero advantage before and none after."""
    signal_gained: int
    advantages_changed: int
    """Rollouts whose advantage differs by more than 1e-6."""
    advantages_reversed: int
    """Rollouts whose advantage changes its sign."""
    advantages_note: str | None
    """Sentence on how the advantages here differ from the run's own; None if they do not."""

    def to_json(self) -> dict[str, JSON]:
        """Return the record as a JSON object."""
        outcomes: dict[str, JSON] = {f"{old} -> {new}": n for (old, new), n in sorted(self.outcomes.items())}
        return {name: getattr(self, name) for name in self.__slots__} | {"outcomes": outcomes}


def summarize(done: Sequence[Regraded], config: StageConfig) -> Rescore:
    """Compute rewards, advantages and group filters by the old and by the new verdicts."""
    groups: dict[tuple[int, int], list[Regraded]] = {}
    for item in done:
        groups.setdefault((item.row.step, item.row.group), []).append(item)
    lost = gained = changed = reverse = 0
    for group in groups.values():
        before = advantages(learned_rewards(group, config.algorithm, after=False), config.algorithm)
        after = advantages(learned_rewards(group, config.algorithm, after=True), config.algorithm)
        lost += any(before) and not any(after)
        gained += any(after) and not any(before)
        changed += sum(abs(a - b) > 1e-6 for a, b in zip(before, after, strict=True))
        reverse += sum(a * b < 0 for a, b in zip(before, after, strict=True))
    old = [item.before for item in done if item.before is not None]
    new = [item.after for item in done if item.after is not None]
    return Rescore(
        rollouts=len(done),
        changed=sum(item.changed for item in done),
        outcomes=Counter(
            (item.row.outcome, str(item.verdict.outcome)) for item in done if item.row.outcome != item.verdict.outcome
        ),
        reward_before=sum(old) / max(1, len(old)),
        reward_after=sum(new) / max(1, len(new)),
        groups=len(groups),
        signal_lost=lost,
        signal_gained=gained,
        advantages_changed=changed,
        advantages_reversed=reverse,
        advantages_note=advantages_note(config.algorithm),
    )


def learned_rewards(group_G: Sequence[Regraded], algorithm: AlgorithmSection, *, after: bool) -> list[float | None]:
    """Return, [G], the values that the run's estimator compares, by the old or new verdicts; None if ungraded.

    These are the rewards. With algorithm.normalize_components they are the components as GDPO adds them; for rejection
    without a threshold they are the verdicts' quality (1: right). Shaping is added in each case.
    """
    found: list[float | None] = [item.after if after else item.before for item in group_G]
    graded = [place for place, reward in enumerate(found) if reward is not None]
    verdicts = {place: group_G[place].verdict if after else group_G[place].row for place in graded}
    shaping = {place: group_G[place].row.shaping for place in graded}
    if algorithm.normalize_components and graded:
        terms = [
            terms_of((found[at] or 0.0) - shaping[at], components=verdict.components, weights=verdict.weights)
            for at, verdict in verdicts.items()
        ]
        for at, value in zip(graded, normalized_sums(terms), strict=True):
            found[at] = value + shaping[at]
    elif algorithm.advantage == "rejection" and algorithm.advantage_options.get("threshold") is None:
        for at, verdict in verdicts.items():
            found[at] = (verdict.quality or 0.0) + shaping[at]
    return found


def advantages(rewards_G: Sequence[float | None], algorithm: AlgorithmSection) -> list[float]:
    """Return, [G], the advantages by the run's estimator, or by the one in `advantages_note`; 0 if ungraded.

    Args:
        rewards_G: from `learned_rewards`.
        algorithm: the run's section.
    """
    graded = [reward for reward in rewards_G if reward is not None]
    if not graded:
        return [0.0] * len(rewards_G)
    if algorithm.advantage in GROUP_ADVANTAGES:
        options = {name: value for name, value in algorithm.advantage_options.items() if value is not None}
        values = GROUP_ADVANTAGES[algorithm.advantage](graded, **options)
    else:
        values = group_advantages(graded)
    found = iter(values)
    return [0.0 if reward is None else next(found) for reward in rewards_G]


def advantages_note(algorithm: AlgorithmSection) -> str | None:
    """Describe how the advantages compared here differ from those of the run; None if they do not."""
    if algorithm.advantage not in GROUP_ADVANTAGES:
        return (
            f"algorithm.advantage {algorithm.advantage!r} needs more than the rewards of a group: the advantages"
            " compared here are rewards minus their group's mean."
        )
    if algorithm.kl_in == "reward" and algorithm.kl_coef > 0:
        return "The advantages compared here leave out the KL that algorithm.kl_in subtracts from the rewards."
    return None


def changed_rows(done: Sequence[Regraded]) -> list[dict[str, Any]]:
    """Return a JSON row for each rollout whose reward or outcome differs, the largest change first."""

    def size(item: Regraded) -> float:
        return abs((item.after or 0.0) - (item.before or 0.0))

    different = [item for item in done if item.changed or item.row.outcome != item.verdict.outcome]
    return [
        {
            "step": item.row.step,
            "group": item.row.group,
            "sample": item.row.sample,
            "problem": item.row.problem,
            "reference": item.row.reference,
            "before": {"outcome": item.row.outcome, "reward": item.before, "answer": item.row.answer},
            "after": {**item.verdict.to_json(), "reward": item.after},
            "completion": item.row.completion,
        }
        for item in sorted(different, key=size, reverse=True)
    ]


def stage_with_rollouts(run: Path) -> History:
    """Return the last stage of a run that has rollouts.

    Raises:
        RunError: no stage has any.
    """
    for folder in reversed(stage_folders(run)):
        history = read_history(folder)
        if history.rows:
            return history
    raise RunError(f"{run} must have rollouts to grade; it has none. An sft stage writes none.")
