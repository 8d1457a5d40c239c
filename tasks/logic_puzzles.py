"""Puzzles with exactly one solution, found by trying all: knights and knaves, orders, houses with pets."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tasks.base import Problem, Task, TaskError
from tasks.drawing import draw_distinct
from verifiers import JSON
from verifiers.logic.formula import evaluate
from verifiers.logic.reading import parse

NAMES = ("Ann", "Bob", "Cleo", "Dan", "Eva", "Finn", "Gus")
PETS = ("cat", "dog", "fox", "hen", "owl", "pig", "ram")
WORDS: dict[str, JSON] = {"knight": True, "knave": False}
Values = Mapping[str, bool | int]


class Clue(NamedTuple):
    """What is said, in words and as a formula."""

    text: str
    formula: str


class Puzzle(NamedTuple):
    """A puzzle with its only solution."""

    opening: str
    clues: tuple[Clue, ...]
    domain: tuple[str, ...]
    """Formulas that hold in every candidate: numbers in range, all different."""
    solution: Values
    ask: str


class LogicPuzzles(Task):
    """Problems whose answer gives every name its value; graded by `logic`, which checks each clue.

    Args:
        family: knights (who lies?), order (who stands where?), houses (who lives where, with which pet?).
        people: of a puzzle.
        train_size: problems of the training split.
        test_size: problems of the test split.
        seed: of the draw.
    """

    name = "logic-puzzles"

    def __init__(
        self, *, family: str = "knights", people: int = 3, train_size: int = 2_000, test_size: int = 200, seed: int = 0
    ) -> None:
        if family not in FAMILIES:
            raise TaskError(f"family must be one of {', '.join(FAMILIES)}; got {family!r}.")
        most = FAMILIES[family].most
        if not 2 <= people <= most:
            raise TaskError(f"people must be between 2 and {most} for {family}; got {people}.")
        self._family, self._people, self._seed = family, people, seed
        self._sizes = {"train": train_size, "test": test_size}

    def problems(self, split: str) -> Sequence[Problem]:
        source = random.Random(f"{self._seed} {self._family} {self._people} {split}")
        return draw_distinct(lambda: self._draw(source), split=split, sizes=self._sizes)

    def _draw(self, source: random.Random) -> Problem:
        puzzle = FAMILIES[self._family].make(source, self._people)
        clues = " ".join(clue.text for clue in puzzle.clues)
        words = {bool(value): word for word, value in WORDS.items()}
        answer = ", ".join(
            f"{name}={words[value] if isinstance(value, bool) else value}" for name, value in puzzle.solution.items()
        )
        reference: dict[str, JSON] = {
            "kind": "model",
            "formulas": [*puzzle.domain, *(clue.formula for clue in puzzle.clues)],
        }
        if self._family == "knights":
            reference["values"] = WORDS
        return Problem(
            id=f"{self._family}/{clues}",
            prompt=f"{puzzle.opening} {clues}\n{puzzle.ask}\n",
            reference=reference,
            verifier="logic",
            difficulty=min(1.0, len(puzzle.clues) / (2 * self._people)),
            demonstration=f"#### {answer}",
            task=self.name,
        )


def solutions(candidates: Sequence[Values], formulas: Sequence[str]) -> list[Values]:
    """The candidates under which all formulas hold."""
    parsed = [parse(formula) for formula in formulas]
    return [values for values in candidates if all(evaluate(formula, values) for formula in parsed)]


def knights(source: random.Random, people: int) -> Puzzle:
    """Each says one thing; knights speak the truth, knaves do not."""
    names = NAMES[:people]
    candidates: list[Values] = [
        dict(zip(names, kinds, strict=True)) for kinds in itertools.product((True, False), repeat=people)
    ]
    while True:
        clues = tuple(_statement(source, speaker, names) for speaker in names)
        found = solutions(candidates, [clue.formula for clue in clues])
        if len(found) == 1:
            break
    shown = ", ".join(names[:-1]) + f" and {names[-1]}"
    return Puzzle(
        opening=f"Knights always tell the truth and knaves always lie. {shown} are each one or the other.",
        clues=clues,
        domain=(),
        solution=found[0],
        ask=f"Who is what? End with #### and, for each, knight or knave: {', '.join(f'{n}=...' for n in names)}",
    )


def _statement(source: random.Random, speaker: str, names: Sequence[str]) -> Clue:
    others = [name for name in names if name != speaker]
    a = source.choice(others)
    b = source.choice([name for name in names if name != a])
    as_word, sign = source.choice((("a knight", ""), ("a knave", "~")))
    text, formula = source.choice(
        (
            (f"{a} is {as_word}", f"{sign}{a}"),
            (f"{a} and {b} are of the same kind", f"{a} <-> {b}"),
            (f"{a} and {b} are of different kinds", f"{a} ^ {b}"),
            (f"{a} is {as_word} or {b} is a knave", f"{sign}{a} | ~{b}"),
            (f"if {a} is {as_word}, then {b} is a knight", f"{sign}{a} -> {b}"),
        )
    )
    return Clue(f'{speaker} says: "{text[0].upper() + text[1:]}."', f"{speaker} <-> ({formula})")


def order(source: random.Random, people: int) -> Puzzle:
    """Who stands at which place of a row?"""
    names = NAMES[:people]
    places = range(1, people + 1)
    candidates: list[Values] = [dict(zip(names, row, strict=True)) for row in itertools.permutations(places)]
    solution = source.choice(candidates)
    shown = ", ".join(names[:-1]) + f" and {names[-1]}"
    return Puzzle(
        opening=f"{shown} stand in a row, at places 1 to {people} from left to right.",
        clues=_unique_clues(source, candidates, solution, [names]),
        domain=_all_different(names, people),
        solution=solution,
        ask=f"Who stands where? End with #### and each one's place: {', '.join(f'{n}=...' for n in names)}",
    )


def houses(source: random.Random, people: int) -> Puzzle:
    """Who lives in which house, and in which house is each pet?"""
    names, pets = NAMES[:people], PETS[:people]
    rows = list(itertools.permutations(range(1, people + 1)))
    candidates: list[Values] = [
        {**dict(zip(names, a, strict=True)), **dict(zip(pets, b, strict=True))} for a in rows for b in rows
    ]
    solution = source.choice(candidates)
    everyone = [*names, *pets]
    return Puzzle(
        opening=(
            f"{', '.join(names)} live in houses 1 to {people}, from left to right, one in each."
            f" Each house has one pet: {', '.join(pets)}."
        ),
        clues=_unique_clues(source, candidates, solution, [names, pets]),
        domain=(*_all_different(names, people), *_all_different(pets, people)),
        solution=solution,
        ask=f"End with #### and the house of everyone and of each pet: {', '.join(f'{n}=...' for n in everyone)}",
    )


def _all_different(names: Sequence[str], count: int) -> tuple[str, ...]:
    in_range = tuple(f"{name} >= 1 & {name} <= {count}" for name in names)
    return in_range + tuple(f"{a} != {b}" for a, b in itertools.combinations(names, 2))


def _unique_clues(
    source: random.Random, candidates: Sequence[Values], solution: Values, groups: Sequence[Sequence[str]]
) -> tuple[Clue, ...]:
    """True clues, each of which rules something out, until one candidate is left."""
    left, clues = list(candidates), list[Clue]()
    while len(left) > 1:
        clue = _clue(source, solution, groups)
        remaining = solutions(left, [clue.formula])
        if len(remaining) < len(left):
            left = remaining
            clues.append(clue)
    return tuple(clues)


def _clue(source: random.Random, solution: Values, groups: Sequence[Sequence[str]]) -> Clue:
    everyone = [name for group in groups for name in group]
    a, b = source.sample(everyone, 2)
    if solution[a] > solution[b]:
        a, b = b, a
    said = {name: f"the {name}" if name in PETS else name for name in everyone}
    left, right = said[a], said[b]
    together = a in groups[0], b in groups[0]
    if solution[a] == solution[b]:
        clue = Clue(f"{left} and {right} are in the same house.", f"{a} = {b}")
    elif solution[a] + 1 == solution[b] and source.random() < 0.5:
        clue = Clue(f"{left} is directly to the left of {right}.", f"{a} + 1 = {b}")
    elif together[0] != together[1] and source.random() < 0.3:
        clue = Clue(f"{left} and {right} are not in the same house.", f"{a} != {b}")
    elif source.random() < 0.2:
        clue = Clue(f"{left} is not at place {solution[b]}.", f"{a} != {solution[b]}")
    else:
        clue = Clue(f"{left} is somewhere to the left of {right}.", f"{a} < {b}")
    return Clue(clue.text[0].upper() + clue.text[1:], clue.formula)


class Family(NamedTuple):
    """How a puzzle is made, and of how many people at most."""

    make: Callable[[random.Random, int], Puzzle]
    most: int


FAMILIES: Mapping[str, Family] = {
    "knights": Family(knights, 7),
    "order": Family(order, 6),
    "houses": Family(houses, 4),
}
