"""Every task checks its own gold before anybody trains on it."""

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
        if fault := replies_fault(problem):
            faults[place] = BadRow(problem.id, fault)
            continue
        verdict = verifiers.of(problem).verify(
            completion=problem.demonstration, reference=problem.reference, info=demonstrated_info(problem)
        )
        if verdict.quality != 1.0:
            said = f"its own demonstration is {verdict.outcome} ({verdict.reason})"
            faults[place] = BadRow(problem.id, said)
    usable = [problem for place, problem in enumerate(problems) if place not in faults]
    bad = [one for one in read if isinstance(one, BadRow)] + [faults[place] for place in sorted(faults)]
    notes = [*notes_on(usable, verifiers)]
    return Validation(len(read), len(usable), [f"{row.where}: {row.reason}" for row in bad], notes)
