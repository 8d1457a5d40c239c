"""Groups of each training step; the trainer's only access to sampling. Letters: P problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from reasoner.config.stage import StageConfig
from reasoner.data.sampler import Mixture
from reasoner.records import Problem
from reasoner.rollout.ahead import Ahead, Graded, Known, RecordedRound
from reasoner.rollout.round import Pending, Round, RoundSampler, Sampled, merged, training_params
from reasoner.rollout.selection import has_signal


class Recorded(Protocol):
    """Interface of the rollouts of another run."""

    last: int
    """The last step that has all its rollouts."""

    def __call__(self, step: int) -> RecordedRound:
        """Return the groups of a step."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Producer:
    """Sampler of the groups of each step."""

    config: StageConfig
    rounds: RoundSampler
    problems: Mixture
    progress: Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
    """Function that displays progress for (label, total). Its context yields a function that takes the number done."""
    ahead: Ahead | None = None
    """Window of batches that are sampled ahead; None: each step's batch is sampled when the step begins."""
    recorded: Recorded | None = None
    """Rollouts of another run to learn from; None: completions are sampled."""

    def groups(self, step: int) -> Iterator[Sampled]:
        """Yield the graded groups of a step, in `grading.portions` portions, or all at once with dynamic sampling.

        Dynamic sampling adds rounds until enough groups have signal (DAPO, arXiv:2503.14476, section 3.2). Each round
        is used completely and in order, so the kept groups do not depend on which completions finish first.
        """
        rollout, normalized = self.config.rollout, self.config.algorithm.normalize_components
        wanted = rollout.problems_per_step
        first = self._first_round(step)
        if not rollout.dynamic_sampling_rounds or self.recorded:
            yield from first.graded(self.config.grading.portions)
            return
        parts: list[Sampled] = []
        for turn in range(1 + rollout.dynamic_sampling_rounds):
            parts.append((self._round(step, turn) if turn else first).all())
            if sum(has_signal(group, normalized=normalized) for part in parts for group in part.groups) >= wanted:
                break
        yield merged(parts)

    def _first_round(self, step: int) -> Graded:
        if self.recorded is not None:
            return self.recorded(step)
        if self.ahead is None:
            return self._round(step, 0)
        rollout = self.config.rollout
        self.ahead.admit(step, last=min(step + self.ahead.most, self.config.steps))
        return self.ahead.take(step, self.progress, size=rollout.problems_per_step * rollout.group_size)

    def _round(self, step: int, turn: int) -> Round:
        problems_P = self.problems.take(self.config.rollout.problems_per_step)
        return self.sample(problems_P, label=f"step {step}: sampling", seed_parts=(step, turn), step=step)

    def sample(
        self,
        problems_P: Sequence[Problem],
        *,
        label: str,
        seed_parts: tuple[int | str, ...],
        step: int,
        group_size: int | None = None,
    ) -> Round:
        """Sample the given problems from the training distribution. `group_size` None: the config's group size."""
        size = group_size or self.config.rollout.group_size
        with self.progress(label, len(problems_P) * size) as advance:
            return self.rounds.sample(
                problems_P,
                group_size=size,
                params=training_params(self.config),
                seed_parts=seed_parts,
                step=step,
                on_progress=advance,
            )


def window(producer: Producer) -> Ahead:
    """Build the window of `rollout.ahead` batches over a producer's problems and sampler."""
    rollout = producer.config.rollout

    def sample(
        step: int,
        problems_P: Sequence[Problem],
        *,
        known: Known,
        watch: Callable[[Pending], None],
        version: int | None,
    ) -> Round:
        return producer.rounds.sample(
            problems_P,
            group_size=rollout.group_size,
            params=training_params(producer.config),
            seed_parts=(step, 0),
            step=step,
            known=known,
            watch=watch,
            priority=step,
            version=version,
        )

    return Ahead(
        most=rollout.ahead,
        draw=lambda: producer.problems.take(rollout.problems_per_step),
        sample=sample,
        together=rollout.during_update != "wait",
        pinned=(lambda: producer.rounds.engine.version) if rollout.pins else None,
    )
