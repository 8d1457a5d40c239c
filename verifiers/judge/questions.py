"""Questions to a judge about a completion: a question with levels, or a statement that is true of it or not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from verifiers.errors import BadReference
from verifiers.verdict import JSON

MAX_LEVELS = 10
KEYS = ("question", "statement", "levels", "reference_answer")
MAX_QUESTIONS = 50
"""Questions in one call (our choice): with more, the reply is longer than most judges write at once."""

QUESTION_SCHEMA: Mapping[str, JSON] = {
    "type": "object",
    "properties": {
        "question": {"type": "string", "minLength": 1},
        "statement": {"type": "string", "minLength": 1},
        "questions": {"type": "array", "minItems": 1, "maxItems": MAX_QUESTIONS},
        "levels": {
            "type": "array",
            "minItems": 2,
            "maxItems": MAX_LEVELS,
            "items": {
                "type": "object",
                "required": ["level", "description"],
                "properties": {
                    "level": {"type": "integer", "minimum": 0, "maximum": 9},
                    "description": {"type": "string", "minLength": 1},
                    "reward": {"type": "number", "minimum": 0, "maximum": 1},
                },
                "additionalProperties": False,
            },
        },
        "reference_answer": {"type": "string"},
    },
    "additionalProperties": False,
}


class Level(NamedTuple):
    """One possible answer of a judge."""

    level: int
    """A single digit, so that its probability can be read from one token."""
    description: str
    reward: float


YES_NO = (Level(0, "No.", 0.0), Level(1, "Yes.", 1.0))
TRUE_OR_NOT = (Level(0, "It is not true of the completion.", 0.0), Level(1, "It is true of the completion.", 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question and its levels, lowest first.

    Example:
        >>> Question.from_json({"question": "Is it polite?"}).levels[1].reward
        1.0
    """

    question: str
    """Text of the question, or of the statement."""
    levels: tuple[Level, ...] = YES_NO
    reference_answer: str | None = None
    """An answer that deserves the highest level, shown to the judge as such."""
    is_statement: bool = False
    """True: the judge decides if the text is true of the completion, whether that is good or bad."""

    @classmethod
    def from_json(cls, given: JSON) -> Question:
        """Parse {question or statement, levels?, reference_answer?}; a string alone is a yes-or-no question.

        Raises:
            BadReference: the JSON is not a question; the message says what is wrong.
        """
        if isinstance(given, str):
            given = {"question": given}
        if not isinstance(given, dict) or set(given) - set(KEYS):
            raise BadReference(f"a judged criterion must be an object of {', '.join(KEYS)}; got {str(given)[:80]}.")
        is_statement, answer = "statement" in given, given.get("reference_answer")
        if is_statement and ("question" in given or given.get("levels") is not None):
            raise BadReference("a statement must have no question and no levels: it is true of the completion or not.")
        kind = "statement" if is_statement else "question"
        question = given.get(kind)
        if not isinstance(question, str) or not question.strip():
            raise BadReference(f"{kind} must be a non-empty string; got {question!r}.")
        if answer is not None and not isinstance(answer, str):
            raise BadReference(f"reference_answer must be a string; got {type(answer).__name__}.")
        if is_statement:
            return cls(question=question, levels=TRUE_OR_NOT, reference_answer=answer, is_statement=True)
        levels = YES_NO if given.get("levels") is None else _levels(given["levels"])
        return cls(question=question, levels=levels, reference_answer=answer)

    def to_json(self) -> dict[str, JSON]:
        """Return the question as JSON: the inverse of `from_json`."""
        levels: list[JSON] = [
            {"level": level.level, "description": level.description, "reward": level.reward} for level in self.levels
        ]
        found: dict[str, JSON] = {"question": self.question, "levels": levels}
        if self.is_statement:
            found = {"statement": self.question}
        return found if self.reference_answer is None else {**found, "reference_answer": self.reference_answer}

    def reward_of(self, level: int) -> float:
        """Return the reward of a level."""
        return next(known.reward for known in self.levels if known.level == level)


