"""Groups of each training step; the trainer's only access to sampling. Letters: P problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from reasoner.config.stage import StageConfig
from reasoner.data.sampler import Mixture
from reasoner.records import Problem
from reasoner.rollout.round import Round, RoundSampler, Sampled, merged, training_params
from reasoner.rollout.selection import has_signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Producer:
    """Sampler of the groups of each step."""

    config: StageConfig
    rounds: RoundSampler
    problems: Mixture
    progress: Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
    """Function that displays progress for (label, total). Its context yields a function that takes the number done."""

    def groups(self, step: int) -> Iterator[Sampled]:
        """Yield the graded groups of a step, in `grading.portions` portions, or all at once with dynamic sampling.

        Dynamic sampling adds rounds until enough groups have signal (DAPO, arXiv:2503.14476, section 3.2). Each round
        is used completely and in order, so the kept groups do not depend on which completions finish first.
        """
        rollout, normalized = self.config.rollout, self.config.algorithm.normalize_components
        wanted = rollout.problems_per_step
        if not rollout.dynamic_sampling_rounds:
            yield from self._round(step, 0).graded(self.config.grading.portions)
            return
        parts: list[Sampled] = []
        for turn in range(1 + rollout.dynamic_sampling_rounds):
            parts.append(self._round(step, turn).all())
            if sum(has_signal(group, normalized=normalized) for part in parts for group in part.groups) >= wanted:
                break
        yield merged(parts)

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
