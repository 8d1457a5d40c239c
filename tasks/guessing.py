"""Guessing games for the environment `guess`: find a hidden number from replies of higher and lower."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import cache

from tasks.base import Problem, Task, TaskError, Turn
from tasks.environments.guess import guess


class Guessing(Task):
    """Games such as `game 4711: 0 to 63`, six guesses each. The number of a game says nothing about the hidden number.

    Without memory of the earlier replies 9 % of games over 0 to 63 are won in 6 guesses; with random guesses among the
    numbers that are still possible 48 %; with bisection 98 % (dynamic programming; `benchmarks/guess_strategies.py`).

    Args:
        numbers: the hidden number is below this.
        guesses: turns of a demonstration at most.
        train_size: games of the training split.
        test_size: games of the test split.
        seed: of the draw.
    """

    name = "guessing"

    def __init__(
        self, *, numbers: int = 64, guesses: int = 6, train_size: int = 20_000, test_size: int = 1_000, seed: int = 0
    ) -> None:
        if not 2 <= numbers <= 1_000_000:
            raise TaskError(f"numbers must be between 2 and 1,000,000; got {numbers}.")
        if not 1 <= guesses <= 20:
            raise TaskError(f"guesses must be between 1 and 20; got {guesses}.")
        self._numbers, self._guesses, self._seed = numbers, guesses, seed
        self._sizes = {"train": train_size, "test": test_size}

    def problems(self, split: str) -> Sequence[Problem]:
        if split not in self._sizes:
            raise TaskError(f"split must be train or test; got {split!r}.")
        return _problems(self, split)

    def draw(self, split: str) -> list[Problem]:
        """Return the games of a split: every tenth is a test game."""
        games = (game for game in range(10 * sum(self._sizes.values())) if (game % 10 == 0) == (split == "test"))
        return [self._problem(game) for game, _ in zip(games, range(self._sizes[split]), strict=False)]

    def _problem(self, game: int) -> Problem:
        digest = hashlib.blake2b(f"{self._seed} {game} {self._numbers}".encode(), digest_size=8).digest()
        hidden = int.from_bytes(digest) % self._numbers
        turns = self._play(hidden, random.Random(f"{self._seed} {game}"))
        won = turns is not None
        return Problem(
            id=f"guessing-{self._numbers}/{game}",
            prompt=f"game {game}: 0 to {self._numbers - 1}\n",
            reference=str(hidden),
            verifier="outcome",
            demonstration=turns[-1].text if won else None,
            demonstration_turns=tuple(turns[:-1]) if won else (),
            environment="guess",
            task=self.name,
        )

    def _play(self, hidden: int, source: random.Random) -> list[Turn] | None:
        """Guess at random among the numbers that are still possible; None if that does not find the number.

        All guesses have as many digits as the largest number, so that the digits of two guesses stand at like places.
        """
        low, high = 0, self._numbers
        turns: list[Turn] = []
        for _ in range(self._guesses):
            said = source.randrange(low, high)
            turns.append(Turn("policy", f"{said:0{len(str(self._numbers - 1))}}\n"))
            if said == hidden:
                return turns
            reply = guess(turns=turns, reference=str(hidden))
            assert reply is not None
            turns.append(Turn("environment", reply.text, reply.data))
            low, high = (said + 1, high) if said < hidden else (low, said)
        return None


@cache
def _problems(task: Guessing, split: str) -> Sequence[Problem]:
    return task.draw(split)
