"""Verifiers composed of others: weighted sums, all-of, gates, a choice per row. Each part's reward is kept by name.

One part decides whether the answer is right: its outcome is the outcome of the whole, whatever the total reward.
It is the part that `correct` names, by default the first one that decides by a rule (`Verifier.grades`).

A part is written as `{"verifier": name}` with these optional keys: `options`; `name` (of its component, by default the
verifier's name); `weight` (in a weighted sum); `reference` (the key of the reference object under which this part's
reference is found; by default the part gets the whole reference).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from verifiers.alternatives import ANY
from verifiers.base import GradingRow, Verifier
from verifiers.composed_examples import BY_KIND, CHOSEN, GATED, IN_FORM, OUT_OF_FORM, PARTS, SUMMED
from verifiers.errors import BadOption, BadReference, VerifierError
from verifiers.jsonl import is_list, is_object
from verifiers.registry import get_verifier
from verifiers.suggest import did_you_mean
from verifiers.verdict import JSON, Outcome, Verdict, fixed, graded, mark_of

JUDGED = frozenset({"level", "judges", "criteria"})
"""Keys of a detail that judges and rubrics write: such a detail is kept whole, for its votes and costs."""
PART_KEYS = ("verifier", "options", "name", "weight", "reference")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Part of a composed verifier."""

    name: str
    verifier: str
    options: Mapping[str, JSON]
    weight: float
    reference: str | None
    """Key of this part's reference in the reference object; None: the whole reference."""
    made: Verifier

    def row_of(self, row: GradingRow) -> GradingRow:
        """Return the row with this part's own reference."""
        return row if self.reference is None else replace(row, reference=self.reference_of(row.reference))

    def reference_of(self, reference: JSON) -> JSON:
        """Return this part's own reference; raise `BadReference` if the object lacks its key."""
        if self.reference is None:
            return reference
        if isinstance(reference, dict) and reference.keys() == {ANY} and isinstance(several := reference[ANY], list):
            return {ANY: [self.reference_of(one) for one in several]}
        if not isinstance(reference, dict) or self.reference not in reference:
            raise BadReference(
                f"reference must be an object with key {self.reference!r} (part {self.name!r}); got"
                f" {str(reference)[:80]}."
            )
        return reference[self.reference]


def part_from(given: JSON, *, where: str) -> Part:
    """Build a part from its form in a config, a name or an object.

    Args:
        given: verifier name, or an object with the keys PART_KEYS.
        where: position in the config, for error messages.
    Raises:
        BadOption: it is neither a name nor an object with `verifier`, has an unknown key, or a value of a wrong type.
        UnknownVerifier: there is no such verifier.
    """
    spec: JSON = {"verifier": given} if isinstance(given, str) else given
    if not is_object(spec) or not isinstance(spec.get("verifier"), str) or set(spec) - set(PART_KEYS):
        raise BadOption(f"{where} must be a verifier's name or an object of {', '.join(PART_KEYS)}; got {given!r}.")
    name, options = str(spec["verifier"]), spec.get("options") or {}
    weight, reference = spec.get("weight", 1.0), spec.get("reference")
    if not isinstance(options, dict):
        raise BadOption(f"{where}: options must be an object; got {options!r}.")
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise BadOption(f"{where}: weight must be a number; got {weight!r}.")
    if reference is not None and not isinstance(reference, str):
        raise BadOption(f"{where}: reference must be a key of the reference object; got {reference!r}.")
    return Part(
        name=str(spec.get("name") or name),
        verifier=name,
        options=options,
        weight=float(weight),
        reference=reference,
        made=get_verifier(name, **options),
    )


