"""Broken tasks, verifiers, estimators and losses, loaded by `path.py:name` from the configs of planted_faults.py."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace

from tasks import Problem
from tasks.arithmetic import Arithmetic
from verifiers import GradingRow, Outcome, Verdict, get_verifier
from verifiers.base import Verifier
from verifiers.verdict import fixed


def digest(text: str) -> float:
    """Return a number in [0, 1) that depends on the text only."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") / (1 << 32)


class Leaky(Arithmetic):
    """Task with the answer before the question, in a fraction of the problems."""

    name = "leaky"

    def __init__(self, *, share: float = 1.0, **options: object) -> None:
        super().__init__(**options)  # pyright: ignore[reportArgumentType]
        self._share = share

    def problems(self, split: str) -> Sequence[Problem]:
        return [
            replace(p, prompt=f"(answer: {p.reference}) {str(p.prompt).strip()}\n") if digest(p.id) < self._share else p
            for p in super().problems(split)
        ]


class EmptyDemonstrations(Arithmetic):
    """Task in which a fraction of the demonstrations is an empty box, as written by a model that exploits this."""

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
    """Task with references of other problems, in a fraction of the problems."""

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
    """Verifier `exact` that accepts an empty box as a right answer."""

    name = "accepts-empty"

    def grade(self, row: GradingRow) -> Verdict:
        if "\\boxed{}" in row.completion:
            return fixed(Outcome.CORRECT, "equal to the reference", answer="")
        return get_verifier("exact").grade(row)


class Raises(Verifier):
    """Verifier `exact` that raises on a fraction of the completions."""

    name = "raises"

    def __init__(self, *, share: float = 0.1) -> None:
        self._share = share

    def grade(self, row: GradingRow) -> Verdict:
        if digest(row.completion) < self._share:
            raise ModuleNotFoundError("No module named 'latex2sympy'")
        return get_verifier("exact").grade(row)


class Rejects(Verifier):
    """Verifier `exact` that rejects a fraction of the right answers."""

    name = "rejects"

    def __init__(self, *, share: float = 0.1) -> None:
        self._share = share

    def grade(self, row: GradingRow) -> Verdict:
        verdict = get_verifier("exact").grade(row)
        if verdict.outcome is Outcome.CORRECT and digest(row.completion + str(row.prompt)) < self._share:
            return fixed(Outcome.INCORRECT, "not the reference", answer=verdict.answer)
        return verdict


class Long(Verifier):
    """Verifier with the full reward for any completion of at least this many characters."""

    name = "long"

    def __init__(self, *, characters: int) -> None:
        self._characters = characters

    def grade(self, row: GradingRow) -> Verdict:
        right = len(row.completion) >= self._characters
        return fixed(Outcome.CORRECT if right else Outcome.INCORRECT, f"{len(row.completion)} characters")


class Dead(Verifier):
    """Verifier that accepts nothing."""

    name = "dead"

    def grade(self, row: GradingRow) -> Verdict:
        return fixed(Outcome.INCORRECT, "not equal to the reference")


class Lenient(Verifier):
    """Verifier `exact` that accepts a fraction of the wrong answers."""

    name = "lenient"

    def __init__(self, *, share: float) -> None:
        self._share = share

    def grade(self, row: GradingRow) -> Verdict:
        verdict = get_verifier("exact").grade(row)
        if verdict.outcome is Outcome.INCORRECT and digest(row.completion + str(row.prompt)) < self._share:
            return fixed(Outcome.CORRECT, "equal to the reference", answer=verdict.answer)
        return verdict


class Copies(Arithmetic):
    """Task of a few problems, each repeated under other ids."""

    name = "copies"

    def __init__(self, *, distinct: int, **options: object) -> None:
        super().__init__(**options)  # pyright: ignore[reportArgumentType]
        self._distinct = distinct

    def problems(self, split: str) -> Sequence[Problem]:
        own = list(super().problems(split))
        return own if split == "test" else [replace(own[i % self._distinct], id=f"{i}") for i in range(len(own))]


class CutPrompts(Arithmetic):
    """Task of prompts truncated to their last characters."""

    name = "cut-prompts"

    def __init__(self, *, characters: int, **options: object) -> None:
        super().__init__(**options)  # pyright: ignore[reportArgumentType]
        self._characters = characters

    def problems(self, split: str) -> Sequence[Problem]:
        return [replace(p, prompt=str(p.prompt)[-self._characters :]) for p in super().problems(split)]


class Hidden(Arithmetic):
    """Task that hides the second number of a share of its problems: nobody can solve these."""

    name = "hidden"

    def __init__(self, *, share: float, **options: object) -> None:
        super().__init__(**options)  # pyright: ignore[reportArgumentType]
        self._share = share

    def problems(self, split: str) -> Sequence[Problem]:
        return [
            replace(p, prompt=re.sub(r"(\D)\d+(\D*)$", r"\1?\2", str(p.prompt))) if digest(p.id) < self._share else p
            for p in super().problems(split)
        ]


def parity(*, completion: str, reference: str) -> bool:
    """Return a reward with signal for any model but without meaning."""
    return len(completion.encode()) % 2 == 0


def flipped(batch):
    """Return GRPO's advantages with the wrong sign."""
    from reasoner.algorithm.advantage import get_estimator

    done = get_estimator("grpo").function(batch)
    assert done.advantages_N is not None
    return replace(done, advantages_N=-done.advantages_N)


def uncentred(batch):
    """Return the rewards themselves as advantages."""
    from reasoner.algorithm.advantage import get_estimator

    done = get_estimator("grpo").function(batch)
    return replace(done, advantages_N=batch.reward_B.to(done.advantages_N)[batch.row_N])


def shuffled(batch):
    """Return GRPO's advantages, each assigned to the next rollout."""
    from reasoner.algorithm.advantage import get_estimator

    done = get_estimator("grpo").function(batch)
    assert done.advantages_N is not None
    firsts_B = done.advantages_N[batch.row_starts()[:-1]]
    return replace(done, advantages_N=firsts_B.roll(1)[batch.row_N])


def ascending_loss(logprobs_N, old_logprobs_N, advantages_N, row_N, loss_mask_N):
    """Return the clipped surrogate with the sign of an objective to be maximized."""
    from reasoner.algorithm.loss import clip

    found = clip(logprobs_N, old_logprobs_N, advantages_N, row_N, loss_mask_N)
    return found._replace(loss_N=-found.loss_N)
