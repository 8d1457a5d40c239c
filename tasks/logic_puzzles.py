"""Puzzles with exactly one solution, checked by a search: knights and knaves, orders, zebra puzzles, 3-SAT."""

from __future__ import annotations

import itertools
import operator
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from tasks.base import Problem, Task, TaskError
from tasks.drawing import draw_distinct
from verifiers import JSON
from verifiers.logic.formula import evaluate
from verifiers.logic.reading import parse

NAMES = ("Ann", "Bob", "Cleo", "Dan", "Eva", "Finn", "Gus")
ATTRIBUTES: Sequence[tuple[str, str, tuple[str, ...]]] = (
    ("pet", "the {}", ("cat", "dog", "fox", "hen", "owl")),
    ("drink", "the {} drinker", ("tea", "milk", "juice", "cocoa", "water")),
    ("colour", "the {} house", ("red", "blue", "green", "white", "black")),
    ("game", "the {} player", ("chess", "bridge", "darts", "poker", "golf")),
)
"""Attributes of the houses in a zebra puzzle: name of the attribute, phrase for a value, and its values."""
WORDS: dict[str, JSON] = {"knight": True, "knave": False}
Values = Mapping[str, bool | int]


class Clue(NamedTuple):
    """A clue in words and as a formula."""

    text: str
    formula: str


class Puzzle(NamedTuple):
    """A puzzle with its only solution."""

    opening: str
    clues: tuple[Clue, ...]
    domain: tuple[str, ...]
    """Formulas that hold for every candidate: numbers in range, all different."""
    solution: Values
    ask: str


class LogicPuzzles(Task):
    """Puzzles whose answer gives every name its value; graded by `logic`, which checks each clue.

    Args:
        family: knights (who lies?), order (who stands where?), zebra (who lives where, with which pet, drink, ...?),
            sat (which values make all clauses true?).
        people: number of people; for sat, number of variables.
        attributes: attributes of each house of a zebra puzzle, in addition to its inhabitant.
        difficulty: 1 to 5 sets people and attributes; None: they are as given.
        train_size: problems of the training split.
        test_size: problems of the test split.
        seed: seed of the random draw.
    Raises:
        TaskError: unknown family, or an option out of range.
    """

    name = "logic-puzzles"

    def __init__(
        self,
        *,
        family: str = "knights",
        people: int = 3,
        attributes: int = 1,
        difficulty: int | None = None,
        train_size: int = 2_000,
        test_size: int = 200,
        seed: int = 0,
    ) -> None:
        if family not in FAMILIES:
            raise TaskError(f"family must be one of {', '.join(FAMILIES)}; got {family!r}.")
        if difficulty is not None:
            if not 1 <= difficulty <= 5:
                raise TaskError(f"difficulty must be between 1 and 5; got {difficulty}.")
            people, attributes = FAMILIES[family].levels[difficulty - 1]
        most = FAMILIES[family].most
        if not 2 <= people <= most:
            raise TaskError(f"people must be between 2 and {most} for {family}; got {people}.")
        if not 1 <= attributes <= len(ATTRIBUTES):
            raise TaskError(f"attributes must be between 1 and {len(ATTRIBUTES)}; got {attributes}.")
        self._family, self._people, self._attributes, self._seed = family, people, attributes, seed
        self._sizes = {"train": train_size, "test": test_size}

    def problems(self, split: str) -> Sequence[Problem]:
        source = random.Random(f"{self._seed} {self._family} {self._people} {self._attributes} {split}")
        return draw_distinct(lambda: self._draw(source), split=split, sizes=self._sizes)

    def _draw(self, source: random.Random) -> Problem:
        puzzle = FAMILIES[self._family].make(source, self._people, self._attributes)
        clues = " ".join(clue.text for clue in puzzle.clues)
        words = {bool(value): word for word, value in WORDS.items()}
        if self._family != "knights":
            words = {True: "true", False: "false"}
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
    """Return the candidates under which all formulas hold."""
    parsed = [parse(formula) for formula in formulas]
    return [values for values in candidates if all(evaluate(formula, values) for formula in parsed)]


def knights(source: random.Random, people: int, _attributes: int) -> Puzzle:
    """Make a puzzle in which each person makes one statement; knights tell the truth and knaves lie."""
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


def order(source: random.Random, people: int, _attributes: int) -> Puzzle:
    """Make a puzzle about the places of people in a row."""
    names = NAMES[:people]
    solution = _placed(source, [names])
    shown = ", ".join(names[:-1]) + f" and {names[-1]}"
    return Puzzle(
        opening=f"{shown} stand in a row, at places 1 to {people} from left to right.",
        clues=_clues(source, solution, [names], {name: name for name in names}, "at place"),
        domain=_all_different(names, people),
        solution=solution,
        ask=f"Who stands where? End with #### and each one's place: {', '.join(f'{n}=...' for n in names)}",
    )


