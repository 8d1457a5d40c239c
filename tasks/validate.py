"""Every task checks its own gold before anybody trains on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tasks.base import Problem, Task
from verifiers import BadReference, Verifier, get_verifier


class Validation(NamedTuple):
    """What the golds of a split are worth."""

    total: int
    accepted: int
    faults: list[str]
    """One line per problem that cannot be used: its id and the cause."""
    notes: list[str]
    """One line per gold that can be used and may surprise: its id and what it is graded as."""


class Verifiers:
    """The verifier of each problem, made once for all that share its name and options."""

    def __init__(self) -> None:
        self._made: dict[str, Verifier] = {}

    def of(self, problem: Problem) -> Verifier:
        """The one that the problem names."""
        key = f"{problem.verifier} {dict(problem.verifier_options)}"
        if key not in self._made:
            self._made[key] = get_verifier(problem.verifier, **problem.verifier_options)
        return self._made[key]


def unusable(problems: Sequence[Problem], verifiers: Verifiers) -> dict[int, str]:
    """What no run can use, by its place: an empty prompt, the id of another problem, a gold that nothing can match."""
    first: dict[str, int] = {}
    faults: dict[int, str] = {}
    for place, problem in enumerate(problems):
        prompt = problem.prompt if isinstance(problem.prompt, str) else "".join(m["content"] for m in problem.prompt)
        if first.setdefault(problem.id, place) != place:
            faults[place] = f"{problem.id}: problems {first[problem.id]} and {place} have this id"
        elif not prompt.strip():
            faults[place] = f"{problem.id}: its prompt is empty"
        else:
            try:
                verifiers.of(problem).check_references(problem.reference)
            except BadReference as error:
                faults[place] = f"{problem.id}: {error}"
    return faults


def notes_on(problems: Sequence[Problem], verifiers: Verifiers) -> list[str]:
    """What is to be known of golds that can be used: statements, several answers, doubled backslashes."""
    return [
        f"{problem.id}: {note}; {str(problem.reference)[:60]!r}"
        for problem in problems
        for note in verifiers.of(problem).notes_on(problem.reference)
    ]


def validate_task(task: Task, split: str) -> Validation:
    """Check each problem: a prompt, a reference that its verifier can use, a demonstration that it accepts.

    Raises:
        TaskError: the split cannot be read at all.
    """
    problems, verifiers = task.problems(split), Verifiers()
    faults = unusable(problems, verifiers)
    for place, problem in enumerate(problems):
        if place in faults or problem.demonstration is None:
            continue
        verdict = verifiers.of(problem).verify(
            completion=problem.demonstration, reference=problem.reference, info=dict(problem.info)
        )
        if verdict.quality != 1.0:
            faults[place] = f"{problem.id}: its own demonstration is {verdict.outcome} ({verdict.reason})"
    usable = [problem for place, problem in enumerate(problems) if place not in faults]
    notes = notes_on(usable, verifiers)
    return Validation(len(problems), len(problems) - len(faults), [faults[place] for place in sorted(faults)], notes)
