"""Generated word problems of one or two steps, in plain English."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from tasks.base import Problem, Task, TaskError
from tasks.drawing import draw_distinct

NAMES = (
    "Ana",
    "Ben",
    "Carla",
    "David",
    "Emma",
    "Farid",
    "Grace",
    "Hugo",
    "Ines",
    "Jonas",
    "Kim",
    "Leo",
    "Maya",
    "Noah",
)
THINGS = ("apples", "books", "cards", "coins", "eggs", "flowers", "marbles", "pencils", "shells", "stamps", "stickers")
CONTAINERS = ("bags", "baskets", "boxes", "jars", "packs")


class Story(NamedTuple):
    """A question, the calculation of each step, and the answer."""

    question: str
    steps: tuple[str, ...]
    answer: int


class Cast(NamedTuple):
    """The persons and objects of a story."""

    who: str
    other: str
    things: str
    containers: str


class WordProblems(Task):
    """Questions such as "Ben has 12 coins. Maya gives Ben 9 more. How many coins does Ben have now?".

    Args:
        two_steps: share of problems that need two calculations; the others need one.
        largest: largest number in a question; products and sums may be larger.
        train_size: problems of the training split; fewer if there are fewer.
        test_size: problems of the test split; fewer if there are fewer.
        seed: seed of the random draw. The split of a question depends on the question alone.
    Raises:
        TaskError: an option out of range.
    """

    name = "word_problems"

    def __init__(
        self,
        *,
        two_steps: float = 0.5,
        largest: int = 40,
        train_size: int = 5_000,
        test_size: int = 500,
        seed: int = 0,
    ) -> None:
        if not 0 <= two_steps <= 1:
            raise TaskError(f"two_steps is a share: it must be between 0 and 1; got {two_steps}.")
        if not 12 <= largest <= 1_000:
            raise TaskError(f"largest must be between 12 and 1000; got {largest}.")
        self._two_steps = two_steps
        self._largest = largest
        self._sizes = {"train": train_size, "test": test_size}
        self._seed = seed

    def problems(self, split: str) -> Sequence[Problem]:
        return _problems(self, split)

    def draw(self, split: str) -> list[Problem]:
        """Draw distinct questions of a split; stories with the same number of steps are equally likely."""
        source = random.Random(f"{self._seed} {self.name} {split}")

        def draw() -> Problem:
            who, other = source.sample(NAMES, 2)
            cast = Cast(who, other, source.choice(THINGS), source.choice(CONTAINERS))
            steps = 2 if source.random() < self._two_steps else 1
            return self._problem(source.choice(STORIES[steps])(source, self._largest, cast))

        return draw_distinct(draw, split=split, sizes=self._sizes)

    def _problem(self, story: Story) -> Problem:
        return Problem(
            id=f"word/{hashlib.blake2b(story.question.encode(), digest_size=6).hexdigest()}",
            prompt=story.question,
            reference=str(story.answer),
            verifier="math",
            difficulty=float(len(story.steps) - 1),
            demonstration=" ".join(f"{step}." for step in story.steps) + f" The answer is {story.answer}.",
            task=self.name,
        )


@cache
def _problems(task: WordProblems, split: str) -> Sequence[Problem]:
    return task.draw(split)


def _receive(source: random.Random, largest: int, cast: Cast) -> Story:
    a, b = (source.randint(2, largest) for _ in range(2))
    return Story(
        f"{cast.who} has {a} {cast.things}. {cast.other} gives {cast.who} {b} more."
        f" How many {cast.things} does {cast.who} have now?",
        (f"{a} + {b} = {a + b}",),
        a + b,
    )


def _give(source: random.Random, largest: int, cast: Cast) -> Story:
    b, rest = source.randint(2, largest // 2), source.randint(1, largest // 2)
    return Story(
        f"{cast.who} has {b + rest} {cast.things} and gives {b} of them to {cast.other}."
        f" How many {cast.things} does {cast.who} have left?",
        (f"{b + rest} - {b} = {rest}",),
        rest,
    )


def _packed(source: random.Random, largest: int, cast: Cast) -> Story:
    a, b = source.randint(2, 12), source.randint(2, min(12, largest))
    return Story(
        f"There are {a} {cast.containers}. Each of them holds {b} {cast.things}."
        f" How many {cast.things} are there in all?",
        (f"{a} * {b} = {a * b}",),
        a * b,
    )


def _shared(source: random.Random, largest: int, cast: Cast) -> Story:
    friends, each = source.randint(2, 10), source.randint(2, 12)
    return Story(
        f"{cast.who} shares {friends * each} {cast.things} equally among {friends} friends."
        f" How many {cast.things} does each friend get?",
        (f"{friends * each} / {friends} = {each}",),
        each,
    )


def _more_than(source: random.Random, largest: int, cast: Cast) -> Story:
    a, b = (source.randint(2, largest) for _ in range(2))
    return Story(
        f"{cast.who} has {a} {cast.things}. {cast.other} has {b} {cast.things} more than {cast.who}."
        f" How many {cast.things} does {cast.other} have?",
        (f"{a} + {b} = {a + b}",),
        a + b,
    )


def _price(source: random.Random, largest: int, cast: Cast) -> Story:
    each, count = source.randint(2, 12), source.randint(2, 12)
    return Story(
        f"{cast.who} buys {count} {cast.things} that cost {each} dollars each. How many dollars does {cast.who} pay?",
        (f"{count} * {each} = {count * each}",),
        count * each,
    )


def _find_and_lose(source: random.Random, largest: int, cast: Cast) -> Story:
    a, b = (source.randint(2, largest) for _ in range(2))
    c = source.randint(1, a + b - 1)
    return Story(
        f"{cast.who} has {a} {cast.things}. {cast.who} finds {b} more and then loses {c}."
        f" How many {cast.things} does {cast.who} have now?",
        (f"{a} + {b} = {a + b}", f"{a + b} - {c} = {a + b - c}"),
        a + b - c,
    )


def _packed_and_given(source: random.Random, largest: int, cast: Cast) -> Story:
    a, b = source.randint(2, 10), source.randint(2, 10)
    c = source.randint(1, a * b - 1)
    return Story(
        f"{cast.who} buys {a} {cast.containers} of {b} {cast.things} each and gives {c} {cast.things} to {cast.other}."
        f" How many {cast.things} does {cast.who} have left?",
        (f"{a} * {b} = {a * b}", f"{a * b} - {c} = {a * b - c}"),
        a * b - c,
    )


def _together(source: random.Random, largest: int, cast: Cast) -> Story:
    a, b = (source.randint(2, largest) for _ in range(2))
    return Story(
        f"{cast.who} has {a} {cast.things}. {cast.other} has {b} {cast.things} more than {cast.who}."
        f" How many {cast.things} do they have together?",
        (f"{a} + {b} = {a + b}", f"{a} + {a + b} = {a + a + b}"),
        a + a + b,
    )


def _change(source: random.Random, largest: int, cast: Cast) -> Story:
    count, each = source.randint(2, 9), source.randint(2, 9)
    paid = count * each + source.randint(1, largest)
    return Story(
        f"{cast.who} buys {count} {cast.things} for {each} dollars each and pays with {paid} dollars."
        f" How many dollars does {cast.who} get back?",
        (f"{count} * {each} = {count * each}", f"{paid} - {count * each} = {paid - count * each}"),
        paid - count * each,
    )


def _joined_and_shared(source: random.Random, largest: int, cast: Cast) -> Story:
    friends, each = source.randint(2, 9), source.randint(2, 12)
    first = source.randint(1, friends * each - 1)
    second = friends * each - first
    return Story(
        f"{cast.who} has {first} {cast.things} and {cast.other} has {second}. They share all of them equally among"
        f" {friends} friends. How many {cast.things} does each friend get?",
        (f"{first} + {second} = {friends * each}", f"{friends * each} / {friends} = {each}"),
        each,
    )


def _packed_and_loose(source: random.Random, largest: int, cast: Cast) -> Story:
    a, b, c = source.randint(2, 10), source.randint(2, 10), source.randint(1, largest)
    return Story(
        f"{cast.who} fills {a} {cast.containers} with {b} {cast.things} each and has {c} {cast.things} left over."
        f" How many {cast.things} does {cast.who} have in all?",
        (f"{a} * {b} = {a * b}", f"{a * b} + {c} = {a * b + c}"),
        a * b + c,
    )


STORIES: Mapping[int, Sequence[Callable[[random.Random, int, Cast], Story]]] = {
    1: (_receive, _give, _packed, _shared, _more_than, _price),
    2: (_find_and_lose, _packed_and_given, _together, _change, _joined_and_shared, _packed_and_loose),
}
"""Number of calculations -> the stories that need that number."""
