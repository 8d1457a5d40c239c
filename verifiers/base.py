"""Interface of every verifier: completion and reference in, verdict out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from verifiers.alternatives import alternatives, any_right
from verifiers.errors import BadReference, BadReturn
from verifiers.returned import as_number, finished
from verifiers.verdict import JSON, Outcome, Verdict, fixed


@dataclass(frozen=True, slots=True, kw_only=True)
class GradingRow:
    """Completion to grade, with the reference and further data."""

    completion: str
    reference: JSON
    prompt: str | None = None
    """Text of the prompt, for verifiers that read it."""
    info: Mapping[str, JSON] = field(default_factory=dict[str, "JSON"])
    """Further data that the task attached to the problem."""

    def __post_init__(self) -> None:
        if not isinstance(self.completion, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"completion must be text; got {type(self.completion).__name__}. Decode tokens first; verifiers.grade"
                " takes chat messages."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Labelled row of a verifier; `reasoner verifiers check` grades it and compares the outcome."""

    completion: str
    reference: JSON
    outcome: Outcome = Outcome.CORRECT
    """Expected outcome of the verdict."""
    prompt: str | None = None
    info: Mapping[str, JSON] = field(default_factory=dict[str, "JSON"])

    @property
    def row(self) -> GradingRow:
        """The row to grade, without its label."""
        return GradingRow(completion=self.completion, reference=self.reference, prompt=self.prompt, info=self.info)


