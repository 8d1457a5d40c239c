"""Broken tasks, verifiers, estimators and losses, loaded by `path.py:name` from the configs of planted_faults.py."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from tasks import Problem
from tasks.arithmetic import Arithmetic
from verifiers import GradingRow, Outcome, Verdict, get_verifier
from verifiers.base import Verifier
from verifiers.verdict import fixed


def digest(text: str) -> float:
    """In [0, 1), a function of the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") / (1 << 32)


class Leaky(Arithmetic):
    """The answer behind the question, in a share of the problems."""

    name = "leaky"

    def __init__(self, *, share: float = 1.0, **options: object) -> None:
        super().__init__(**options)  # pyright: ignore[reportArgumentType]
        self._share = share

    def problems(self, split: str) -> Sequence[Problem]:
        return [
            replace(p, prompt=f"{str(p.prompt).strip()} (answer: {p.reference})\n") if digest(p.id) < self._share else p
            for p in super().problems(split)
        ]


class EmptyDemonstrations(Arithmetic):
    """A share of the demonstrations is an empty box: what a model that has found the hole writes now and then."""

    name = "empty-demonstrations"

    def __init__(self, *, share: float = 0.1, **options: object) -> None:
        super().__init__(**options)  # pyright: ignore[reportArgumentType]
        self._share = share

    def problems(self, split: str) -> Sequence[Problem]:
        return [
            replace(p, demonstration="\\boxed{}") if digest("empty" + p.id) < self._share else p
            for p in super().problems(split)
        ]


class WrongReferences(Arithmetic):
    """References that belong to other problems, in a share of the problems."""

    name = "wrong-references"

    def __init__(self, *, share: float = 1.0, **options: object) -> None:
        super().__init__(**options)  # pyright: ignore[reportArgumentType]
        self._share = share

    def problems(self, split: str) -> Sequence[Problem]:
        return [
            replace(p, reference=str(1000 + int(str(p.reference)))) if digest(p.id) < self._share else p
            for p in super().problems(split)
        ]


class AcceptsEmpty(Verifier):
    """`exact`, but an empty box is taken for a right answer."""

    name = "accepts-empty"

    def grade(self, row: GradingRow) -> Verdict:
        if "\\boxed{}" in row.completion:
            return fixed(Outcome.CORRECT, "equal to the reference", answer="")
        return get_verifier("exact").grade(row)


class Raises(Verifier):
    """`exact`, but it raises on a share of the completions."""

    name = "raises"

    def __init__(self, *, share: float = 0.1) -> None:
        self._share = share

    def grade(self, row: GradingRow) -> Verdict:
        if digest(row.completion) < self._share:
            raise ModuleNotFoundError("No module named 'latex2sympy'")
        return get_verifier("exact").grade(row)


class Rejects(Verifier):
    """`exact`, but a share of the right answers is called wrong."""

    name = "rejects"

    def __init__(self, *, share: float = 0.1) -> None:
        self._share = share

    def grade(self, row: GradingRow) -> Verdict:
        verdict = get_verifier("exact").grade(row)
        if verdict.outcome is Outcome.CORRECT and digest(row.completion + str(row.prompt)) < self._share:
            return fixed(Outcome.INCORRECT, "not the reference", answer=verdict.answer)
        return verdict


class Long(Verifier):
    """Full marks for any completion of so many characters."""

    name = "long"

    def __init__(self, *, characters: int) -> None:
        self._characters = characters

    def grade(self, row: GradingRow) -> Verdict:
        right = len(row.completion) >= self._characters
        return fixed(Outcome.CORRECT if right else Outcome.INCORRECT, f"{len(row.completion)} characters")


class Dead(Verifier):
    """Finds nothing right."""

    name = "dead"

    def grade(self, row: GradingRow) -> Verdict:
        return fixed(Outcome.INCORRECT, "not equal to the reference")


class Lenient(Verifier):
    """`exact`, but a share of the wrong answers is taken for right."""

    name = "lenient"

    def __init__(self, *, share: float) -> None:
        self._share = share

    def grade(self, row: GradingRow) -> Verdict:
        verdict = get_verifier("exact").grade(row)
        if verdict.outcome is Outcome.INCORRECT and digest(row.completion + str(row.prompt)) < self._share:
            return fixed(Outcome.CORRECT, "equal to the reference", answer=verdict.answer)
        return verdict


class Copies(Arithmetic):
    """A few problems, each many times under other names."""

    name = "copies"

    def __init__(self, *, distinct: int, **options: object) -> None:
        super().__init__(**options)  # pyright: ignore[reportArgumentType]
        self._distinct = distinct

    def problems(self, split: str) -> Sequence[Problem]:
        own = list(super().problems(split))
        return own if split == "test" else [replace(own[i % self._distinct], id=f"{i}") for i in range(len(own))]


class CutPrompts(Arithmetic):
    """Prompts of which only the last characters are left."""

    name = "cut-prompts"

    def __init__(self, *, characters: int, **options: object) -> None:
        super().__init__(**options)  # pyright: ignore[reportArgumentType]
        self._characters = characters

    def problems(self, split: str) -> Sequence[Problem]:
        return [replace(p, prompt=str(p.prompt)[-self._characters :]) for p in super().problems(split)]


def parity(*, completion: str, reference: str) -> bool:
    """A reward with signal for any model and without meaning."""
    return len(completion.encode()) % 2 == 0


def flipped(batch):
    """GRPO's advantages, with the wrong sign."""
    from reasoner.algorithm.advantage import get_estimator

    done = get_estimator("grpo").function(batch)
    assert done.advantages_N is not None
    return replace(done, advantages_N=-done.advantages_N)


def uncentred(batch):
    """The reward itself as advantage."""
    from reasoner.algorithm.advantage import get_estimator

    done = get_estimator("grpo").function(batch)
    return replace(done, advantages_N=batch.reward_B.to(done.advantages_N)[batch.row_N])


def shuffled(batch):
    """GRPO's advantages, each given to the next rollout."""
    from reasoner.algorithm.advantage import get_estimator

    done = get_estimator("grpo").function(batch)
    assert done.advantages_N is not None
    firsts_B = done.advantages_N[batch.row_starts()[:-1]]
    return replace(done, advantages_N=firsts_B.roll(1)[batch.row_N])


def ascending_loss(logprobs_N, old_logprobs_N, advantages_N, row_N, loss_mask_N):
    """The clipped surrogate with the sign of something to be maximised."""
    from reasoner.algorithm.loss import clip

    found = clip(logprobs_N, old_logprobs_N, advantages_N, row_N, loss_mask_N)
    return found._replace(loss_N=-found.loss_N)
