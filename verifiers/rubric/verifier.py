"""`rubric`: criteria with weights and gates; every criterion's verdict, evidence and reason is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from verifiers.base import Example, GradingRow, Verifier
from verifiers.compose import Composite, Part, part_from
from verifiers.errors import BadOption, BadReference
from verifiers.registry import get_verifier
from verifiers.rubric.criteria import (
    RUBRIC_SCHEMA,
    Criterion,
    load_rubric,
    parse_rubric,
    parse_rubric_text,
)
from verifiers.verdict import JSON, Outcome, Verdict, fixed, graded

VERSION = "1"
BACK = " (fallback)"
"""After the name of a criterion: its fall-back."""

_MENU: JSON = [
    {"name": "dish", "contains": {"all": ["soup", "bread"], "ignore_case": True}, "weight": 2},
    {"name": "price", "regex": r"\b\d{1,4} (euros|€)"},
    {"name": "short", "length": {"unit": "words", "max": 12}, "gate": True, "weight": 0},
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionPart(Part):
    """A criterion as a part of the whole: its verifier gets the criterion's own reference."""

    given: JSON

    def row_of(self, row: GradingRow) -> GradingRow:
        return replace(row, reference=self.given)

    def reference_of(self, reference: JSON) -> JSON:
        return self.given


class Rubric(Composite):
    """Weighted criteria, checked by program or judged by a model; reward in [0, 1].

    The reward is the weighted mean of the criteria's rewards, or 0 where a gate is shut. A criterion that could not be
    decided makes the whole ungraded, unless a shut gate decides it all, or its fall-back does.

    Args:
        rubric: the criteria of every row, as a list or the path of a YAML or JSON file; None: the reference holds them.
        judge: what decides judged criteria: {"verifier": "judge", "options": {"url": ..., "model": ...}}, or any other
            verifier that takes a question for a reference.
        code: options of the code verifier.
    """

    name = "rubric"
    version = VERSION
    reference_schema = RUBRIC_SCHEMA
    machine_options = frozenset({"rubric", "judge", "code"})
    examples = (
        Example(completion="Soup with bread, 9 euros.", reference=_MENU),
        Example(completion="Soup, 9 euros.", reference=_MENU, outcome=Outcome.PARTIAL),
        Example(completion="Fish.", reference=_MENU, outcome=Outcome.INCORRECT),
        Example(completion="Soup, bread, 9 euros. " + "And more. " * 9, reference=_MENU, outcome=Outcome.INCORRECT),
    )

    @classmethod
    def parts_in(cls, options: Mapping[str, JSON]) -> Sequence[JSON]:
        code = options.get("code")
        return [options.get("judge"), *([] if code is None else [{"verifier": "code", "options": code}])]

    @classmethod
    def no_looser(cls, option: str, value: JSON, bound: JSON) -> bool:
        """A row may bring its criteria, but name no file; judge and code are judged as the verifiers that they are."""
        return option in ("judge", "code") or (option == "rubric" and isinstance(value, list)) or value == bound

    def __init__(
        self,
        *,
        rubric: list[JSON] | str | None = None,
        judge: JSON = None,
        code: dict[str, JSON] | None = None,
    ) -> None:
        super().__init__(())
        self.grade_seconds = 600.0  # where all criteria are decided in one worker; each has its own limit in the pool
        self._judge = None if judge is None else part_from(judge, where="judge")
        self._code: dict[str, JSON] = dict(code or {})
        self._made: dict[str, Verifier] = {}
        self._criteria: tuple[Criterion, ...] | None = None
        if rubric is not None:
            self._criteria = load_rubric(rubric) if isinstance(rubric, str) else _as_option(rubric)
            try:
                self.check_reference(None)
            except BadReference as error:
                raise BadOption(f"rubric: {error}") from error
        self.version = VERSION if self._judge is None else f"{VERSION}+{self._judge.made.version}"
        self.injectable = self._judge is not None

    @property
    def grades(self) -> bool:
        """Whether every criterion is decided by a rule."""
        return not self.injectable

    def any_in_process(self) -> bool:
        """Always: each criterion is a row of its own in the pool, with its own limits."""
        return True

    def criteria_of(self, reference: JSON) -> tuple[Criterion, ...]:
        """The criteria that grade a row.

        Raises:
            BadReference: the reference holds none.
        """
        return self._criteria if self._criteria is not None else parse_rubric_text(json.dumps(reference))

    def parts_of(self, row: GradingRow) -> Sequence[Part]:
        return self._parts(self.criteria_of(row.reference))

    def _parts(self, criteria: Sequence[Criterion]) -> list[Part]:
        parts = [self._part(criterion, criterion.name) for criterion in criteria]
        return parts + [
            self._part(criterion.fallback, criterion.name + BACK) for criterion in criteria if criterion.fallback
        ]

    def _part(self, criterion: Criterion, name: str) -> Part:
        verifier, given = "criterion", criterion.spec
        options: Mapping[str, JSON] = {}
        if criterion.kind == "judged":
            if self._judge is None:
                raise BadReference(f"{name} is judged, and no judge is set. Set the option judge (see docs/judges.md).")
            verifier, options = self._judge.verifier, self._judge.options
        elif criterion.kind in ("math", "code"):
            verifier, options = criterion.kind, self._code if criterion.kind == "code" else {}
        else:
            given = {criterion.kind: criterion.spec}
        if verifier not in self._made:
            kept = self._judge.made if criterion.kind == "judged" and self._judge else None
            self._made[verifier] = kept or get_verifier(verifier, **options)
        return CriterionPart(
            name=name,
            verifier=verifier,
            options=options,
            weight=criterion.weight,
            reference=None,
            made=self._made[verifier],
            given=given,
        )

    def check_reference(self, reference: JSON) -> None:
        for part in self._parts(self.criteria_of(reference)):
            try:
                part.made.check_reference(part.reference_of(reference))
            except BadReference as error:
                raise BadReference(f"{part.name}: {error}") from error

    def settled(self, verdicts: Mapping[str, Verdict]) -> bool:
        """Never: every criterion's verdict is shown."""
        return False

    def grade(self, row: GradingRow) -> Verdict:
        return self.grade_batch([row])[0]

    def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        """Criteria of one verifier at once, over all rows: a judge answers them side by side."""
        asked: dict[str, list[tuple[int, Part]]] = {}
        found: list[dict[str, Verdict]] = [{} for _ in rows]
        for at, row in enumerate(rows):
            for part in self.parts_of(row):
                found[at][part.name] = fixed(Outcome.VERIFIER_ERROR, "not graded yet")  # keeps the criteria's order
                asked.setdefault(part.verifier, []).append((at, part))
        for parts in asked.values():
            verdicts = parts[0][1].made.verify_batch([part.row_of(rows[at]) for at, part in parts])
            for (at, part), verdict in zip(parts, verdicts, strict=True):
                found[at][part.name] = verdict
        return [self.combine_row(row, verdicts) for row, verdicts in zip(rows, found, strict=True)]

    def combine_row(self, row: GradingRow, verdicts: Mapping[str, Verdict]) -> Verdict:
        return replace(weigh(self.criteria_of(row.reference), verdicts), version=self.version)