class Composite(Verifier):
    """Verifier that grades with its parts, in order, and combines their verdicts.

    If a part cannot grade, the verdict is `verifier_error` or `bad_reference`, with the part's name and the cause.
    """

    def __init__(self, parts: Sequence[Part], *, correct: str | None = None) -> None:
        names = [part.name for part in parts]
        if correct is not None and correct not in names:
            raise BadOption(f"correct must name a part; got {correct!r}.{did_you_mean(correct, names)}")
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise BadOption(f"parts must have different names; {min(twice)!r} occurs twice. Give one a `name`.")
        self.parts = tuple(parts)
        self.correct = correct
        """Name of the part that decides the outcome; None: the first that grades by a rule."""
        whole = [part.made.reference_schema for part in parts if part.reference is None and part.made.reference_schema]
        if whole and len(whole) == sum(bool(part.made.reference_schema) for part in parts):
            self.reference_schema = whole[0]
        self.grade_seconds = sum(part.made.grade_seconds for part in parts)
        self.merges_equal = any(part.made.merges_equal for part in parts)
        self.memory_bytes = max((part.made.memory_bytes or 0 for part in parts), default=0) or None
        self.concurrency = min((part.made.concurrency for part in parts if part.made.concurrency), default=None)
        self.version = "+".join([type(self).version, *(f"{part.name}:{part.made.version}" for part in parts)])

    def any_in_process(self) -> bool:
        """Return True if some part is graded in the caller's process; the pool then grades each part separately."""
        return any(
            part.made.any_in_process() if isinstance(part.made, Composite) else part.made.in_process
            for part in self.parts
        )

    def parts_of(self, row: GradingRow) -> Sequence[Part]:
        """Return the parts that grade this row, in order."""
        return self.parts

    def settled(self, verdicts: Mapping[str, Verdict]) -> bool:
        """Return True if the verdicts so far (by part name) settle the result, so that later parts need not grade."""
        return any(not verdict.graded for verdict in verdicts.values())

    @property
    def grades(self) -> bool:
        """True if some part decides right or wrong by a rule."""
        return any(part.made.grades for part in self.parts)

    def decider(self, parts: Sequence[Part]) -> str | None:
        """Return the name of the part that decides the outcome: `correct`, or the first of `parts` that has a rule."""
        return self.correct or next((part.name for part in parts if part.made.grades), None)

    def join(self, verdicts: Mapping[str, Verdict]) -> Verdict:
        """Combine the parts' verdicts (all graded) into one; its `decided_by` is a part's name, not a path."""
        raise NotImplementedError

    def combine(self, verdicts: Mapping[str, Verdict]) -> Verdict:
        """Combine the parts' verdicts into one. Each graded part's reward becomes a component.

        If a part is ungraded, the result has its outcome, and its name and reason as the reason.
        """
        fault = next(((name, verdict) for name, verdict in verdicts.items() if not verdict.graded), None)
        joined = self.join(verdicts) if fault is None else fixed(fault[1].outcome, f"{fault[0]}: {fault[1].reason}")
        components: dict[str, float] = {}
        for name, verdict in verdicts.items():
            if verdict.reward is not None:
                components[name] = verdict.reward
            components |= {f"{name}/{inner}": reward for inner, reward in verdict.components.items()}
        detail: dict[str, JSON] = {name: verdict.reason for name, verdict in verdicts.items()}
        judged: dict[str, JSON] = {name: dict(v.detail) for name, v in verdicts.items() if JUDGED & v.detail.keys()}
        by = joined.decided_by
        inner = None if by is None else verdicts[by].decided_by
        answers = verdicts.values() if by is None else [verdicts[by]]
        answer = next((verdict.answer for verdict in answers if verdict.answer is not None), None)
        return replace(
            joined,
            decided_by=by if inner is None else f"{by}/{inner}",
            answer=joined.answer if joined.answer is not None else answer,
            detail={**joined.detail, "parts": detail, **({"judged": judged} if judged else {})},
            seconds=sum(verdict.seconds for verdict in verdicts.values()),
            components=components,
        )

    def combine_row(self, row: GradingRow, verdicts: Mapping[str, Verdict]) -> Verdict:
        """Combine the verdicts on one row. Override it if weights or gates depend on the row."""
        return self.combine(verdicts)

    def grade(self, row: GradingRow) -> Verdict:
        verdicts: dict[str, Verdict] = {}
        for part in self.parts_of(row):
            try:
                verdicts[part.name] = part.made.verify_batch([part.row_of(row)])[0]
            except BadReference:
                raise
            except Exception as error:
                raise VerifierError(f"part {part.name!r}: {type(error).__name__}: {error}") from error
            if self.settled(verdicts):
                break
        return self.combine_row(row, verdicts)

    def check_reference(self, reference: JSON) -> None:
        for part in self.parts:
            part.made.check_references(part.reference_of(reference))

    def reference_notes(self, reference: JSON) -> Sequence[str]:
        return [note for part in self.parts for note in part.made.notes_on(part.reference_of(reference))]