def zebra(source: random.Random, people: int, attributes: int) -> Puzzle:
    """Make a puzzle about houses: where each person lives, and where each pet, each drink, ... is."""
    names, chosen = NAMES[:people], ATTRIBUTES[:attributes]
    groups = [names, *(values[:people] for _, _, values in chosen)]
    said = {name: name for name in names}
    said |= {value: phrase.format(value) for _, phrase, values in chosen for value in values[:people]}
    solution = _placed(source, groups)
    each = "; ".join(f"one {what} of {', '.join(values[:people])}" for what, _, values in chosen)
    return Puzzle(
        opening=(
            f"{', '.join(names)} live in houses 1 to {people}, from left to right, one in each."
            f" Each house has {each}, all different."
        ),
        clues=_clues(source, solution, groups, said, "in house"),
        domain=tuple(formula for group in groups for formula in _all_different(group, people)),
        solution=solution,
        ask=f"End with #### and the number of each one's house: {', '.join(f'{n}=...' for n in solution)}",
    )


def sat(source: random.Random, variables: int, _attributes: int) -> Puzzle:
    """Make clauses of three literals that one assignment satisfies; each clause excludes some remaining assignment."""
    names = [chr(ord("a") + at) for at in range(variables)]
    solution: Values = {name: source.random() < 0.5 for name in names}
    left: list[Values] = [
        dict(zip(names, values, strict=True)) for values in itertools.product((True, False), repeat=variables)
    ]
    clues = list[Clue]()
    while len(left) > 1:
        literals = [(name, source.random() < 0.5) for name in sorted(source.sample(names, min(3, variables)))]
        if not any(solution[name] is positive for name, positive in literals):
            continue
        remaining = [values for values in left if any(values[name] is positive for name, positive in literals)]
        if len(remaining) < len(left):
            left = remaining
            text = " or ".join(name if positive else f"not {name}" for name, positive in literals)
            clues.append(Clue(f"({text})", " | ".join(name if positive else f"~{name}" for name, positive in literals)))
    return Puzzle(
        opening="All of these hold:",
        clues=tuple(clues),
        domain=(),
        solution=solution,
        ask=f"Which are true? End with #### and, for each, true or false: {', '.join(f'{n}=...' for n in names)}",
    )


def _placed(source: random.Random, groups: Sequence[Sequence[str]]) -> dict[str, int]:
    """Draw places from 1, all different within each group."""
    places = range(1, len(groups[0]) + 1)
    return {
        name: place for group in groups for name, place in zip(group, source.sample(places, len(places)), strict=True)
    }


def _all_different(names: Sequence[str], count: int) -> tuple[str, ...]:
    in_range = tuple(f"{name} >= 1 & {name} <= {count}" for name in names)
    return in_range + tuple(f"{a} != {b}" for a, b in itertools.combinations(names, 2))


class Fact(NamedTuple):
    """A clue about the places of two names."""

    clue: Clue
    names: tuple[str, str]
    holds: Callable[[int, int], bool]
    """Takes their two places; True if the clue is true of them."""


def _clues(
    source: random.Random,
    solution: Mapping[str, int],
    groups: Sequence[Sequence[str]],
    said: Mapping[str, str],
    where: str,
) -> tuple[Clue, ...]:
    """Return true clues that only the solution satisfies, none of which can be left out."""
    search = _Search(groups)
    facts: dict[str, Fact] = {}
    while not search.is_unique(facts.values()):
        fact = _fact(source, solution, groups, said, where)
        facts[fact.clue.formula] = fact
    for formula in source.sample(sorted(facts), len(facts)):
        others = [fact for key, fact in facts.items() if key != formula]
        if search.is_unique(others):
            del facts[formula]
    return tuple(fact.clue for fact in facts.values())


