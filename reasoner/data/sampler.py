"""Order of the problems: one pass per epoch, shuffled or in the order of the data."""

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
    """Sampler of every problem (or row of data) once per epoch, in an order determined by the seed and the epoch.

    Args:
        problems: the items to draw from.
        seed: seed of the order.
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
        """Number of passes over the problems so far."""
        return self._epoch + self._position / len(self.problems)

    def take(self, count: int) -> list[Item]:
        """Return the next problems; at the end of an epoch a new one begins."""
        taken: list[Item] = []
        while len(taken) < count:
            if self._position == len(self._order):
                self._epoch, self._position = self._epoch + 1, 0
                self._order = self._next_order()
            taken.append(self.problems[self._order[self._position]])
            self._position += 1
        return taken

    def state(self) -> dict[str, JSON]:
        """Return the state for `restore`."""
        return {"epoch": self._epoch, "position": self._position}

    def restore(self, state: Mapping[str, JSON]) -> None:
        """Restore a state returned by `state`, over the same problems."""
        self._epoch = cast("int", state["epoch"])
        self._position = cast("int", state["position"])
        self._order = self._next_order()

    def _next_order(self) -> list[int]:
        order = list(range(len(self.problems)))
        if self._shuffle:
            random.Random(request_seed(self._seed, "order", self._epoch)).shuffle(order)
        return order


def summary(data: Sequence[object]) -> str:
    """Return the number of rows and a digest that depends on every row and their order.

    Args:
        data: objects fully described by their `repr`: dataclasses and tuples of JSON values.
    """
    digest = hashlib.blake2b(digest_size=6)
    for item in data:
        digest.update(repr(item).encode("utf-8", "surrogatepass"))
    return f"{len(data):,} rows, digest {digest.hexdigest()}"


class Source(Protocol):
    """Interface of a sampler of one part of a mixture."""

    @property
    def problems(self) -> Sequence[Problem]:
        """All problems of the part."""
        ...

    @property
    def epochs(self) -> float:
        """Number of passes over the problems so far."""
        ...

    def take(self, count: int) -> list[Problem]:
        """Return the next problems."""
        ...

    def state(self) -> dict[str, JSON]:
        """Return the state for `restore`."""
        ...

    def restore(self, state: Mapping[str, JSON]) -> None:
        """Restore a state returned by `state`."""


class Mixture:
    """Mixture of samplers in fixed proportions: over time the numbers drawn follow the weights exactly."""

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
        """Number of passes over the problems so far: that of the part with the fewest."""
        return min(sampler.epochs for sampler in self._samplers)

    def take(self, count: int) -> list[Problem]:
        """Return the next problems, each from the part that is furthest behind its share."""
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
        """Return the state for `restore`."""
        return {"drawn": [*self._drawn], "parts": [sampler.state() for sampler in self._samplers]}

    def restore(self, state: Mapping[str, JSON]) -> None:
        """Restore a state returned by `state`, over the same problems."""
        parts = cast("list[dict[str, JSON]]", state["parts"])
        self._drawn = cast("list[int]", state["drawn"])
        for sampler, part in zip(self._samplers, parts, strict=True):
            sampler.restore(part)
