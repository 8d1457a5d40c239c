"""A verifier that fails on some rows, for the tests of the trainer."""

from __future__ import annotations

import hashlib
import os

from verifiers import GradingRow, Outcome, Verdict, Verifier, fixed


class Flaky(Verifier):
    """A verifier that accepts completions with an even digest, and fails on a share of them, each time in another way.

    Args:
        percent: share of the completions on which it fails, chosen by their digest.
    """

    name = "flaky"
    grade_seconds = 10.0

    def __init__(self, *, percent: int) -> None:
        self._percent = percent

    def grade(self, row: GradingRow) -> Verdict:
        digest = hashlib.blake2b(f"{row.prompt}|{row.completion}".encode(), digest_size=4).digest()
        if int.from_bytes(digest[:2], "big") % 100 < self._percent:
            if digest[2] % 2:
                os._exit(9)
            raise ValueError("this one is too much for me")
        return fixed(Outcome.CORRECT if digest[3] % 2 == 0 else Outcome.INCORRECT, "by its digest")
