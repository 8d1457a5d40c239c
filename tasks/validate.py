"""Checks of every problem and its reference answer before training."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tasks.base import BadRow, Problem, Task, Turn
from tasks.environments.base import EnvironmentFault, Episode, Reply, asked_here
from tasks.environments.registry import get_environment
from tasks.held_out import prompt_text
from tasks.leak import prompt_leak
from verifiers import JSON, BadReference, Verifier, get_verifier


class Validation(NamedTuple):
    """Result of checking the problems of a split."""

    total: int
    accepted: int
    demonstrations: int
    """Demonstrations that were played against their environment and graded."""
    faults: list[str]
    """One line per unusable problem: its id and the reason."""
    notes: list[str]
    """One line per usable reference answer that may be read in a surprising way: its id and how it is graded."""
    stops: list[str]
    """One line per usable demonstration with a turn that ends otherwise than one in a rollout: its id and the turn."""


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


def check_environments(problems: Iterable[Problem]) -> None:
    """Make each environment that the problems name once. Raises TaskError for one that cannot be made."""
    made: set[str] = set()
    for problem in problems:
        key = f"{problem.environment} {dict(problem.environment_options)}"
        if problem.environment is not None and key not in made:
            get_environment(problem.environment, **problem.environment_options)
            made.add(key)


def demonstration_fault(problem: Problem) -> str | None:
    """Return why the turns of a demonstration are no episode, without asking the environment; None if they are one."""
    turns = problem.demonstration_turns
    if not turns:
        return None
    if problem.environment is None:
        return "its demonstration has turns, and the problem names no environment"
    if problem.demonstration is None:
        return "it has demonstration_turns and no demonstration: put the policy's last turn into demonstration"
    for number, turn in enumerate(turns, 1):
        if turn.origin != ("policy" if number % 2 else "environment"):
            return (
                f"turn {number} of its demonstration is of the {turn.origin}: turns of the policy and replies of the"
                " environment must alternate, beginning with the policy"
            )
    if len(turns) % 2:
        return (
            f"turn {len(turns)} of its demonstration has no reply: demonstration_turns must end with a turn of the"
            " environment, and the policy's last turn is the demonstration"
        )
    return None


def replies_fault(problem: Problem) -> str | None:
    """Return why a demonstration cannot have happened (its turns, or that the environment replies otherwise), or None.

    An environment that uses a seed is asked with seed 0.
    """
    if fault := demonstration_fault(problem):
        return fault
    if not problem.demonstration_turns:
        return None
    assert problem.environment is not None
    environment = get_environment(problem.environment, **problem.environment_options)
    for episode, text in reply_places(problem):
        place = len(episode.turns)
        reply = asked_here(environment, episode)
        if fault := reply_fault(None if reply is None else reply.text, text, place):
            return fault
    return None


def reply_places(problem: Problem) -> Iterator[tuple[Episode, str]]:
    """Yield (the episode up to a turn of the policy, the reply to it) for each reply of a demonstration."""
    for place, turn in enumerate(problem.demonstration_turns):
        if turn.origin == "environment":
            yield _episode(problem, problem.demonstration_turns[:place]), turn.text


def reply_fault(said: str | None, shown: str, place: int) -> str | None:
    """Return a sentence if an environment's reply is not the one that a demonstration shows behind turn `place`."""
    if said == shown:
        return None
    return f"the environment replies {said!r} to turn {place} of its demonstration, which has {shown!r}"


def stop_note(problem: Problem) -> str | None:
    """Return a remark on a turn of a demonstration that ends otherwise than one in a rollout, or None.

    Where replies are plain text, the policy's end token ends the episode: a stop string must end each turn.
    """
    if problem.environment is None or problem.demonstration is None or not problem.demonstration_turns:
        return None
    stop = tuple(get_environment(problem.environment, **problem.environment_options).stop)
    shown = " or ".join(map(repr, stop))
    said = [turn.text for turn in problem.demonstration_turns if turn.origin == "policy"]
    for place, text in enumerate(said):
        if stop and not text.endswith(stop):
            return f"turn {2 * place + 1} does not end with a stop string of its environment ({shown})"
    if stop and not problem.demonstration.endswith(stop) and (reply := last_reply(problem)) and reply.done:
        return f"its last turn, the demonstration, does not end with a stop string of its environment ({shown})"
    return None


