"""Verdict of a verifier on one completion."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn, TypeAlias, TypeVar, cast

from verifiers.text import visible, whole

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"


class Outcome(StrEnum):
    """Result of grading. "Could not grade" is not "wrong": the last two carry no reward."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    NO_ANSWER = "no_answer"
    PARTIAL = "partial"
    SCORED = "scored"
    LIMIT_EXCEEDED = "limit_exceeded"
    BAD_REFERENCE = "bad_reference"
    VERIFIER_ERROR = "verifier_error"


MOST_CHARACTERS = 16 << 20
"""Most characters of the answer and detail of a verdict from elsewhere: four times the longest graded completion."""
MOST_NAME = 4096
"""Most characters of each name in such a verdict."""
DEPTH = 100
"""Most levels of lists and objects inside each other in a detail."""
FIXED_REWARD: Mapping[Outcome, float | None] = {
    Outcome.CORRECT: 1.0,
    Outcome.INCORRECT: 0.0,
    Outcome.NO_ANSWER: 0.0,
    Outcome.LIMIT_EXCEEDED: 0.0,
    Outcome.BAD_REFERENCE: None,
    Outcome.VERIFIER_ERROR: None,
}


def mark_of(outcome: Outcome, reward: float | None) -> float | None:
    """Return how right an answer is: 1 right, 0 wrong, in between if partial; None if unknown (scored, ungraded).

    Args:
        outcome: of the verdict.
        reward: of the verdict, or of the component that decides its outcome; used for `partial` only.

    Example:
        >>> mark_of(Outcome.CORRECT, 2.0), mark_of(Outcome.NO_ANSWER, 0.2), mark_of(Outcome.SCORED, 1.0)
        (1.0, 0.0, None)
    """
    return reward if outcome is Outcome.PARTIAL else FIXED_REWARD.get(outcome)


def all_right(marks: Iterable[float | None]) -> bool:
    """Return True if there is at least one mark (`mark_of`) and every answer is right; a mark of None is not."""
    listed = list(marks)
    return bool(listed) and all(mark is not None and mark >= 1 for mark in listed)


