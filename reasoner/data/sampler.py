"""Which problems come next: a pass per epoch, shuffled or in the order of the data."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar, cast

from reasoner.seeds import request_seed
from tasks import Problem
from verifiers import JSON

Item = TypeVar("Item")


class ProblemSampler(Generic[Item]):
    """Every problem (or row of data) once per epoch, in an order that the seed and the epoch decide.

    Args:
        problems: what is drawn from.
        seed: of the order.
        shuffle: False keeps the order of the data in every epoch.

    Example:
        >>> sampler = ProblemSampler(problems, seed=0)   # doctest: +SKIP
        >>> sampler.take(32)                              # doctest: +SKIP
    """

    def __init__(self, problems: Sequence[Item], *, seed: int, shuffle: bool = True) -> None:
        if not problems:
            raise ValueError("problems must not be empty; the task yields none for this split.")
        self.problems = problems
        self._seed = seed
        self._shuffle = shuffle
        self._epoch = 0
        self._position = 0
        self._order = self._next_order()

    @property
    def epochs(self) -> float:
        """Passes over the problems so far."""
        return self._epoch + self._position / len(self.problems)

    def take(self, count: int) -> list[Item]:
        """The next problems; a new epoch begins where one ends."""
        taken: list[Item] = []
        while len(taken) < count:
            if self._position == len(self._order):
                self._epoch, self._position = self._epoch + 1, 0
                self._order = self._next_order()
            taken.append(self.problems[self._order[self._position]])
            self._position += 1
        return taken

    def state(self) -> dict[str, JSON]:
        """What `restore` takes."""
        return {"epoch": self._epoch, "position": self._position}

    def restore(self, state: Mapping[str, JSON]) -> None:
        """Go on where `state` was taken, over the same problems."""
        self._epoch = cast("int", state["epoch"])
        self._position = cast("int", state["position"])
        self._order = self._next_order()

    def _next_order(self) -> list[int]:
        order = list(range(len(self.problems)))
        if self._shuffle:
            random.Random(request_seed(self._seed, "order", self._epoch)).shuffle(order)
        return order


def summary(data: Sequence[object]) -> str:
    """How much data there is, and a digest that another row, or another order, would change.

    Args:
        data: objects whose `repr` is all that they are: dataclasses and tuples of JSON values.
    """
    digest = hashlib.blake2b(digest_size=6)
    for item in data:
        digest.update(repr(item).encode("utf-8", "surrogatepass"))
    return f"{len(data):,} rows, digest {digest.hexdigest()}"


class Source(Protocol):
    """Draws from one part of a mixture."""

    @property
    def problems(self) -> Sequence[Problem]:
        """All of them."""
        ...

    @property
    def epochs(self) -> float:
        """Passes over the problems so far."""
        ...

    def take(self, count: int) -> list[Problem]:
        """The next problems."""
        ...

    def state(self) -> dict[str, JSON]:
        """What `restore` takes."""
        ...

    def restore(self, state: Mapping[str, JSON]) -> None:
        """Go on where `state` was taken."""


class Mixture:
    """Several samplers, drawn from in fixed proportions: the counts of a step follow the weights exactly over time."""

    def __init__(self, samplers: Sequence[Source], weights: Sequence[float]) -> None:
        total = sum(weights)
        self._samplers = samplers
        self._shares = [weight / total for weight in weights]
        self._drawn = [0] * len(samplers)

    @property
    def parts(self) -> list[Sequence[Problem]]:
        """The problems of each part."""
        return [sampler.problems for sampler in self._samplers]

    @property
    def epochs(self) -> float:
        """Passes over the problems so far, the smallest of the parts."""
        return min(sampler.epochs for sampler in self._samplers)

    def take(self, count: int) -> list[Problem]:
        """The next problems, each from the part that is furthest behind its share."""
        turns: list[int] = []
        for _ in range(count):
            total = sum(self._drawn) + 1
            behind = [share * total - drawn for share, drawn in zip(self._shares, self._drawn, strict=True)]
            part = behind.index(max(behind))
            self._drawn[part] += 1
            turns.append(part)
        taken = [iter(sampler.take(turns.count(part))) for part, sampler in enumerate(self._samplers)]
        return [next(taken[part]) for part in turns]

    def state(self) -> dict[str, JSON]:
        """What `restore` takes."""
        return {"drawn": [*self._drawn], "parts": [sampler.state() for sampler in self._samplers]}

    def restore(self, state: Mapping[str, JSON]) -> None:
        """Go on where `state` was taken, over the same problems."""
        parts = cast("list[dict[str, JSON]]", state["parts"])
        self._drawn = cast("list[int]", state["drawn"])
        for sampler, part in zip(self._samplers, parts, strict=True):
            sampler.restore(part)