def last_reply(problem: Problem) -> Reply | None:
    """Return the environment's reply to a demonstration's last turn. Raises EnvironmentFault as `asked_here` does."""
    assert problem.environment is not None
    environment = get_environment(problem.environment, **problem.environment_options)
    turns = (*problem.demonstration_turns, Turn("policy", problem.demonstration or ""))
    return asked_here(environment, _episode(problem, turns))


def demonstrated_info(problem: Problem) -> dict[str, JSON]:
    """Return the info that a verifier is given with a demonstration: with the turns, where there are any."""
    if problem.environment is None:
        return dict(problem.info)
    last = last_reply(problem)
    turns = (*problem.demonstration_turns, Turn("policy", problem.demonstration or ""))
    rows: list[JSON] = [{"origin": turn.origin, "text": turn.text} for turn in turns]
    if last is not None:
        rows.append({"origin": "environment", **last.to_json()})
    return {**problem.info, "turns": rows}


def _episode(problem: Problem, turns: Sequence[Turn]) -> Episode:
    return Episode(turns=turns, prompt=prompt_text(problem.prompt), reference=problem.reference, info=problem.info)


def played_fault(problem: Problem, verifiers: Verifiers) -> str | None:
    """Return why a demonstration is none: its turns cannot have happened, or its verifier does not accept it."""
    try:
        if fault := replies_fault(problem):
            return fault
        if problem.demonstration is None:
            return None
        verdict = verifiers.get(problem).verify(
            completion=problem.demonstration, reference=problem.reference, info=demonstrated_info(problem)
        )
    except EnvironmentFault as error:
        return f"its demonstration cannot be played: {error}"
    return None if verdict.quality == 1.0 else f"its own demonstration is {verdict.outcome} ({verdict.reason})"


def validate_task(task: Task, split: str) -> Validation:
    """Check each problem: it has a prompt, its verifier can use the reference, and accepts the demonstration.

    Raises:
        TaskError: the split cannot be read at all, or a problem names an environment that cannot be made.
    """
    verifiers = Verifiers()
    read = [*task.each(split)]
    problems = [one for one in read if isinstance(one, Problem)]
    faults = unusable(problems, verifiers)
    played = 0
    stops: list[str] = []
    check_environments(problems)
    for place, problem in enumerate(problems):
        if place in faults:
            continue
        played += problem.demonstration is not None
        if fault := played_fault(problem, verifiers):
            faults[place] = BadRow(problem.id, fault)
        elif note := stop_note(problem):
            stops.append(f"{problem.id}: {note}")
    usable = [problem for place, problem in enumerate(problems) if place not in faults]
    bad = [one for one in read if isinstance(one, BadRow)] + [faults[place] for place in sorted(faults)]
    notes = [*notes_on(usable, verifiers)]
    return Validation(len(read), len(usable), played, [f"{row.where}: {row.reason}" for row in bad], notes, stops)


MOST_SHOWN = 20


def grouped(lines: Sequence[str]) -> Iterator[str]:
    """Yield the first of all lines `ID: REASON` whose reasons differ only in numbers and quoted texts, and how many.

    Example:
        >>> [*grouped(["a/1: got 7", "a/2: got 8", "a/3: no text"])]
        ['a/1: got 7 (and 1 more like it)', 'a/3: no text']
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        alike[re.sub(r"'[^']*'|\d+", "", line.partition(": ")[2])].append(line)
    for group in [*alike.values()][:MOST_SHOWN]:
        yield group[0] + (f" (and {len(group) - 1:,} more like it)" if len(group) > 1 else "")
    if len(alike) > MOST_SHOWN:
        yield f"... and {len(alike) - MOST_SHOWN:,} other reasons"
