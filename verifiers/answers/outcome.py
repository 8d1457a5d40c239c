"""The result of a game: the last score that its environment gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadOption
from verifiers.verdict import JSON, Outcome, Verdict, fixed, graded


def _game(*scores: float | None) -> dict[str, JSON]:
    turns: list[JSON] = []
    for score in scores:
        said: dict[str, JSON] = {"origin": "policy", "text": "7"}
        reply: dict[str, JSON] = {"origin": "environment", "text": "", "score": score}
        turns += [said, reply]
    return {"turns": turns}


class OutcomeVerifier(Verifier):
    """Rewards with the last `Reply.score` of the episode's environment, whatever the policy wrote.

    Args:
        best: score that is a reward of 1; scores are divided by it and clipped to [0, 1].
        raw: True: the score itself is the reward, of any size (outcome `scored`).
    """

    name = "outcome"
    examples: Sequence[Example] = (
        Example(completion="7", reference=None, info=_game(0.0, 1.0)),
        Example(completion="7", reference=None, info=_game(1.0, 0.0), outcome=Outcome.INCORRECT),
        Example(completion="7", reference=None, info=_game(None), outcome=Outcome.NO_ANSWER),
        Example(completion="score: 1.0", reference=None, outcome=Outcome.NO_ANSWER),
    )

    def __init__(self, *, best: float = 1.0, raw: bool = False) -> None:
        if not 0 < best < float("inf"):
            raise BadOption(f"best must be a positive number; got {best}.")
        self._best, self._raw = best, raw

    def grade(self, row: GradingRow) -> Verdict:
        turns = row.info.get("turns")
        scores = [
            turn["score"]
            for turn in (turns if isinstance(turns, list) else [])
            if isinstance(turn, Mapping) and turn.get("origin") == "environment" and turn.get("score") is not None
        ]
        if not scores:
            return fixed(Outcome.NO_ANSWER, "the environment gave no score")
        score = float(cast("float", scores[-1]))
        if self._raw:
            return Verdict(outcome=Outcome.SCORED, reward=score, detail={"reason": f"score {score:g}"})
        return graded(min(1.0, max(0.0, score / self._best)), f"score {score:g} of {self._best:g}")
