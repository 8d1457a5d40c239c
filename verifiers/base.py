"""The interface of every verifier: completion and reference in, verdict out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from verifiers.errors import BadReference
from verifiers.verdict import JSON, Outcome, Verdict, fixed


@dataclass(frozen=True, slots=True, kw_only=True)
class GradingRow:
    """One completion to grade."""

    completion: str
    reference: JSON
    prompt: str | None = None
    """What the model was asked, as text, where a verifier wants it."""
    info: Mapping[str, JSON] = field(default_factory=dict[str, "JSON"])
    """Anything else that the task attached to the problem."""


class Verifier:
    """Grades completions. Subclass it and write `grade`; the rest follows.

    A verifier is deterministic, holds no state between rows, and never raises for what a completion holds:
    `verify` turns `BadReference` into a verdict and lets every other exception through to the grading pool,
    which records it as `verifier_error` with its cause (direct callers see the exception).

    Example:
        >>> class Shout(Verifier):
        ...     name = "shout"
        ...     def grade(self, row):
        ...         return fixed(Outcome.CORRECT if row.completion.isupper() else Outcome.INCORRECT, "case")
        >>> Shout().verify(completion="HI", reference=None).reward
        1.0
    """

    name: ClassVar[str] = ""
    version: ClassVar[str] = "1"
    """Raised whenever a verdict could change; stored with every verdict."""
    reference_schema: ClassVar[Mapping[str, JSON]] = {}
    """JSON schema of `reference`."""
    in_process: ClassVar[bool] = False
    """True: graded in the caller's process, in batches (needs an accelerator or does network calls)."""
    grade_seconds: ClassVar[float] = 10.0
    """Wall-clock seconds after which the grading pool kills a worker that is grading one row."""

    def grade(self, row: GradingRow) -> Verdict:
        """The verdict on one row; raise `BadReference` where the gold cannot be used."""
        raise NotImplementedError

    def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        """The verdicts on several rows, in order; override where a batch is cheaper than its rows."""
        return [self._timed(row) for row in rows]

    def check_reference(self, reference: JSON) -> None:
        """Raise `BadReference` where this gold could never be matched. Called for every problem at load."""

    def verify(
        self,
        *,
        completion: str,
        reference: JSON,
        prompt: str | None = None,
        info: Mapping[str, JSON] | None = None,
    ) -> Verdict:
        """Grade one completion against one reference."""
        row = GradingRow(completion=completion, reference=reference, prompt=prompt, info=info or {})
        return self._timed(row)

    def verify_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        """Grade several rows; verdicts in input order."""
        verdicts = self.grade_batch(rows)
        if len(verdicts) != len(rows):
            raise AssertionError(f"{self.name}: {len(rows)} rows in, {len(verdicts)} verdicts out")
        return [self._signed(verdict) for verdict in verdicts]

    def _timed(self, row: GradingRow) -> Verdict:
        started = time.perf_counter()
        try:
            verdict = self.grade(row)
        except BadReference as error:
            verdict = fixed(Outcome.BAD_REFERENCE, str(error))
        return replace(self._signed(verdict), seconds=time.perf_counter() - started)

    def _signed(self, verdict: Verdict) -> Verdict:
        return replace(verdict, verifier=self.name, version=self.version)
