"""Checks of every problem and its reference answer before training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tasks.base import BadRow, Problem, Task, Turn
from tasks.environments.base import Episode
from tasks.environments.registry import get_environment
from tasks.held_out import prompt_text
from tasks.leak import prompt_leak
from verifiers import JSON, BadReference, Verifier, get_verifier


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


def replies_fault(problem: Problem) -> str | None:
    """Return why the turns of a demonstration cannot have happened: the environment replies otherwise."""
    if not problem.demonstration_turns:
        return None
    if problem.environment is None:
        return "its demonstration has turns, and the problem names no environment"
    environment = get_environment(problem.environment, **problem.environment_options)
    for place, turn in enumerate(problem.demonstration_turns):
        if turn.origin == "policy":
            continue
        reply = environment.reply(_episode(problem, problem.demonstration_turns[:place]))
        said = None if reply is None else reply.text
        if said != turn.text:
            return f"the environment replies {said!r} to turn {place} of its demonstration, which has {turn.text!r}"
    return None


def demonstrated_info(problem: Problem) -> dict[str, JSON]:
    """Return the info that a verifier is given with a demonstration: with the turns, where there are any."""
    if problem.environment is None:
        return dict(problem.info)
    environment = get_environment(problem.environment, **problem.environment_options)
    turns = (*problem.demonstration_turns, Turn("policy", problem.demonstration or ""))
    last = environment.reply(_episode(problem, turns))
    rows: list[JSON] = [{"origin": turn.origin, "text": turn.text} for turn in turns]
    if last is not None:
        rows.append({"origin": "environment", **last.to_json()})
    return {**problem.info, "turns": rows}


def _episode(problem: Problem, turns: Sequence[Turn]) -> Episode:
    return Episode(turns=turns, prompt=prompt_text(problem.prompt), reference=problem.reference, info=problem.info)


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
        if fault := replies_fault(problem):
            faults[place] = BadRow(problem.id, fault)
            continue
        verdict = verifiers.get(problem).verify(
            completion=problem.demonstration, reference=problem.reference, info=demonstrated_info(problem)
        )
        if verdict.quality != 1.0:
            said = f"its own demonstration is {verdict.outcome} ({verdict.reason})"
            faults[place] = BadRow(problem.id, said)
    usable = [problem for place, problem in enumerate(problems) if place not in faults]
    bad = [one for one in read if isinstance(one, BadRow)] + [faults[place] for place in sorted(faults)]
    notes = [*notes_on(usable, verifiers)]
    return Validation(len(read), len(usable), [f"{row.where}: {row.reason}" for row in bad], notes)
