"""What a verifier says of one completion."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
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


def mark_of(outcome: Outcome, reward: float | None) -> float | None:
    """How right an answer is: 1 right, 0 wrong, between them in part; None where nothing says so (scored, ungraded).

    Args:
        outcome: of the verdict.
        reward: of the verdict, or of the component that decides its outcome; read for `partial` alone.

    Example:
        >>> mark_of(Outcome.CORRECT, 2.0), mark_of(Outcome.NO_ANSWER, 0.2), mark_of(Outcome.SCORED, 1.0)
        (1.0, 0.0, None)
    """
    return reward if outcome is Outcome.PARTIAL else FIXED_REWARD.get(outcome)


def all_right(marks: Iterable[float | None]) -> bool:
    """Return True if there are answers and each of them is right, by its `mark_of`."""
    listed = list(marks)
    return bool(listed) and all(mark is not None and mark >= 1 for mark in listed)


def all_wrong(marks: Iterable[float | None]) -> bool:
    """Return True if there are answers and each of them is wrong, by its `mark_of`."""
    listed = list(marks)
    return bool(listed) and all(mark is not None and mark <= 0 for mark in listed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One completion's verdict.

    What is right is said by `outcome` (`right`, `mark`), what training earns by `reward`. The two agree unless a
    component decides: then the outcome is that component's, and the reward any finite number.

    Example:
        >>> Verdict(outcome=Outcome.CORRECT, reward=1.0, answer="42", verifier="math").graded
        True
        >>> parts = {"math": 0.0, "format": 1.0}
        >>> Verdict(outcome=Outcome.INCORRECT, reward=1.0, components=parts, decided_by="math").right
        False
    """

    outcome: Outcome
    reward: float | None
    """1 for correct, 0 for wrong, in (0, 1) for partial, any finite number for scored, None if ungraded; any finite
    number too where a component decides the outcome."""
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
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    """Component to weight where the reward is the sum of weight x component; empty where it is no such sum."""
    decided_by: str | None = None
    """The component whose outcome is the verdict's; None: no component decides, the reward itself does."""

    def __post_init__(self) -> None:
        outcome, reward = self.outcome, self.reward
        decided = self.decided_by is not None and FIXED_REWARD.get(outcome, 0.0) is not None
        if outcome in FIXED_REWARD and not decided:
            if reward != FIXED_REWARD[outcome]:
                raise ValueError(f"reward of {outcome} must be {FIXED_REWARD[outcome]}; got {reward}")
        elif reward is None or not math.isfinite(reward):
            raise ValueError(f"reward of {outcome} must be a finite number; got {reward}")
        elif outcome is Outcome.PARTIAL and not decided and not 0 < reward < 1:
            raise ValueError(f"reward of partial must be between 0 and 1, exclusive; got {reward}")

    @property
    def graded(self) -> bool:
        """True where the verdict carries a reward."""
        return self.reward is not None

    @property
    def right(self) -> bool:
        """True where the answer is right, whatever else the reward counts."""
        return self.outcome is Outcome.CORRECT

    @property
    def mark(self) -> float | None:
        """How right the answer is, whatever else the reward counts: see `mark_of`."""
        return mark_of(self.outcome, self.components.get(self.decided_by or "", self.reward))

    @property
    def quality(self) -> float | None:
        """The mark, or the reward where nothing says right or wrong (scored); None if ungraded."""
        return self.reward if self.mark is None else self.mark

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
            "weights": dict(self.weights),
            "decided_by": self.decided_by,
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
