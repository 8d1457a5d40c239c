"""Every task checks its own gold before anybody trains on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tasks.base import BadRow, Problem, Task
from tasks.held_out import prompt_text
from tasks.leak import prompt_leak
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

    @property
    def names(self) -> set[str]:
        """Of those that were made."""
        return {key.partition(" ")[0] for key in self._made}

    def of(self, problem: Problem) -> Verifier:
        """The one that the problem names."""
        key = f"{problem.verifier} {dict(problem.verifier_options)}"
        if key not in self._made:
            self._made[key] = get_verifier(problem.verifier, **problem.verifier_options)
        return self._made[key]


def fault_of(problem: Problem, verifiers: Verifiers) -> str | None:
    """Why no run can use a problem: an empty prompt, one that ends in its answer, a reference that nothing matches."""
    leak = prompt_leak(problem.prompt, problem.reference)
    if leak and leak.sure:
        return leak.what
    if not prompt_text(problem.prompt).strip():
        return "its prompt is empty"
    return reference_fault(problem, verifiers)


def reference_fault(problem: Problem, verifiers: Verifiers) -> str | None:
    """Why its verifier cannot use a problem's reference answer."""
    try:
        verifiers.of(problem).check_references(problem.reference)
    except BadReference as error:
        return str(error)
    return None


def unusable(problems: Sequence[Problem], verifiers: Verifiers) -> dict[int, BadRow]:
    """What no run can use, by its place: what `fault_of` names, the id of another problem, and, where most prompts end
    in a line that is their reference answer, those prompts.
    """
    first: dict[str, int] = {}
    faults: dict[int, BadRow] = {}
    for place, problem in enumerate(problems):
        fault = fault_of(problem, verifiers)
        if first.setdefault(problem.id, place) != place:
            fault = f"problems {first[problem.id]} and {place} have this id: give each row one of its own"
        if fault:
            faults[place] = BadRow(problem.id, fault)
    suspected = {place: BadRow(problems[place].id, said) for place, said in suspects(problems).items()}
    if is_rule(len(suspected), len(problems)):
        faults = suspected | faults
    return faults


def suspects(problems: Sequence[Problem]) -> dict[int, str]:
    """Prompts whose last line is their reference answer, by their place: a leak, or a part of the question."""
    leaks = ((place, prompt_leak(problem.prompt, problem.reference)) for place, problem in enumerate(problems))
    return {place: leak.what for place, leak in leaks if leak and not leak.sure}


def is_rule(suspected: int, total: int) -> bool:
    """Whether so many prompts end in their reference answer that it is no chance."""
    return total > 1 and 2 * suspected > total


def notes_on(problems: Iterable[Problem], verifiers: Verifiers) -> Iterator[str]:
    """What is to be known of golds that can be used: statements, several answers, doubled backslashes."""
    for problem in problems:
        for note in verifiers.of(problem).notes_on(problem.reference):
            yield f"{problem.id}: {note}; {str(problem.reference)[:60]!r}"


def validate_task(task: Task, split: str) -> Validation:
    """Check each problem: a prompt, a reference that its verifier can use, a demonstration that it accepts.

    Raises:
        TaskError: the split cannot be read at all.
    """
    verifiers = Verifiers()
    read = [*task.each(split)]
    problems = [one for one in read if isinstance(one, Problem)]
    faults = unusable(problems, verifiers)
    for place, problem in enumerate(problems):
        if place in faults or problem.demonstration is None:
            continue
        verdict = verifiers.of(problem).verify(
            completion=problem.demonstration, reference=problem.reference, info=dict(problem.info)
        )
        if verdict.quality != 1.0:
            said = f"its own demonstration is {verdict.outcome} ({verdict.reason})"
            faults[place] = BadRow(problem.id, said)
    usable = [problem for place, problem in enumerate(problems) if place not in faults]
    bad = [one for one in read if isinstance(one, BadRow)] + [faults[place] for place in sorted(faults)]
    notes = [*notes_on(usable, verifiers)]
    return Validation(len(read), len(usable), [f"{row.where}: {row.reason}" for row in bad], notes)
