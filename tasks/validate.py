"""Checks of every problem and its reference answer before training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tasks.base import BadRow, Problem, Task
from tasks.held_out import prompt_text
from tasks.leak import prompt_leak
from verifiers import BadReference, Verifier, get_verifier


class Validation(NamedTuple):
    """Result of checking the problems of a split."""

    total: int
    accepted: int
    faults: list[str]
    """One line per unusable problem: its id and the reason."""
    notes: list[str]
    """One line per usable reference answer that may be read in a surprising way: its id and how it is graded."""


class Verifiers:
    """A cache of verifiers: one instance for all problems with the same verifier name and options."""

    def __init__(self) -> None:
        self._made: dict[str, Verifier] = {}

    @property
    def names(self) -> set[str]:
        """Names of the verifiers built so far."""
        return {key.partition(" ")[0] for key in self._made}

    def get(self, problem: Problem) -> Verifier:
        """Return the verifier of a problem, built on first use."""
        key = f"{problem.verifier} {dict(problem.verifier_options)}"
        if key not in self._made:
            self._made[key] = get_verifier(problem.verifier, **problem.verifier_options)
        return self._made[key]


def fault_of(problem: Problem, verifiers: Verifiers) -> str | None:
    """Return why a problem is unusable (its prompt is empty or ends in its answer, nothing matches its reference), or
    None.
    """
    leak = prompt_leak(problem.prompt, problem.reference)
    if leak and leak.sure:
        return leak.what
    if not prompt_text(problem.prompt).strip():
        return "its prompt is empty"
    return reference_fault(problem, verifiers)


def reference_fault(problem: Problem, verifiers: Verifiers) -> str | None:
    """Return why a problem's verifier cannot use its reference answer, or None."""
    try:
        verifiers.get(problem).check_references(problem.reference)
    except BadReference as error:
        return str(error)
    return None


def unusable(problems: Sequence[Problem], verifiers: Verifiers) -> dict[int, BadRow]:
    """Return the unusable problems, by index in `problems`.

    These are the problems for which `fault_of` gives a reason, those with the id of an earlier problem, and, if most
    prompts end in a line that is their reference answer, those prompts.
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
    """Return, by index, the prompts whose last line is their reference answer: a leak, or a part of the question."""
    leaks = ((place, prompt_leak(problem.prompt, problem.reference)) for place, problem in enumerate(problems))
    return {place: leak.what for place, leak in leaks if leak and not leak.sure}


def is_rule(suspected: int, total: int) -> bool:
    """Return True if more than half of the prompts (of at least two) end in their reference answer: no coincidence."""
    return total > 1 and 2 * suspected > total


def notes_on(problems: Iterable[Problem], verifiers: Verifiers) -> Iterator[str]:
    """Yield the verifiers' remarks on usable reference answers: statements, several answers, doubled backslashes."""
    for problem in problems:
        for note in verifiers.get(problem).notes_on(problem.reference):
            yield f"{problem.id}: {note}; {str(problem.reference)[:60]!r}"


def validate_task(task: Task, split: str) -> Validation:
    """Check each problem: it has a prompt, its verifier can use the reference, and accepts the demonstration.

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
        verdict = verifiers.get(problem).verify(
            completion=problem.demonstration, reference=problem.reference, info=dict(problem.info)
        )
        if verdict.quality != 1.0:
            said = f"its own demonstration is {verdict.outcome} ({verdict.reason})"
            faults[place] = BadRow(problem.id, said)
    usable = [problem for place, problem in enumerate(problems) if place not in faults]
    bad = [one for one in read if isinstance(one, BadRow)] + [faults[place] for place in sorted(faults)]
    notes = [*notes_on(usable, verifiers)]
    return Validation(len(read), len(usable), [f"{row.where}: {row.reason}" for row in bad], notes)
