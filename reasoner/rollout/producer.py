"""The groups of each step, as the trainer takes them."""

from __future__ import annotations

from collections.abc import Iterator

from reasoner.rollout.round import Sampled, merged
from reasoner.rollout.selection import has_signal
from reasoner.session.session import Session


def sample_step(session: Session, step: int) -> Sampled:
    """All the rollouts of a step, graded."""
    return merged(list(sample_portions(session, step)))


def sample_portions(session: Session, step: int) -> Iterator[Sampled]:
    """The step's rollouts, in the config's number of portions; with dynamic sampling, in rounds.

    There further rounds follow until enough groups have signal. A round is taken or left as a whole and in order, so
    that what is kept does not depend on what finished first (DAPO, arXiv:2503.14476, section 3.2); they come as one.
    """
    rollout = session.config.rollout
    wanted, rounds = rollout.problems_per_step, 1 + rollout.dynamic_sampling_rounds
    parts: list[Sampled] = []
    for turn in range(rounds):
        problems_P = session.sampler.take(wanted)
        with session.display.progress(f"step {step}: sampling", wanted * rollout.group_size) as advance:
            sampled = session.sample(problems_P, seed_parts=(step, turn), step=step, on_progress=advance)
        if rounds == 1:
            yield from sampled.graded(session.config.grading.portions)
            return
        parts.append(sampled.all())
        if sum(has_signal(group) for part in parts for group in part.groups) >= wanted:
            break
    yield merged(parts)