def by_value(reward: float, reason: str) -> Verdict:
    """Return a verdict for a finite reward: correct at 1, incorrect at 0, partial in between, otherwise scored."""
    rounded = round(reward, 9)
    if 0 <= rounded <= 1:
        return graded(rounded, reason)
    return Verdict(outcome=Outcome.SCORED, reward=rounded, detail={"reason": reason})


def decided(name: str, verdict: Verdict, *, reward: float, reason: str) -> Verdict:
    """Return a verdict with any finite reward and the outcome of the part `name`."""
    return Verdict(outcome=verdict.outcome, reward=round(reward, 9), decided_by=name, detail={"reason": reason})


def passed_on(name: str, verdict: Verdict) -> Verdict:
    """Return a part's verdict as the verdict of the whole."""
    weights = {f"{name}/{inner}": weight for inner, weight in verdict.weights.items()}
    return replace(verdict, decided_by=name, weights=weights)


def listed(written: JSON) -> list[JSON]:
    """Return the values of an option that is a list or an object of parts; empty for anything else."""
    return [*written.values()] if is_object(written) else [*written] if is_list(written) else []


def part_at(path: str, verifier: str, options: Mapping[str, JSON]) -> tuple[str, Mapping[str, JSON]]:
    """Find the part of a composed verifier at a path of part names (`Verdict.decided_by`).

    Returns:
        Its verifier and options; those of the outermost verifier if no part has that name.

    Example:
        >>> part_at("sums", "weighted", {"parts": ["format", {"verifier": "math", "name": "sums"}]})
        ('math', {})
    """
    parts = written_parts(options)
    name = max((name for name in parts if path == name or path.startswith(f"{name}/")), key=len, default=None)
    if name is None:
        return verifier, options
    spec = parts[name]
    inner = spec.get("options")
    own: Mapping[str, JSON] = inner if is_object(inner) else {}
    return part_at(path[len(name) + 1 :], str(spec["verifier"]), own)


def written_parts(options: Mapping[str, JSON]) -> dict[str, Mapping[str, JSON]]:
    """Return the parts in a composed verifier's options, by name."""
    listed, choices = options.get("parts"), options.get("choices")
    given: list[tuple[str | None, JSON]] = [(None, options.get("gate")), (None, options.get("then"))]
    given += [(None, spec) for spec in listed] if isinstance(listed, list) else []
    given += [*choices.items()] if is_object(choices) else []
    found: dict[str, Mapping[str, JSON]] = {}
    for name, written in given:
        spec: JSON = {"verifier": written} if isinstance(written, str) else written
        if is_object(spec) and "verifier" in spec:
            found[name or str(spec.get("name") or spec["verifier"])] = spec
    return found