class Verifier:
    """Base class of verifiers. A subclass defines `grade`; every other method has a default.

    A verifier is deterministic, keeps no state between rows, and never raises because of a completion's content.
    `verify` turns `BadReference` into a verdict. Every other exception reaches the caller; the grading pool records it
    as `verifier_error` with its cause.

    Example:
        >>> class Shout(Verifier):
        ...     name = "shout"
        ...     def grade(self, row):
        ...         return fixed(Outcome.CORRECT if row.completion.isupper() else Outcome.INCORRECT, "case")
        >>> Shout().verify(completion="HI", reference=None).reward
        1.0
    """

    name: str = ""
    version: str = "1"
    """Version, increased whenever a verdict could change; stored with every verdict."""
    reference_schema: Mapping[str, JSON] = {}
    """JSON schema of `reference`."""
    in_process: bool = False
    """True: rows are graded in the caller's process, in batches (for an accelerator or network calls)."""
    context: object = None
    """Only if in_process: object that the owner of the grading pool provides (a trainer provides its model)."""
    grade_seconds: float = 10.0
    """Wall-clock limit for one row, in seconds; when it is exceeded, the grading pool kills the worker."""
    memory_bytes: int | None = None
    """Limit of a worker's resident memory while it grades, in bytes; None: the pool's limit."""
    batch_rows: int = 0
    """Rows passed to `grade_batch` at once; 0: one by one in a worker, all queued rows in the caller's process."""
    concurrency: int | None = None
    """Most workers (threads, if in_process) that use this verifier at the same time.

    None: all workers of the pool, or one thread.
    """
    merges_equal: bool = False
    """True: identical rows that are in the grading pool at the same time are graded once.

    For verifiers with expensive rows. Each row still gets its own verdict.
    """
    shaping: bool = False
    """True: the reward says nothing about correctness (length, format). For parts of composed rewards."""
    injectable: bool = False
    """True: a model reads the completion, which could manipulate it; the conformance kit tries prompt injection."""
    learned: bool = False
    """True: the reward is the prediction of a trained model."""
    examples: Sequence[Example] = ()
    """Labelled rows, at least one correct and one not."""
    example_options: Mapping[str, JSON] = {}
    """Options under which the labels of `examples` hold, if not the defaults."""
    machine_options: frozenset[str] = frozenset()
    """Options that choose what runs on this machine, and limits. The grading service accepts them from no client, and a
    row may only ask for less than the user allows (`verifiers.row_choice`)."""

    stays_here: bool = False
    """True: the pool sends its rows to no grading node."""
    for_rows: bool = True
    """False: completions reach code that may execute them, so only the user can choose this verifier, not a row."""

    @property
    def grades(self) -> bool:
        """True if a rule decides right or wrong, not just the form or a model's prediction.

        Unless `correct` names another one, the first such part of a composed reward decides the outcome.
        """
        return not (self.shaping or self.injectable or self.learned)

    @classmethod
    def parts_in(cls, options: Mapping[str, JSON]) -> Sequence[JSON]:
        """Return the verifiers that the options name, as written there. Composed verifiers override this."""
        return ()

    @classmethod
    def no_looser(cls, option: str, value: JSON, bound: JSON) -> bool:
        """Return True if a row may set one of `machine_options` to `value`.

        Allowed is the same value as `bound`, or a number from 0 to `bound`, because these options are limits.

        Args:
            option: name of the option.
            value: value that the row asks for.
            bound: value set by the user, or the option's default; None: no limit for numbers.
        """
        if isinstance(value, bool) or isinstance(bound, bool):
            return value is bound
        if isinstance(value, int | float) and isinstance(bound, int | float | None):
            return value >= 0 and (bound is None or value <= bound)
        return value == bound

    def grade(self, row: GradingRow) -> Verdict:
        """Return the verdict on one row; raise `BadReference` if its reference answer cannot be used."""
        raise NotImplementedError

    def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        """Return the verdicts on several rows, in order. Override it if a batch is cheaper than its rows one by one."""
        return [self._timed(row) for row in rows]

    def check_reference(self, reference: JSON) -> None:
        """Raise `BadReference` if no answer could match this reference. Called for every problem at load."""

    def reference_notes(self, reference: JSON) -> Sequence[str]:
        """Return notes for the user on a usable reference, such as a surprising reading of it."""
        return ()

    def check_references(self, reference: JSON) -> None:
        """Raise `BadReference` if the reference is unusable or, for a list of alternatives, if all of them are."""
        several = alternatives(reference, self.reference_schema)
        if several is None:
            return self.check_reference(reference)
        faults = [fault for one in several if (fault := self._fault(one))]
        if len(faults) == len(several):
            raise faults[0]

    def _fault(self, reference: JSON) -> BadReference | None:
        try:
            self.check_reference(reference)
        except BadReference as error:
            return error
        return None

    def notes_on(self, reference: JSON) -> list[str]:
        """Return the notes on a reference, or on each of its alternatives, with a note for each unusable one."""
        several = alternatives(reference, self.reference_schema)
        if several is None:
            return [*self.reference_notes(reference)]
        found: list[str] = []
        for one in several:
            fault = self._fault(one)
            found += [f"{str(one)[:40]!r} is ignored: {fault}"] if fault else self.reference_notes(one)
        return found

    def verify(
        self,
        *,
        completion: str,
        reference: JSON,
        prompt: str | None = None,
        info: Mapping[str, JSON] | None = None,
    ) -> Verdict:
        """Grade one completion against one reference.

        Args:
            completion: text to grade.
            reference: the answer to compare with, or alternatives of which any is right (`verifiers.alternatives`).
            prompt: text of the prompt, for verifiers that read it.
            info: further data of the problem.
        Returns:
            The verdict; outcome `bad_reference` if the reference cannot be used.
        Raises:
            TypeError: the completion is not text.
            BadReturn: `grade` returned something other than a verdict.
        """
        row = GradingRow(completion=completion, reference=reference, prompt=prompt, info=info or {})
        return self.verify_batch([row])[0]

    def verify_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        """Grade several rows and return their verdicts in input order.

        If a reference lists several answers (`verifiers.alternatives`), any of them may be matched.
        """
        spread = [self._spread(row) for row in rows]
        if all(isinstance(one, GradingRow) for one in spread):
            return self._verify_plain(rows)
        plain = [
            row
            for one in spread
            if not isinstance(one, Verdict)
            for row in ([one] if isinstance(one, GradingRow) else one)
        ]
        graded = iter(self._verify_plain(plain) if plain else [])
        found: list[Verdict] = []
        for one in spread:
            if isinstance(one, list):
                one = any_right([next(graded) for _ in one])
            found.append(next(graded) if isinstance(one, GradingRow) else one)
        return found

    def _spread(self, row: GradingRow) -> GradingRow | list[GradingRow] | Verdict:
        """Return one row per alternative reference, the row itself if there is one, or a verdict if the list is bad."""
        try:
            several = alternatives(row.reference, self.reference_schema)
        except BadReference as error:
            return self._signed(fixed(Outcome.BAD_REFERENCE, str(error)), 0.0)
        return row if several is None else [replace(row, reference=one) for one in several]

    def _verify_plain(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        started = time.perf_counter()
        try:
            verdicts = finished(self.grade_batch(rows))
        except BadReference as error:
            if len(rows) > 1:  # grade one by one to find the row with the bad reference
                return [self._verify_plain([row])[0] for row in rows]
            verdicts = [fixed(Outcome.BAD_REFERENCE, str(error))]
        checked = self._checked_batch(verdicts, len(rows))
        share = (time.perf_counter() - started) / max(1, len(rows))
        return [self._signed(verdict, verdict.seconds or share) for verdict in checked]

    def _signed(self, verdict: Verdict, seconds: float) -> Verdict:
        return verdict.signed(self.name, self.version, seconds)

    def _checked_batch(self, returned: object, count: int) -> list[Verdict]:
        """Check that `grade_batch` returned one verdict per row."""
        verdicts = cast("Sequence[object]", returned) if isinstance(returned, list | tuple) else None
        if verdicts is None or len(verdicts) != count:
            got = type(cast("object", returned)).__name__ if verdicts is None else f"{len(verdicts)} of them"
            raise BadReturn(f"{self.name}: grade_batch must return {count} verdicts, one per row; got {got}")
        return [self._checked(verdict) for verdict in verdicts]

    def _timed(self, row: GradingRow) -> Verdict:
        started = time.perf_counter()
        try:
            verdict = self._checked(finished(self.grade(row)))
        except BadReference as error:
            verdict = fixed(Outcome.BAD_REFERENCE, str(error))
        return self._signed(verdict, time.perf_counter() - started)

    def _checked(self, verdict: object) -> Verdict:
        """Check that a subclass returned a verdict, and convert its reward to a number if it is a 0-d tensor."""
        if not isinstance(verdict, Verdict):
            raise BadReturn(
                f"{self.name}: grade must return a Verdict; got {type(verdict).__name__}. Return"
                " graded(reward, reason) for a reward in [0, 1], or fixed(outcome, reason)"
            )
        reward = verdict.reward
        if type(reward) in (float, int, type(None)):
            return verdict
        return replace(verdict, reward=as_number(reward, who=f"{self.name}: a Verdict's reward", wants="a number"))
