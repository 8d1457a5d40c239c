"""Pairwise comparison by a judge, in both orders: if the orders disagree, there is no preference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from verifiers.answers.find import strip_thinking
from verifiers.judge.errors import JudgeFault
from verifiers.judge.prompts import pair_prompt
from verifiers.judge.replies import Judged
from verifiers.judge.verifier import Asked, ModelJudge

Side = Literal["first", "second", "tie"]
SIDES: dict[int, Side] = {0: "tie", 1: "first", 2: "second"}
SWAPPED: dict[Side, Side] = {"first": "second", "second": "first", "tie": "tie"}


class PairQuestion(NamedTuple):
    """Two completions of one prompt, and the question that decides which is better."""

    question: str
    first: str
    second: str
    prompt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Preference of a judge, from both orders of a pair."""

    better: Side
    chances: tuple[float, ...]
    """Probability that the first is better (a tie counts 1/2): as asked, swapped, and from the third judge if asked."""
    sides: tuple[Side, ...]
    """Better completion, in the order of the question: as asked, swapped, and from the third judge if asked."""
    reasons: tuple[str, ...]
    models: tuple[str, ...] = ()
    """Names of the models that answered, one for each call; an empty name if the server reports none."""

    @property
    def probability(self) -> float:
        """Probability that the first is better: the mean over all calls."""
        return sum(self.chances) / len(self.chances)

    @property
    def consistent(self) -> bool:
        """True if both orders give the same side."""
        return self.sides[0] == self.sides[1]


def compare_pairs(
    judge: ModelJudge, pairs: Sequence[PairQuestion], *, third: ModelJudge | None = None
) -> list[Preference | JudgeFault]:
    """Compare the completions of each pair in both orders, all at once.

    Args:
        judge: with scores="expectation" the probabilities are its own; otherwise 0, 1/2 or 1 for each order.
        pairs: the pairs to compare.
        third: judge that decides pairs on which the orders disagree, asked in the given order; None: they are ties.
    Returns:
        For each pair, in order, its preference, or the first fault of its calls.
    """
    answers = _ask(judge, [pair for pair in pairs for pair in (pair, _swapped(pair))])
    found: list[Preference | JudgeFault] = [_joined(answers[2 * at], answers[2 * at + 1]) for at in range(len(pairs))]
    if third is None:
        return found
    open_ = [at for at, one in enumerate(found) if isinstance(one, Preference) and not one.consistent]
    for at, answer in zip(open_, _ask(third, [pairs[at] for at in open_]), strict=True):
        found[at] = answer if isinstance(answer, JudgeFault) else _decided(found[at], answer)
    return found


def _swapped(pair: PairQuestion) -> PairQuestion:
    return pair._replace(first=pair.second, second=pair.first)


def _ask(judge: ModelJudge, pairs: Sequence[PairQuestion]) -> list[Judged | JudgeFault]:
    asked: list[Asked] = []
    for pair in pairs:
        first, second = strip_thinking(pair.first).strip(), strip_thinking(pair.second).strip()
        prompt = pair_prompt(
            question=pair.question, first=first, second=second, prompt=pair.prompt, canary=judge.canary
        )
        asked.append(Asked(prompt, [first, second], key="better"))
    found: list[Judged | JudgeFault] = []
    for vote, *_ in judge.ask_all(asked):
        found.append(vote if isinstance(vote, JudgeFault) else vote.judged[0])
    return found


def _chance(judged: Judged) -> float:
    """Return the probability that the completion shown first is better."""
    return judged.shares.get(1, 0.0) + judged.shares.get(0, 0.0) / 2


def _joined(straight: Judged | JudgeFault, swapped: Judged | JudgeFault) -> Preference | JudgeFault:
    for answer in (straight, swapped):
        if isinstance(answer, JudgeFault):
            return answer
    assert isinstance(straight, Judged)
    assert isinstance(swapped, Judged)
    sides = SIDES[straight.choice], SWAPPED[SIDES[swapped.choice]]
    return Preference(
        better=sides[0] if sides[0] == sides[1] else "tie",
        chances=(_chance(straight), 1 - _chance(swapped)),
        sides=sides,
        reasons=(straight.reason, swapped.reason),
        models=(straight.model, swapped.model),
    )


def _decided(before: Preference | JudgeFault, answer: Judged) -> Preference:
    assert isinstance(before, Preference)
    return Preference(
        better=SIDES[answer.choice],
        chances=(*before.chances, _chance(answer)),
        sides=(*before.sides, SIDES[answer.choice]),
        reasons=(*before.reasons, answer.reason),
        models=(*before.models, answer.model),
    )


__all__ = ["PairQuestion", "Preference", "Side", "compare_pairs"]
