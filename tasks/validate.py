"""Every task checks its own gold before anybody trains on it."""

from __future__ import annotations

from typing import NamedTuple

from tasks.base import Task
from verifiers import BadReference, Verifier, get_verifier


class Validation(NamedTuple):
    """What the golds of a split are worth."""

    total: int
    accepted: int
    faults: list[str]
    """One line per problem that cannot be used: its id and the cause."""


def validate_task(task: Task, split: str) -> Validation:
    """Check each problem: a prompt, a reference that its verifier can use, a demonstration that it accepts.

    Raises:
        TaskError: the split cannot be read at all.
    """
    known: dict[str, Verifier] = {}
    faults: list[str] = []
    problems = task.problems(split)
    for problem in problems:
        key = f"{problem.verifier} {dict(problem.verifier_options)}"
        if key not in known:
            known[key] = get_verifier(problem.verifier, **problem.verifier_options)
        try:
            known[key].check_reference(problem.reference)
        except BadReference as error:
            faults.append(f"{problem.id}: {error}")
            continue
        if problem.demonstration is None:
            continue
        verdict = known[key].verify(
            completion=problem.demonstration, reference=problem.reference, info=dict(problem.info)
        )
        if verdict.reward != 1.0:
            faults.append(f"{problem.id}: its own demonstration is {verdict.outcome} ({verdict.reason})")
    return Validation(len(problems), len(problems) - len(faults), faults)
