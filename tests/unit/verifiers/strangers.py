"""Verifiers whose options and references take long, need much, or break code that reads them."""

from __future__ import annotations

import ctypes
import time

from verifiers import BadReference, GradingRow, Outcome, Verdict, Verifier
from verifiers.verdict import JSON, fixed


class Slow(Verifier):
    name = "slow"
    grade_seconds = 1.0

    def __init__(self, *, make: float = 0.0, row: float = 0.0) -> None:
        time.sleep(make)
        self._row = row
        if row:
            self.grade_seconds = 20.0

    def grade(self, row: GradingRow) -> Verdict:
        time.sleep(self._row)
        return fixed(Outcome.CORRECT, "slowly")


class Needy(Verifier):
    name = "needy"
    merges_equal = True

    def __init__(self, *, seconds: float, megabytes: int) -> None:
        self.grade_seconds, self.memory_bytes, self.batch_rows, self.concurrency = seconds, megabytes << 20, 4, 1

    def grade(self, row: GradingRow) -> Verdict:
        return fixed(Outcome.CORRECT, "served")


class Checks(Verifier):
    name = "checks"
    grade_seconds = 1.0

    def check_reference(self, reference: JSON) -> None:
        match reference:
            case "bad":
                raise BadReference("no gold")
            case "hang":
                time.sleep(100)
            case "crash":
                ctypes.string_at(0)
            case "raise":
                raise KeyError("odd")
            case _:
                pass
