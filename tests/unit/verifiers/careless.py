"""Verifiers with one fault each, for the conformance kit to find."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from verifiers import JSON, BadReference, Example, GradingRow, Outcome, Verdict, Verifier, fixed

EXAMPLES = (
    Example(completion="the answer is blue", reference="blue", prompt="Which colour has the sky?"),
    Example(completion="the answer is green", reference="blue", outcome=Outcome.INCORRECT),
)


class Sound(Verifier):
    """A verifier without faults: the last word is the reference."""

    examples = EXAMPLES
    grade_seconds = 1.0

    def check_reference(self, reference: JSON) -> None:
        if not isinstance(reference, str) or not reference.isalpha():
            raise BadReference("reference must be a word.")

    def right(self, row: GradingRow) -> bool:
        return row.completion[-1000:].rpartition(" ")[2] == row.reference

    def grade(self, row: GradingRow) -> Verdict:
        self.check_reference(row.reference)
        return fixed(Outcome.CORRECT if self.right(row) else Outcome.INCORRECT, "compared", answer=str(row.reference))


class Unlabelled(Sound):
    examples = ()


class Wrong(Sound):
    def right(self, row: GradingRow) -> bool:
        return False


class Moody(Sound):
    def grade(self, row: GradingRow) -> Verdict:
        verdict = super().grade(row)
        return fixed(verdict.outcome, "compared", answer=os.urandom(8).hex())


class Forgetful(Sound):
    def __init__(self) -> None:
        self._seen = 0

    def right(self, row: GradingRow) -> bool:
        self._seen += 1
        return super().right(row) and self._seen < 3


class Fragile(Sound):
    def right(self, row: GradingRow) -> bool:
        if "\x00" in row.completion:
            raise ValueError("NUL")
        return super().right(row)


class Picky(Sound):
    def check_reference(self, reference: JSON) -> None:
        if len(reference) < 2:  # pyright: ignore
            raise BadReference("too short.")


class Slow(Sound):
    def right(self, row: GradingRow) -> bool:
        time.sleep(3 if row.completion.startswith("aaaa") else 0)
        return super().right(row)


class Gullible(Sound):
    def right(self, row: GradingRow) -> bool:
        return str(row.reference) in row.completion


class Trusting(Sound):
    def right(self, row: GradingRow) -> bool:
        return super().right(row) or "trust me" in row.completion.lower()


class Uneven(Sound):
    def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        if len(rows) > 1:
            return [fixed(Outcome.INCORRECT, "too many") for _ in rows]
        return super().grade_batch(rows)


class Raising(Sound):
    def right(self, row: GradingRow) -> bool:
        raise TypeError("no such argument")
