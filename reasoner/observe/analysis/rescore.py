"""Stored rollouts graded again with a changed or another verifier: what would have been different. Needs no GPU.

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
    """One rollout with its old and new verdict."""

    row: Row
    verdict: Verdict

    @property
    def before(self) -> float | None:
        """The reward that the run used."""
        return self.row.reward

    @property
    def after(self) -> float | None:
        """The reward that it would have used: the new verdict's, with the same shaping."""
        return None if self.verdict.reward is None else self.verdict.reward + self.row.shaping

    @property
    def changed(self) -> bool:
        """Whether the reward differs, exactly."""
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
        config: of their run; its grading limits hold again.
        verifier: None: the one that each row names.
        options: of that verifier.
        any_row: rows may name files, modules and URLs as verifiers, and set what runs on this machine.
        workers: grading processes.
        on_progress: called with the number of graded rows.
    Raises:
        RowRefused: a row asks for what rows may not.
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
    """Rewards and advantages of a run with the old and with the new verdicts."""

    rollouts: int
    changed: int
    """Rollouts with another reward."""
    outcomes: Mapping[tuple[str, str], int]
    """(old, new) outcome to count, where they differ."""
    reward_before: float
    reward_after: float
    """Means over graded rollouts."""
    groups: int
    signal_lost: int
    """Groups that had an advantage other than 0 and would have none."""
    signal_gained: int
    advantages_changed: int
    """Rollouts whose advantage differs by more than 1e-6."""
    advantages_reversed: int
    """Rollouts whose advantage has the other sign."""
    advantages_note: str | None
    """How the advantages here differ from the run's own, as a sentence; None where they do not."""

    def to_json(self) -> dict[str, JSON]:
        """As one JSON object."""
        outcomes: dict[str, JSON] = {f"{old} -> {new}": n for (old, new), n in sorted(self.outcomes.items())}
        return {name: getattr(self, name) for name in self.__slots__} | {"outcomes": outcomes}


def summarize(done: Sequence[Regraded], config: StageConfig) -> Rescore:
    """Rewards, advantages and group filters, before and after."""
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
    """[G] what the run's estimator compares, by the stored verdicts or the new ones; None where ungraded.

    The rewards; with algorithm.normalize_components their components as GDPO adds them; for rejection without a
    threshold how right the answers are.
    """
    found: list[float | None] = [item.after if after else item.before for item in group_G]
    graded = [place for place, reward in enumerate(found) if reward is not None]
    verdicts = {place: group_G[place].verdict if after else group_G[place].row for place in graded}
    shaping = {place: group_G[place].row.shaping for place in graded}
    if algorithm.normalize_components and graded:
        terms = [
            terms_of((found[at] or 0.0) - shaping[at], components=said.components, weights=said.weights)
            for at, said in verdicts.items()
        ]
        for at, value in zip(graded, normalized_sums(terms), strict=True):
            found[at] = value + shaping[at]
    elif algorithm.advantage == "rejection" and algorithm.advantage_options.get("threshold") is None:
        for at, said in verdicts.items():
            found[at] = (said.quality or 0.0) + shaping[at]
    return found


def advantages(rewards_G: Sequence[float | None], algorithm: AlgorithmSection) -> list[float]:
    """[G] advantages by the run's estimator, or by the one that `advantages_note` names; 0 where ungraded.

    Args:
        rewards_G: of `learned_rewards`.
        algorithm: of the run.
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
    """Say how the advantages that are compared here differ from those that the run learned from."""
    if algorithm.advantage not in GROUP_ADVANTAGES:
        return (
            f"algorithm.advantage {algorithm.advantage!r} needs more than the rewards of a group: the advantages"
            " compared here are rewards minus their group's mean."
        )
    if algorithm.kl_in == "reward" and algorithm.kl_coef > 0:
        return "The advantages compared here leave out the KL that algorithm.kl_in takes off the rewards."
    return None


def changed_rows(done: Sequence[Regraded]) -> list[dict[str, Any]]:
    """One JSON row per rollout whose reward or outcome differs, the largest change first."""

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
    """The last stage of a run that has rollouts.

    Raises:
        RunError: none has.
    """
    for folder in reversed(stage_folders(run)):
        history = read_history(folder)
        if history.rows:
            return history
    raise RunError(f"{run} must have rollouts to grade; it has none. An sft stage writes none.")
