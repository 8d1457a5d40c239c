"""The interface of every verifier: completion and reference in, verdict out."""

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
    """One completion to grade."""

    completion: str
    reference: JSON
    prompt: str | None = None
    """What the model was asked, as text, where a verifier wants it."""
    info: Mapping[str, JSON] = field(default_factory=dict[str, "JSON"])
    """Anything else that the task attached to the problem."""

    def __post_init__(self) -> None:
        if not isinstance(self.completion, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"completion must be text; got {type(self.completion).__name__}. Decode tokens first; verifiers.grade"
                " takes chat messages."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A labelled row that a verifier carries with it: `reasoner verifiers check` grades it."""

    completion: str
    reference: JSON
    outcome: Outcome = Outcome.CORRECT
    """What the verdict must be."""
    prompt: str | None = None
    info: Mapping[str, JSON] = field(default_factory=dict[str, "JSON"])

    @property
    def row(self) -> GradingRow:
        """What the verifier is given."""
        return GradingRow(completion=self.completion, reference=self.reference, prompt=self.prompt, info=self.info)


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

    name: str = ""
    version: str = "1"
    """Raised whenever a verdict could change; stored with every verdict."""
    reference_schema: Mapping[str, JSON] = {}
    """JSON schema of `reference`."""
    in_process: bool = False
    """True: graded in the caller's process, in batches (needs an accelerator or does network calls)."""
    context: object = None
    """Where in_process: what the owner of the grading pool gave it for its verifiers (a trainer: its own model)."""
    grade_seconds: float = 10.0
    """Wall-clock seconds that one row may take: the grading pool then kills the worker that is grading it."""
    memory_bytes: int | None = None
    """Resident memory that a worker may take while it grades; None: the pool's limit."""
    batch_rows: int = 0
    """Rows handed to `grade_batch` at once; 0: one by one in a worker, all that wait in the caller's process."""
    concurrency: int | None = None
    """Workers (threads, where in_process) that may grade with this verifier at a time.

    None: all of the pool's workers, one thread.
    """
    merges_equal: bool = False
    """True: rows that are equal in everything and in the grading pool at the same time are graded once.

    For verifiers whose rows cost much; each row still gets a verdict of its own.
    """
    shaping: bool = False
    """True: says nothing of whether the answer is right (a length, a format); for parts of composed rewards."""
    injectable: bool = False
    """True: a model reads the completion, and could be talked into a verdict; the conformance kit tries."""
    learned: bool = False
    """True: the reward is a trained model's opinion."""
    examples: Sequence[Example] = ()
    """Labelled rows: at least one that is correct and one that is not."""
    example_options: Mapping[str, JSON] = {}
    """The options that the examples are labelled for, where they are not the defaults."""
    machine_options: frozenset[str] = frozenset()
    """Options that choose what runs on this machine, and limits: the grading service takes them from no client, and a
    row may only ask for less than the user (`verifiers.row_choice`)."""

    for_rows: bool = True
    """False: it hands completions to code that may run them; the user can choose it, a row cannot."""

    @property
    def grades(self) -> bool:
        """Whether it says right or wrong by a rule: it is neither a form alone nor a model's opinion.

        The first part of a composed reward that does decides what is right, where no part is named.
        """
        return not (self.shaping or self.injectable or self.learned)

    @classmethod
    def parts_in(cls, options: Mapping[str, JSON]) -> Sequence[JSON]:
        """The verifiers that options name, as they are written: override where there are any."""
        return ()

    @classmethod
    def no_looser(cls, option: str, value: JSON, bound: JSON) -> bool:
        """Whether a row may set one of `machine_options` where the user set `bound` (or its default holds).

        The same value, or a smaller number: they are limits.
        """
        if isinstance(value, bool) or isinstance(bound, bool):
            return value is bound
        if isinstance(value, int | float) and isinstance(bound, int | float | None):
            return value >= 0 and (bound is None or value <= bound)
        return value == bound

    def grade(self, row: GradingRow) -> Verdict:
        """The verdict on one row; raise `BadReference` where the gold cannot be used."""
        raise NotImplementedError

    def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        """The verdicts on several rows, in order; override where a batch is cheaper than its rows."""
        return [self._timed(row) for row in rows]

    def check_reference(self, reference: JSON) -> None:
        """Raise `BadReference` where this gold could never be matched. Called for every problem at load."""

    def reference_notes(self, reference: JSON) -> Sequence[str]:
        """What a person should know of a gold that can be used: what it is graded as, where that may surprise."""
        return ()

    def check_references(self, reference: JSON) -> None:
        """Raise `BadReference` where nothing could match: one reference that is bad, or several that all are."""
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
        """What `reference_notes` says, of each where there are several; those that cannot be used are named."""
        several = alternatives(reference, self.reference_schema)
        if several is None:
            return [*self.reference_notes(reference)]
        found: list[str] = []
        for one in several:
            fault = self._fault(one)
            found += [f"{str(one)[:40]!r} is passed over: {fault}"] if fault else self.reference_notes(one)
        return found

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
        return self.verify_batch([row])[0]

    def verify_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        """Grade several rows; verdicts in input order.

        A reference that lists several answers (`verifiers.alternatives`) is met by any of them.
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
        """The row once for each of its reference answers; as it is where it has one; a verdict where it has none."""
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
            if len(rows) > 1:  # whose it is shows when they are graded one by one
                return [self._verify_plain([row])[0] for row in rows]
            verdicts = [fixed(Outcome.BAD_REFERENCE, str(error))]
        checked = self._checked_batch(verdicts, len(rows))
        share = (time.perf_counter() - started) / max(1, len(rows))
        return [self._signed(verdict, verdict.seconds or share) for verdict in checked]

    def _signed(self, verdict: Verdict, seconds: float) -> Verdict:
        return verdict.signed(self.name, self.version, seconds)

    def _checked_batch(self, returned: object, count: int) -> list[Verdict]:
        """What `grade_batch` returned: one verdict a row."""
        verdicts = cast("Sequence[object]", returned) if isinstance(returned, list | tuple) else None
        if verdicts is None or len(verdicts) != count:
            got = type(cast("object", returned)).__name__ if verdicts is None else f"{len(verdicts)} of them"
            raise BadReturn(f"{self.name}: grade_batch must return {count} verdicts, one a row; got {got}")
        return [self._checked(verdict) for verdict in verdicts]

    def _timed(self, row: GradingRow) -> Verdict:
        started = time.perf_counter()
        try:
            verdict = self._checked(finished(self.grade(row)))
        except BadReference as error:
            verdict = fixed(Outcome.BAD_REFERENCE, str(error))
        return self._signed(verdict, time.perf_counter() - started)

    def _checked(self, verdict: object) -> Verdict:
        """What a subclass returned: a verdict; a reward that is a tensor without dimensions becomes a number."""
        if not isinstance(verdict, Verdict):
            raise BadReturn(
                f"{self.name}: grade must return a Verdict; got {type(verdict).__name__}. Return"
                " graded(reward, reason) for a reward in [0, 1], or fixed(outcome, reason)"
            )
        reward = verdict.reward
        if type(reward) in (float, int, type(None)):
            return verdict
        return replace(verdict, reward=as_number(reward, who=f"{self.name}: a Verdict's reward", wants="a number"))