def all_wrong(marks: Iterable[float | None]) -> bool:
    """Return True if there is at least one mark (`mark_of`) and every answer is wrong; a mark of None is not."""
    listed = list(marks)
    return bool(listed) and all(mark is not None and mark <= 0 for mark in listed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Verdict on one completion.

    `outcome` says whether the answer is right (`right`, `mark`); `reward` is used in training. The two agree unless a
    component decides the outcome: then the reward may be any finite number.

    Example:
        >>> Verdict(outcome=Outcome.CORRECT, reward=1.0, answer="42", verifier="math").graded
        True
        >>> parts = {"math": 0.0, "format": 1.0}
        >>> Verdict(outcome=Outcome.INCORRECT, reward=1.0, components=parts, decided_by="math").right
        False
    """

    outcome: Outcome
    reward: float | None
    """1 for correct, 0 for wrong, in (0, 1) for partial, any finite number for scored, None if ungraded. If a component
    decides the outcome, any finite number."""
    answer: str | None = None
    """Answer extracted from the completion; None if there is none."""
    detail: Mapping[str, JSON] = field(default_factory=dict[str, "JSON"])
    """Explanation for people. `reason` is a sentence; characters in it that a terminal interprets or hides are escaped.
    Further keys depend on the verifier."""
    seconds: float = 0.0
    """Wall-clock seconds spent grading this row."""
    verifier: str = ""
    version: str = "1"
    components: Mapping[str, float] = field(default_factory=dict[str, float])
    """Reward of each graded part by name, if the verifier is composed of others."""
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    """Component -> weight if the reward is the sum of weight x component; otherwise empty."""
    decided_by: str | None = None
    """Component whose outcome is the verdict's outcome; None: the reward itself decides."""

    def __post_init__(self) -> None:
        """Check that outcome and reward agree, and replace characters that UTF-8 cannot encode.

        Raises:
            ValueError: outcome and reward do not agree.
            TypeError: the detail is not JSON, or is nested deeper than DEPTH.
        """
        if self.answer is not None:
            object.__setattr__(self, "answer", whole(str(self.answer)))
        reason = self.detail.get("reason")
        if isinstance(reason, str) and (shown := visible(whole(reason))) != reason:  # it may quote a program
            object.__setattr__(self, "detail", {**self.detail, "reason": shown})
        object.__setattr__(self, "detail", _recordable(self.detail))
        if self.components or self.weights:
            object.__setattr__(self, "components", {whole(name): part for name, part in self.components.items()})
            object.__setattr__(self, "weights", {whole(name): weight for name, weight in self.weights.items()})
            object.__setattr__(self, "decided_by", None if self.decided_by is None else whole(self.decided_by))
        outcome, reward = self.outcome, self.reward
        decided = self.decided_by is not None and FIXED_REWARD.get(outcome, 0.0) is not None
        if outcome in FIXED_REWARD and not decided:
            if reward != FIXED_REWARD[outcome]:
                raise ValueError(f"reward of {outcome} must be {FIXED_REWARD[outcome]}; got {reward}")
        elif reward is None or not math.isfinite(reward):
            raise ValueError(f"reward of {outcome} must be a finite number; got {reward}")
        elif outcome is Outcome.PARTIAL and not decided and not 0 < reward < 1:
            raise ValueError(f"reward of partial must be between 0 and 1, exclusive; got {reward}")

    def signed(self, verifier: str, version: str, seconds: float) -> Verdict:
        """Return the verdict with its verifier's name, version and seconds set; the checks are not repeated."""
        signed = object.__new__(type(self))
        for name in FIELDS:
            object.__setattr__(signed, name, getattr(self, name))
        object.__setattr__(signed, "verifier", verifier)
        object.__setattr__(signed, "version", version)
        object.__setattr__(signed, "seconds", seconds)
        return signed

    def __bool__(self) -> NoReturn:
        """Refuse conversion to bool: `if verdict` would take a wrong answer for a right one.

        Raises:
            TypeError: always; the message names the attributes to use.
        """
        raise TypeError(
            f"a verdict is neither true nor false; this one is {self.outcome}. Use `verdict.right` (is the answer"
            " right?), `verdict.reward` (None if it could not be graded) or `verdict.graded`."
        )

    @property
    def graded(self) -> bool:
        """True if the verdict has a reward."""
        return self.reward is not None

    @property
    def right(self) -> bool:
        """True if the answer is right, whatever else the reward includes."""
        return self.outcome is Outcome.CORRECT

    @property
    def mark(self) -> float | None:
        """Degree of correctness in [0, 1], whatever else the reward includes; None if unknown (see `mark_of`)."""
        return mark_of(self.outcome, self.components.get(self.decided_by or "", self.reward))

    @property
    def quality(self) -> float | None:
        """The mark, or the reward if the outcome is scored; None if ungraded."""
        return self.reward if self.mark is None else self.mark

    @property
    def reason(self) -> str:
        """Reason for the verdict, as a sentence; empty if there is none."""
        return str(self.detail.get("reason", ""))

    def to_json(self) -> dict[str, JSON]:
        """Return all fields as JSON values, for `json.dumps`; `from_json` is the inverse."""
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
        """Build a verdict from JSON, the inverse of `to_json`. Every field is checked, since the row may be untrusted.

        Raises:
            ValueError: a field is invalid; the message names it.
            TypeError: there is an unknown field.
        """
        if unknown := row.keys() - FIELDS:
            raise TypeError(f"a verdict must have the fields {', '.join(sorted(FIELDS))}; got {min(unknown)[:80]!r}")
        outcome_name = row.get("outcome")
        if not isinstance(outcome_name, str) or outcome_name not in OUTCOMES:
            raise ValueError(f"outcome must be one of {', '.join(OUTCOMES)}; got {_short(outcome_name)}")
        detail, decided_by = _field(row, "detail", dict, {}), row.get("decided_by")
        if decided_by is not None:
            _name(decided_by, "decided_by")
        answer = row.get("answer")
        if answer is not None and not isinstance(answer, str):
            raise ValueError(f"answer must be text or null; got {_short(answer)}")
        components, weights = _numbers(row, "components"), _numbers(row, "weights")
        reward = None if row.get("reward") is None else _finite(row["reward"], "reward")
        if reward is not None and decided_by is not None and decided_by not in components:
            raise ValueError(f"decided_by must name one of the components; got {_short(decided_by)}")
        seconds = _finite(row.get("seconds", 0.0), "seconds")
        if seconds < 0:
            raise ValueError(f"seconds must be >= 0; got {seconds}")
        if (size := len(answer or "") + _characters(detail)) > MOST_CHARACTERS:
            raise ValueError(f"answer and detail must have at most {MOST_CHARACTERS} characters; got {size}")
        try:
            return cls(
                outcome=Outcome(outcome_name),
                reward=reward,
                answer=answer,
                detail=detail,
                seconds=seconds,
                verifier=_name(row.get("verifier", ""), "verifier"),
                version=_name(row.get("version", "1"), "version"),
                components=components,
                weights=weights,
                decided_by=cast("str | None", decided_by),
            )
        except TypeError as error:
            raise ValueError(str(error)) from error


FIELDS = frozenset(Verdict.__dataclass_fields__)
OUTCOMES = tuple(map(str, Outcome))


def _recordable(detail: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """Return a detail as JSON that UTF-8 can encode; the same object if it already is.

    Raises:
        TypeError: it is not JSON, or is nested deeper than DEPTH.
    """
    for key, value in detail.items():
        kind = type(value)
        if type(key) is not str or not key.isascii():
            break
        if not ((kind is str and cast("str", value).isascii()) or kind is bool or value is None):
            break
    else:
        return detail
    return cast("Mapping[str, JSON]", _json(detail, 0))


def _json(value: object, depth: int) -> JSON:
    if depth > DEPTH:
        raise TypeError(f"detail of a verdict must be nested at most {DEPTH} deep")
    if isinstance(value, str):
        return whole(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > 10_000:  # more than Python writes in decimal
            raise TypeError(
                f"a number in the detail of a verdict must have fewer digits; got {value.bit_length()} bits"
            )
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # JSON has no NaN
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {whole(key if isinstance(key, str) else str(key)): _json(item, depth + 1) for key, item in items}
    if isinstance(value, list | tuple):
        return [_json(item, depth + 1) for item in cast("list[object]", value)]
    raise TypeError(f"detail of a verdict must be JSON; got {type(value).__name__}. Pass text or plain numbers")


def _characters(value: JSON) -> int:
    """Return a value's size: the characters of all texts in it, plus one for each value and key."""
    count, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            count += len(one)
        elif isinstance(one, dict):
            left += [*one, *one.values()]
        elif isinstance(one, list):
            left += one
        count += 1
    return count


_Kind = TypeVar("_Kind")


def _field(row: Mapping[str, JSON], name: str, kind: type[_Kind], default: _Kind) -> _Kind:
    value = row.get(name, cast("JSON", default))
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be of type {kind.__name__}; got {_short(value)}")
    return value


def _name(value: JSON, field: str) -> str:
    if not isinstance(value, str) or len(value) > MOST_NAME:
        raise ValueError(f"{field} must be text of at most {MOST_NAME} characters; got {_short(value)}")
    return whole(value)


def _finite(value: JSON, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{field} must be a number; got {_short(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{field} must be a finite number; got {_short(value)}")
    return number


def _numbers(row: Mapping[str, JSON], field: str) -> dict[str, float]:
    given = cast("dict[str, JSON]", _field(row, field, dict, {}))
    return {_name(name, field): _finite(number, field) for name, number in given.items()}


def _short(value: object) -> str:
    text = value[:80] if isinstance(value, str) else value
    return repr(text) if isinstance(text, str | int | float | None) and not _is_huge(text) else type(value).__name__


def _is_huge(value: object) -> bool:
    return isinstance(value, int) and value.bit_length() > 1000


def fixed(outcome: Outcome, reason: str, *, answer: str | None = None, **detail: JSON) -> Verdict:
    """Build a verdict whose reward follows from its outcome.

    Args:
        outcome: any but partial and scored.
        reason: sentence for people.
        answer: answer found in the completion, if any.
        detail: further JSON values, for the record.
    Raises:
        KeyError: the outcome is partial or scored.

    Example:
        >>> fixed(Outcome.NO_ANSWER, "no boxed answer").reward
        0.0
    """
    return Verdict(outcome=outcome, reward=FIXED_REWARD[outcome], answer=answer, detail={"reason": reason, **detail})


def graded(reward: float, reason: str, *, answer: str | None = None, **detail: JSON) -> Verdict:
    """Build a verdict for a reward in [0, 1]: correct at 1 or above, incorrect at 0 or below, partial in between.

    Args:
        reward: reward of the completion.
        reason: sentence for people.
        answer: answer found in the completion, if any.
        detail: further JSON values, for the record.

    Example:
        >>> str(graded(0.5, "1 of 2 tests passed").outcome)
        'partial'
    """
    outcome = Outcome.CORRECT if reward >= 1 else Outcome.INCORRECT if reward <= 0 else Outcome.PARTIAL
    return Verdict(
        outcome=outcome,
        reward=FIXED_REWARD.get(outcome, reward),
        answer=answer,
        detail={"reason": reason, **detail},
    )