class _Search:
    """A search that counts the ways to place groups of names, with a place of its own for each name of a group."""

    def __init__(self, groups: Sequence[Sequence[str]]) -> None:
        self._orders = list(itertools.permutations(range(1, len(groups[0]) + 1)))
        self._group = {name: (number, at) for number, group in enumerate(groups) for at, name in enumerate(group)}
        self._count = len(groups)
        self._tables: dict[str, tuple[int, int, list[int]]] = {}

    def is_unique(self, facts: Iterable[Fact]) -> bool:
        """Return True if at most one placement satisfies all facts."""
        full = (1 << len(self._orders)) - 1
        open_orders = [full] * self._count
        between: dict[tuple[int, int], list[int]] = {}
        for first, second, table in map(self._table, facts):
            if first == second:
                open_orders[first] &= table[0]
            else:
                known = between.get((first, second))
                between[first, second] = table if known is None else [a & b for a, b in zip(known, table, strict=True)]
        return self._ways(0, open_orders, between) <= 1

    def _table(self, fact: Fact) -> tuple[int, int, list[int]]:
        """Return two groups and, for each order of the first, a bit mask of the orders of the second that the fact
        allows.

        For a fact about one group, there is a single mask, of its own orders.
        """
        found = self._tables.get(fact.clue.formula)
        if found is None:
            (first, at), (second, other) = (self._group[name] for name in fact.names)
            if first == second:
                masks = [sum(1 << n for n, order in enumerate(self._orders) if fact.holds(order[at], order[other]))]
            else:
                by_place = [
                    sum(1 << n for n, order in enumerate(self._orders) if fact.holds(place, order[other]))
                    for place in range(1, len(self._orders[0]) + 1)
                ]
                masks = [by_place[order[at] - 1] for order in self._orders]
            found = self._tables[fact.clue.formula] = (first, second, masks)
        return found

    def _ways(self, group: int, left: Sequence[int], between: Mapping[tuple[int, int], list[int]]) -> int:
        """Count the placements, stopping at two."""
        if group == self._count:
            return 1
        ways = 0
        for number in range(len(self._orders)):
            if not left[group] >> number & 1:
                continue
            narrowed = list(left)
            for later in range(group + 1, self._count):
                table = between.get((group, later))
                if table is not None:
                    narrowed[later] &= table[number]
            if all(narrowed[group + 1 :]):
                ways += self._ways(group + 1, narrowed, between)
                if ways > 1:
                    break
        return ways


def _fact(
    source: random.Random,
    solution: Mapping[str, int],
    groups: Sequence[Sequence[str]],
    said: Mapping[str, str],
    where: str,
) -> Fact:
    everyone = [name for group in groups for name in group]
    a, b = sorted(source.sample(everyone, 2), key=everyone.index)  # the earlier group comes first
    ahead = solution[a] < solution[b]
    left, right = (a, b) if ahead else (b, a)
    distance = abs(solution[a] - solution[b])
    apart = not any(a in group and b in group for group in groups)

    def of_both(left_of: Callable[[int, int], bool]) -> Callable[[int, int], bool]:
        return left_of if ahead else lambda x, y: left_of(y, x)

    place = solution[b]
    chance = source.random()
    if distance == 0:
        clue, holds = Clue(f"{said[a]} and {said[b]} are in the same house.", f"{a} = {b}"), operator.eq
    elif distance == 1 and chance < 0.3:
        clue = Clue(f"{said[left]} is directly to the left of {said[right]}.", f"{left} + 1 = {right}")
        holds = of_both(lambda x, y: x + 1 == y)
    elif distance == 1 and chance < 0.6:
        clue = Clue(f"{said[a]} is next to {said[b]}.", f"{a} + 1 = {b} | {b} + 1 = {a}")
        holds = _are_next
    elif apart and chance < 0.7:
        clue, holds = Clue(f"{said[a]} and {said[b]} are not in the same house.", f"{a} != {b}"), operator.ne
    elif chance < 0.8:
        clue = Clue(f"{said[a]} is not {where} {place}.", f"{a} != {place}")
        holds = _differs_from(place)
    else:
        clue = Clue(f"{said[left]} is somewhere to the left of {said[right]}.", f"{left} < {right}")
        holds = of_both(operator.lt)
    return Fact(Clue(clue.text[0].upper() + clue.text[1:], clue.formula), (a, b), holds)


def _differs_from(place: int) -> Callable[[int, int], bool]:
    return lambda x, _: x != place


def _are_next(x: int, y: int) -> bool:
    return abs(x - y) == 1


class Family(NamedTuple):
    """How to make a puzzle, the largest number of people, and (people, attributes) by difficulty."""

    make: Callable[[random.Random, int, int], Puzzle]
    most: int
    levels: tuple[tuple[int, int], ...]


FAMILIES: Mapping[str, Family] = {
    "knights": Family(knights, 7, ((2, 1), (3, 1), (4, 1), (5, 1), (7, 1))),
    "order": Family(order, 6, ((3, 1), (4, 1), (5, 1), (6, 1), (6, 1))),
    "zebra": Family(zebra, 5, ((3, 1), (3, 2), (4, 2), (4, 3), (5, 4))),
    "sat": Family(sat, 10, ((3, 1), (4, 1), (5, 1), (7, 1), (9, 1))),
}
