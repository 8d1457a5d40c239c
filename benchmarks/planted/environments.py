"""Broken environments, and a verifier against calls, loaded by `path.py:name` from planted_turn_faults.py."""

from __future__ import annotations

import time
from dataclasses import replace

from tasks.environments import Episode, Reply
from tasks.environments.calculator import Calculator
from verifiers import GradingRow, Outcome, Verdict, get_verifier
from verifiers.base import Verifier


class Leaking(Calculator):
    """Calculator that fails ever more often: each reply takes something that its worker never gives back."""

    name = "leaking"

    def __init__(self, *, replies: int = 12_000, opening: str = "<", closing: str = ">") -> None:
        super().__init__(opening=opening, closing=closing)
        self._replies, self._made, self._debt = replies, 0, 0.0

    def reply(self, episode: Episode) -> Reply | None:
        self._made += 1
        self._debt += min(0.12, self._made / self._replies)
        if self._debt >= 1.0:
            self._debt -= 1.0
            raise ConnectionError("the server of the calculator has no free connection")
        return super().reply(episode)


class Slow(Calculator):
    """Calculator that takes its time over each reply."""

    name = "slow"

    def __init__(self, *, seconds: float = 0.03, opening: str = "<", closing: str = ">") -> None:
        super().__init__(opening=opening, closing=closing)
        self._seconds = seconds

    def reply(self, episode: Episode) -> Reply | None:
        time.sleep(self._seconds)
        return super().reply(episode)


class Wordy(Calculator):
    """Calculator whose result stands in the middle of a long reply."""

    name = "wordy"

    def __init__(self, *, opening: str = "<", closing: str = ">") -> None:
        super().__init__(opening=opening, closing=closing)

    def reply(self, episode: Episode) -> Reply | None:
        said = super().reply(episode)
        return None if said is None else replace(said, text=f"Thank you. The result is {said.text}, as ever.")


class AgainstCalls(Verifier):
    """Verifier `exact` minus one for an episode with a call."""

    name = "against-calls"

    def grade(self, row: GradingRow) -> Verdict:
        verdict = get_verifier("exact").grade(row)
        if not row.info.get("turns"):
            return replace(verdict, outcome=Outcome.SCORED)
        return replace(verdict, outcome=Outcome.SCORED, reward=(verdict.reward or 0.0) - 1.0)