class Weighted(Composite):
    """Weighted sum of its parts' rewards.

    If no part decides by a rule, the sum itself does if it always lies in [0, 1]; otherwise the verdict is `scored`.

    Args:
        parts: each with its weight; negative weights are penalties.
        correct: name of the part that decides the outcome; None: the first with a rule and a weight >= 0.
    """

    name = "weighted"
    examples = IN_FORM
    example_options = SUMMED

    @classmethod
    def parts_in(cls, options: Mapping[str, JSON]) -> Sequence[JSON]:
        return listed(options.get("parts"))

    def __init__(self, *, parts: list[JSON], correct: str | None = None) -> None:
        made = [part_from(part, where=f"parts[{index}]") for index, part in enumerate(parts)]
        super().__init__(made, correct=correct)
        if not parts:
            raise BadOption("parts must name at least one verifier; got none.")
        self._weights = {part.name: part.weight for part in made}
        spans_one = min(self._weights.values()) >= 0 and sum(self._weights.values()) <= 1 + 1e-9
        self._by, self._is_share = self.decider([part for part in made if part.weight >= 0]), spans_one

    def join(self, verdicts: Mapping[str, Verdict]) -> Verdict:
        total = sum(self._weights[name] * (verdict.reward or 0.0) for name, verdict in verdicts.items())
        terms = " + ".join(f"{self._weights[name]:g} x {name} {verdict.reward:g}" for name, verdict in verdicts.items())
        reason = f"{terms} = {total:g}"
        if self._by is not None:
            joined = decided(self._by, verdicts[self._by], reward=total, reason=reason)
        elif self._is_share and all(verdict.outcome is not Outcome.SCORED for verdict in verdicts.values()):
            joined = by_value(total, reason)
        else:
            joined = Verdict(outcome=Outcome.SCORED, reward=round(total, 9), detail={"reason": reason})
        return replace(joined, weights=self._weights)


class AllOf(Composite):
    """Smallest reward of its parts. Once a part gives 0, later parts are skipped.

    The answer is right if no part gives 0 and the deciding part calls it right: with a length reward of 0.7 a right
    answer earns 0.7 and stays right. By default the part with the smallest reward among those that grade by a rule
    decides.

    Args:
        parts: cheap ones first.
        correct: name of the only part that decides the outcome; it is never skipped.
    """

    name = "all-of"
    examples = (*IN_FORM, OUT_OF_FORM)
    example_options = PARTS

    @classmethod
    def parts_in(cls, options: Mapping[str, JSON]) -> Sequence[JSON]:
        return listed(options.get("parts"))

    def __init__(self, *, parts: list[JSON], correct: str | None = None) -> None:
        made = [part_from(part, where=f"parts[{index}]") for index, part in enumerate(parts)]
        super().__init__(made, correct=correct)
        if not parts:
            raise BadOption("parts must name at least one verifier; got none.")

    def settled(self, verdicts: Mapping[str, Verdict]) -> bool:
        zero = any(verdict.reward == 0 for verdict in verdicts.values())
        return super().settled(verdicts) or (zero and (self.correct is None or self.correct in verdicts))

    def join(self, verdicts: Mapping[str, Verdict]) -> Verdict:
        def least_of(names: Iterable[str]) -> str:
            return min(names, key=lambda name: verdicts[name].reward or 0.0)

        least = least_of(verdicts)
        reward, reason = verdicts[least].reward or 0.0, f"{least} is least: {verdicts[least].reason}"
        grading = [part.name for part in self.parts if part.name in verdicts and part.made.grades]
        if self.correct is not None:
            by = self.correct
        elif reward > 0 and grading:
            by = least_of(grading)
        else:
            return decided(least, verdicts[least], reward=reward, reason=reason)
        return decided(by, verdicts[by], reward=reward, reason=reason)


