"""What a verifier says of one completion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"


class Outcome(StrEnum):
    """How grading ended. Could not grade is not wrong: the last two carry no reward."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    NO_ANSWER = "no_answer"
    PARTIAL = "partial"
    SCORED = "scored"
    LIMIT_EXCEEDED = "limit_exceeded"
    BAD_REFERENCE = "bad_reference"
    VERIFIER_ERROR = "verifier_error"


FIXED_REWARD: Mapping[Outcome, float | None] = {
    Outcome.CORRECT: 1.0,
    Outcome.INCORRECT: 0.0,
    Outcome.NO_ANSWER: 0.0,
    Outcome.LIMIT_EXCEEDED: 0.0,
    Outcome.BAD_REFERENCE: None,
    Outcome.VERIFIER_ERROR: None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One completion's verdict.

    Example:
        >>> Verdict(outcome=Outcome.CORRECT, reward=1.0, answer="42", verifier="math").graded
        True
    """

    outcome: Outcome
    reward: float | None
    """1 for correct, 0 for wrong, in (0, 1) for partial, any finite number for scored, None if ungraded."""
    answer: str | None = None
    """The answer as extracted from the completion, None where there was none."""
    detail: Mapping[str, JSON] = field(default_factory=dict[str, "JSON"])
    """Why, for a person: always a `reason` sentence; further keys are the verifier's own."""
    seconds: float = 0.0
    """Wall-clock seconds spent grading this row."""
    verifier: str = ""
    version: str = "1"
    components: Mapping[str, float] = field(default_factory=dict[str, float])
    """The reward of each part by name, where the verifier is composed of others; of graded parts alone."""

    def __post_init__(self) -> None:
        outcome, reward = self.outcome, self.reward
        if outcome in FIXED_REWARD:
            if reward != FIXED_REWARD[outcome]:
                raise ValueError(f"reward of {outcome} must be {FIXED_REWARD[outcome]}; got {reward}")
        elif reward is None or not math.isfinite(reward):
            raise ValueError(f"reward of {outcome} must be a finite number; got {reward}")
        elif outcome is Outcome.PARTIAL and not 0 < reward < 1:
            raise ValueError(f"reward of partial must be between 0 and 1, exclusive; got {reward}")

    @property
    def graded(self) -> bool:
        """True where the verdict carries a reward."""
        return self.reward is not None

    @property
    def reason(self) -> str:
        """The verdict in a sentence."""
        return str(self.detail.get("reason", ""))

    def to_json(self) -> dict[str, JSON]:
        """All fields as JSON values."""
        return {
            "outcome": str(self.outcome),
            "reward": self.reward,
            "answer": self.answer,
            "detail": dict(self.detail),
            "seconds": self.seconds,
            "verifier": self.verifier,
            "version": self.version,
            "components": dict(self.components),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, JSON]) -> Verdict:
        """The inverse of `to_json`; unknown keys are refused by the constructor."""
        fields = dict(row)
        fields["outcome"] = Outcome(str(fields["outcome"]))
        return cls(**fields)  # pyright: ignore[reportArgumentType]  (checked by __post_init__)


def fixed(outcome: Outcome, reason: str, *, answer: str | None = None, **detail: JSON) -> Verdict:
    """A verdict whose reward follows from its outcome (every outcome but partial and scored)."""
    return Verdict(outcome=outcome, reward=FIXED_REWARD[outcome], answer=answer, detail={"reason": reason, **detail})


def graded(reward: float, reason: str, *, answer: str | None = None, **detail: JSON) -> Verdict:
    """A verdict for a reward in [0, 1]: correct at 1, incorrect at 0, partial between."""
    outcome = Outcome.CORRECT if reward >= 1 else Outcome.INCORRECT if reward <= 0 else Outcome.PARTIAL
    return Verdict(
        outcome=outcome,
        reward=FIXED_REWARD.get(outcome, reward),
        answer=answer,
        detail={"reason": reason, **detail},
    )
