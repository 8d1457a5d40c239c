"""The problems that are likely to have signal: --write-problems."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from reasoner.observe.explain.signal_chance import Belief, after, signal_chance
from reasoner.preflight.fields import facts_of_problem
from reasoner.preflight.measured import Kept, Preflight
from reasoner.storage.files import write_text
from tasks import Problem
from verifiers import JSON
from verifiers.jsonl import json_line


def problem_list(done: Preflight, known: Iterable[Problem], *, least: float = 0.5) -> list[dict[str, JSON]]:
    """Return the problems that are likely enough to have signal, as rows for task.problems_file.

    Args:
        done: the measurement.
        known: all training problems.
        least: a problem is kept if its chance of signal is at least this share of the mean chance.
    Returns:
        rows {"id", "signal", "pass_rate", "samples"}.
    """
    size = done.config.rollout.group_size
    counts = done.counts
    mean = signal_chance(done.whole, size)

    @cache
    def judged(prior: Belief, right: int, total: int) -> tuple[float, float]:
        belief = after(prior, right, total)
        return signal_chance(belief, size), belief.mean

    found: list[dict[str, JSON]] = []
    for problem in known:
        right, total = counts.get(problem.id, (0, 0))
        chance, rate = judged(_prior(done, problem), right, total)
        if chance >= least * mean:
            found.append({"id": problem.id, "signal": round(chance, 4), "pass_rate": round(rate, 4), "samples": total})
    return found


def kept_of(done: Preflight, parts: Sequence[Sequence[Problem]]) -> Kept:
    """Return what the list keeps of the training problems of each task."""
    rows = problem_list(done, (problem for part in parts for problem in part))
    sampled = sum(bool(row["samples"]) for row in rows)
    chance = sum(float(str(row["signal"])) for row in rows) / max(1, len(rows))
    return Kept(len(rows), sum(map(len, parts)), sampled, chance)


def _prior(done: Preflight, problem: Problem) -> Belief:
    """Return the distribution of pass rates of problems like this one: of its side, its difficulty, or of all."""
    sided = [b for b in done.bins if b.side is not None]
    if sided:
        facts = facts_of_problem(problem)
        return next((b.belief for b in sided if b.side is not None and b.side.holds(facts)), done.whole)
    difficulty = problem.difficulty
    near = [
        (max(b.difficulties[0] - difficulty, difficulty - b.difficulties[1], 0.0), b.belief)
        for b in done.bins
        if b.difficulties is not None and difficulty is not None
    ]
    return min(near, key=lambda pair: pair[0])[1] if near else done.whole


def write_problems(path: Path, rows: Sequence[dict[str, JSON]]) -> None:
    """Write one JSON line per problem."""
    write_text(path, "".join(json_line(row) + "\n" for row in rows))