def questions_in(reference: JSON) -> tuple[Question, ...]:
    """Parse the questions of a reference: a single one, or {questions: [...]}, which are asked in one call.

    Raises:
        BadReference: it contains no valid question, or more than MAX_QUESTIONS.
    """
    if not isinstance(reference, dict) or "questions" not in reference:
        return (Question.from_json(reference),)
    listed = reference["questions"]
    if len(reference) > 1 or not isinstance(listed, list) or not 1 <= len(listed) <= MAX_QUESTIONS:
        raise BadReference(
            f"questions must be a list of 1 to {MAX_QUESTIONS}, and the only key; got {str(reference)[:80]}."
        )
    return tuple(Question.from_json(one) for one in listed)


def _levels(given: JSON) -> tuple[Level, ...]:
    if not isinstance(given, list) or not 2 <= len(given) <= MAX_LEVELS:
        raise BadReference(f"levels must be a list of 2 to {MAX_LEVELS} levels; got {str(given)[:80]}.")
    found: list[tuple[int, str, float | None]] = []
    for row in given:
        if not isinstance(row, dict) or set(row) - {"level", "description", "reward"}:
            raise BadReference(f"a level must be an object of level, description, reward; got {str(row)[:80]}.")
        level, description, reward = row.get("level"), row.get("description"), row.get("reward")
        if isinstance(level, bool) or not isinstance(level, int) or not 0 <= level <= 9:
            raise BadReference(f"level must be a whole number from 0 to 9; got {level!r}.")
        if not isinstance(description, str) or not description.strip():
            raise BadReference(f"level {level} must have a description; got {description!r}.")
        found.append((level, description, None if reward is None else _reward(reward, level)))
    found.sort(key=lambda row: row[0])
    if len({row[0] for row in found}) != len(found):
        raise BadReference("levels must be different; one is given twice.")
    given_rewards = [row[2] for row in found if row[2] is not None]
    if given_rewards and len(given_rewards) != len(found):
        raise BadReference("either every level must have a reward, or none (then they are spread from 0 to 1).")
    if given_rewards != sorted(given_rewards):
        raise BadReference(f"rewards must not fall as levels rise; got {given_rewards}.")
    return _with_even_rewards([(level, text) for level, text, _ in found], given_rewards)


def _with_even_rewards(levels: Sequence[tuple[int, str]], rewards: Sequence[float] = ()) -> tuple[Level, ...]:
    """Build levels with the given rewards; without any, spread by level number from 0 (lowest) to 1 (highest)."""
    low, high = levels[0][0], levels[-1][0]
    spread = rewards or [(level - low) / (high - low) for level, _ in levels]
    return tuple(Level(level, text, reward) for (level, text), reward in zip(levels, spread, strict=True))


def _reward(value: JSON, level: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise BadReference(f"the reward of level {level} must be from 0 to 1; got {value!r}.")
    return float(value)


def from_score_rubric(row: Mapping[str, JSON], *, reference_answer: str | None = None) -> Question:
    """Build a question from `{criteria, score1_description .. scoreN_description}`.

    The format of BiGGen-Bench and Prometheus (Kim et al., arXiv:2406.05761 and arXiv:2310.08491).

    Raises:
        BadReference: criteria or descriptions are missing.
    """
    question = row.get("criteria")
    numbers = sorted(
        int(key.removeprefix("score").removesuffix("_description"))
        for key in row
        if key.startswith("score") and key.endswith("_description") and key[5:-12].isdigit()
    )
    levels: list[JSON] = [{"level": at, "description": row[f"score{at}_description"]} for at in numbers]
    given: dict[str, JSON] = {"question": question, "levels": levels}
    if reference_answer is not None:
        given["reference_answer"] = reference_answer
    return Question.from_json(given)


__all__ = ["MAX_QUESTIONS", "QUESTION_SCHEMA", "Level", "Question", "from_score_rubric", "questions_in"]
