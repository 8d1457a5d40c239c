"""Rewards from the text alone: `length` and `repetition`, for use as parts of a composed reward."""

from __future__ import annotations

from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadOption
from verifiers.verdict import JSON, Outcome, Verdict, graded


class Length(Verifier):
    """Reward 1 up to a soft length, then falling linearly to 0 at a hard length.

    Args:
        soft: length up to which the reward is 1.
        hard: length from which it is 0.
        unit: words (separated by white space) or characters.
    Raises:
        BadOption: soft is not below hard, or the unit is unknown.
    """

    name = "length"
    shaping = True
    examples = (
        Example(completion="word " * 2000, reference=None),
        Example(completion="word " * 5000, reference=None, outcome=Outcome.INCORRECT),
    )

    def __init__(self, *, soft: int = 2000, hard: int = 4000, unit: str = "words") -> None:
        if not 0 <= soft < hard:
            raise BadOption(f"soft must be at least 0 and below hard; got soft {soft}, hard {hard}.")
        if unit not in ("words", "characters"):
            raise BadOption(f"unit must be words or characters; got {unit!r}.")
        self._soft, self._hard, self._unit = soft, hard, unit

    def grade(self, row: GradingRow) -> Verdict:
        length = len(row.completion.split()) if self._unit == "words" else len(row.completion)
        reward = (self._hard - length) / (self._hard - self._soft)
        return graded(min(1.0, max(0.0, reward)), f"{length} {self._unit}, 1 up to {self._soft}, 0 from {self._hard}")


class Repetition(Verifier):
    """The share of distinct word n-grams, rescaled: 1 for text without repetition, near 0 for endless repetition.

    Args:
        ngram: words of an n-gram.
        floor: share of distinct n-grams at or below which the reward is 0.
        ceiling: share at or above which it is 1, since ordinary prose repeats itself a little.
    Raises:
        BadOption: ngram is below 1, or floor and ceiling are out of order.
    """

    name = "repetition"
    shaping = True
    examples = (
        Example(completion="every word here is said exactly once and then the text is over", reference=None),
        Example(completion="again and again " * 100, reference=None, outcome=Outcome.INCORRECT),
    )

    def __init__(self, *, ngram: int = 4, floor: float = 0.2, ceiling: float = 0.8) -> None:
        if ngram < 1:
            raise BadOption(f"ngram must be at least 1; got {ngram}.")
        if not 0 <= floor < ceiling <= 1:
            raise BadOption(f"floor must be below ceiling, both between 0 and 1; got {floor} and {ceiling}.")
        self._ngram, self._floor, self._ceiling = ngram, floor, ceiling

    def grade(self, row: GradingRow) -> Verdict:
        words = row.completion.lower().split()
        total = len(words) - self._ngram + 1
        if total < 1:
            return graded(1.0, "too short to repeat itself")
        distinct = len({tuple(words[at : at + self._ngram]) for at in range(total)})
        share = distinct / total
        reward = (share - self._floor) / (self._ceiling - self._floor)
        said: JSON = round(share, 4)
        return graded(
            min(1.0, max(0.0, reward)), f"{distinct} of {total} {self._ngram}-grams are distinct", distinct_share=said
        )