class Gate(Composite):
    """Verdict of one verifier (`then`), used only if another one's reward (`gate`) reaches a threshold.

    `then` decides the outcome, or `gate` if only `gate` grades by a rule. An answer that does not pass the gate is
    wrong, whatever `closed` is.

    Args:
        gate: graded first, for example a format.
        then: graded if the gate is passed; its verdict is the result.
        threshold: smallest reward of `gate` that passes.
        closed: the reward if the gate is not passed.
        correct: name of the part that decides the outcome, gate's or then's.
    """

    name = "gate"
    examples = (*IN_FORM, OUT_OF_FORM)
    example_options = GATED

    @classmethod
    def parts_in(cls, options: Mapping[str, JSON]) -> Sequence[JSON]:
        return [options.get("gate"), options.get("then")]

    def __init__(
        self, *, gate: JSON, then: JSON, threshold: float = 1.0, closed: float = 0.0, correct: str | None = None
    ) -> None:
        super().__init__([part_from(gate, where="gate"), part_from(then, where="then")], correct=correct)
        self._threshold, self._closed = threshold, closed
        self._by = self.decider(self.parts[::-1]) or self.parts[1].name

    def settled(self, verdicts: Mapping[str, Verdict]) -> bool:
        return super().settled(verdicts) or self._is_shut(verdicts)

    def combine(self, verdicts: Mapping[str, Verdict]) -> Verdict:
        gate = self.parts[0].name
        if verdicts[gate].graded and self._is_shut(verdicts):  # a fault behind a closed gate does not matter
            return super().combine({gate: verdicts[gate]})
        return super().combine(verdicts)

    def join(self, verdicts: Mapping[str, Verdict]) -> Verdict:
        gate, then = (part.name for part in self.parts)
        before = verdicts[gate]
        if self._is_shut(verdicts):
            reason = f"{gate} is not passed: {before.reason}"
            shut = decided(gate, before, reward=self._closed, reason=reason)
            wrong = mark_of(before.outcome, before.reward) == 0 or self._by == gate
            return shut if wrong else replace(shut, outcome=Outcome.INCORRECT)
        if self._by == gate:
            return decided(gate, before, reward=verdicts[then].reward or 0.0, reason=verdicts[then].reason)
        return passed_on(then, verdicts[then])

    def _is_shut(self, verdicts: Mapping[str, Verdict]) -> bool:
        return (verdicts[self.parts[0].name].reward or 0.0) < self._threshold


class PerRow(Composite):
    """Verifier chosen for each row by a key of the row's `info` or of its reference.

    Args:
        key: of `info`, or of the reference object if `info` lacks it.
        choices: value -> part; "*" is the choice for every other value.
    """

    name = "per-row"
    examples = BY_KIND
    example_options = CHOSEN

    @classmethod
    def parts_in(cls, options: Mapping[str, JSON]) -> Sequence[JSON]:
        return listed(options.get("choices"))

    def __init__(self, *, key: str, choices: dict[str, JSON]) -> None:
        made = {value: part_from(part, where=f"choices.{value}") for value, part in choices.items()}
        super().__init__([replace(part, name=value) for value, part in made.items()])
        self._key, self._choices = key, {part.name: part for part in self.parts}

    def parts_of(self, row: GradingRow) -> Sequence[Part]:
        value = row.info.get(self._key)
        if value is None and isinstance(row.reference, dict):
            value = row.reference.get(self._key)
        return [self._chosen(value)]

    def _chosen(self, value: JSON) -> Part:
        part = self._choices.get(str(value)) or self._choices.get("*")
        if part is None:
            raise BadReference(f"{self._key} must be one of {', '.join(self._choices)}; got {value!r}.")
        return part

    def join(self, verdicts: Mapping[str, Verdict]) -> Verdict:
        ((name, verdict),) = verdicts.items()
        return passed_on(name, verdict)

    def check_reference(self, reference: JSON) -> None:
        """Check a reference that itself contains the key; otherwise `info` decides, which is unknown here."""
        if isinstance(reference, dict) and self._key in reference:
            part = self._chosen(reference[self._key])
            part.made.check_references(part.reference_of(reference))


__all__ = [
    "AllOf",
    "Composite",
    "Gate",
    "Part",
    "PerRow",
    "Weighted",
    "by_value",
    "listed",
    "part_at",
    "part_from",
    "written_parts",
]
