"""Verifiers that grade in batches, for the tests of the pool."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

from verifiers import GradingRow, Outcome, Verdict, Verifier
from verifiers.verdict import fixed, graded


class InProcess(Verifier):
    """A verifier that gives half a point for everything, and records its batches."""

    name = "in-process"
    in_process = True
    seen: list[int] = []

    def grade(self, row: GradingRow) -> Verdict:
        return self.grade_batch([row])[0]

    def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        self.seen.append(len(rows))
        if any(row.completion == "refuse" for row in rows):
            raise ValueError("the batch holds a bad row")
        if any(row.completion == "slow" for row in rows):
            time.sleep(0.2)
        return [graded(0.5, f"one of {len(rows)}") for row in rows]


class Stuck(Verifier):
    """A verifier that never returns, in the caller's process."""

    name = "stuck"
    in_process = True
    grade_seconds = 0.1

    def grade(self, row: GradingRow) -> Verdict:
        threading.Event().wait()
        raise AssertionError


class StuckOnOne(Verifier):
    """A verifier that raises for a batch, and never returns from the row `stuck`."""

    name = "stuck-on-one"
    in_process = True
    grade_seconds = 0.2

    def grade(self, row: GradingRow) -> Verdict:
        return self.grade_batch([row])[0]

    def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        if len(rows) > 1:
            raise ValueError("one at a time")
        if rows[0].completion == "stuck":
            threading.Event().wait()
        if rows[0].completion == "slow":
            time.sleep(0.1)
        return [fixed(Outcome.CORRECT, "alone")]


class Batched(Verifier):
    """A verifier that reports the size of its batch; a worker that grades `die` ends."""

    name = "batched"
    batch_rows = 8
    grade_seconds = 1.0

    def grade(self, row: GradingRow) -> Verdict:
        return self.grade_batch([row])[0]

    def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        if any(row.completion == "die" for row in rows):
            os._exit(3)
        if any(row.completion == "raise" for row in rows):
            raise ValueError("one of them")
        return [fixed(Outcome.CORRECT, "batched", size=len(rows)) for _ in rows]


class Alone(Verifier):
    """A verifier for one worker at a time, which reports whether another one was running."""

    name = "alone"
    concurrency = 1

    def __init__(self, *, lock: str) -> None:
        self._lock = lock

    def grade(self, row: GradingRow) -> Verdict:
        try:
            os.close(os.open(self._lock, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return fixed(Outcome.INCORRECT, "another one is at it")
        time.sleep(0.005)
        os.unlink(self._lock)
        return fixed(Outcome.CORRECT, "alone")


class Unloadable(Verifier):
    """A verifier that ends the worker that loads it, but not a process that only inspects it."""

    name = "unloadable"

    def __init__(self) -> None:
        if os.environ.get("REASONER_POOL_WORKER"):
            os._exit(7)

    def grade(self, row: GradingRow) -> Verdict:
        raise AssertionError


class Hungry(Verifier):
    """A verifier that takes 300 MiB and declares that it may."""

    name = "hungry"
    memory_bytes = 500 << 20

    def grade(self, row: GradingRow) -> Verdict:
        held = b"x" * (300 << 20)
        return fixed(Outcome.CORRECT, f"took {len(held)}")


class Needs(Verifier):
    """A verifier that needs a package which does not exist."""

    name = "needs"

    def grade(self, row: GradingRow) -> Verdict:
        import a_package_that_is_not_there  # pyright: ignore[reportMissingImports]

        return a_package_that_is_not_there.grade(row)