def weigh(criteria: Sequence[Criterion], verdicts: Mapping[str, Verdict]) -> Verdict:
    """The verdict of a rubric from those of its criteria, by name."""
    chosen = {criterion.name: _deciding(criterion, verdicts) for criterion in criteria}
    shut = [c for c in criteria if c.gate and _is_below(chosen[c.name].reward, c.threshold)]
    fault = next((c for c in criteria if not chosen[c.name].graded), None)
    total = math.fsum(criterion.weight for criterion in criteria)
    if shut:
        joined = fixed(Outcome.INCORRECT, f"must-have {shut[0].name} is not met: {chosen[shut[0].name].reason}")
    elif fault is not None:
        joined = fixed(chosen[fault.name].outcome, f"{fault.name}: {chosen[fault.name].reason}")
    elif not total:  # gates alone, all of them open
        joined = fixed(Outcome.CORRECT, "every must-have is met")
    else:
        mean = math.fsum(c.weight * (chosen[c.name].reward or 0.0) for c in criteria) / total
        worst = min(criteria, key=lambda c: (chosen[c.name].reward or 0.0, -c.weight))
        reason = f"{worst.name}: {chosen[worst.name].reason}" if mean < 1 else "every criterion is met"
        joined = graded(min(1.0, max(0.0, round(mean, 9))), reason)
    kept: dict[str, JSON] = {
        c.name: {
            "weight": c.weight,
            "gate": c.gate,
            "reward": chosen[c.name].reward,
            "outcome": str(chosen[c.name].outcome),
            "verifier": chosen[c.name].verifier,
            **chosen[c.name].detail,
        }
        for c in criteria
    }
    return replace(
        joined,
        answer=next((verdict.answer for verdict in chosen.values() if verdict.answer is not None), None),
        detail={**joined.detail, "criteria": kept},
        seconds=math.fsum(verdict.seconds for verdict in verdicts.values()),
        components={name: verdict.reward for name, verdict in chosen.items() if verdict.reward is not None},
    )


def _deciding(criterion: Criterion, verdicts: Mapping[str, Verdict]) -> Verdict:
    """The criterion's verdict, or that of its fall-back where the judge gave none."""
    verdict = verdicts[criterion.name]
    if verdict.outcome is not Outcome.VERIFIER_ERROR or criterion.fallback is None:
        return verdict
    instead = verdicts[criterion.name + BACK]
    return replace(instead, detail={**instead.detail, "instead_of": verdict.reason})


def _is_below(reward: float | None, threshold: float) -> bool:
    return reward is not None and reward < threshold


def _as_option(rubric: list[JSON]) -> tuple[Criterion, ...]:
    try:
        return parse_rubric(rubric)
    except BadReference as error:
        raise BadOption(f"rubric: {error}") from error


__all__ = ["CriterionPart", "Rubric", "weigh"]
