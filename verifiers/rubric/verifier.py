"""`rubric`: criteria with weights, points, penalties and gates. The verdict contains that of each criterion."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from verifiers.base import Example, GradingRow, Verifier
from verifiers.compose import Composite, Part, part_from
from verifiers.errors import BadOption, BadReference
from verifiers.judge.questions import MAX_QUESTIONS, Question
from verifiers.registry import get_verifier
from verifiers.rubric.criteria import (
    RUBRIC_SCHEMA,
    Criterion,
    leaves,
    load_rubric,
    parse_rubric,
    parse_rubric_text,
)
from verifiers.rubric.weighing import BACK, weigh
from verifiers.verdict import JSON, Outcome, Verdict, fixed, graded

VERSION = "2"
AGGREGATES = ("explicit", "implicit")
OVERALL = "overall"
"""Name of the single question that an implicit aggregate asks."""
_MENU: JSON = [
    {"name": "dish", "contains": {"all": ["soup", "bread"], "ignore_case": True}, "weight": 2},
    {"name": "price", "regex": r"\b\d{1,4} (euros|€)"},
    {"name": "short", "length": {"unit": "words", "max": 12}, "gate": True, "weight": 0},
]
_POINTS: JSON = [
    {"name": "dish", "contains": {"any": ["soup", "salad"], "ignore_case": True}, "points": 7},
    {"name": "drink", "contains": {"any": ["tea", "juice"], "ignore_case": True}, "points": 3},
    {"name": "shouts", "contains": "!", "points": -5},
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionPart(Part):
    """A criterion as a part of the rubric; its verifier gets `given` as the reference."""

    given: JSON

    def row_of(self, row: GradingRow) -> GradingRow:
        return replace(row, reference=self.given)

    def reference_of(self, reference: JSON) -> JSON:
        return self.given


class Rubric(Composite):
    """Criteria with weights or points, checked by a program or judged by a model.

    With r a criterion's reward and v its weight or points, the reward is sum(v r) / sum of the positive v, minus the
    penalties that are met, clipped to [0, 1] unless clip is false; 0 if a gate is shut. This is HealthBench's score of
    one answer (openai/simple-evals, healthbench_eval.py, calculate_score at 9e2fafd) and, if no weight is negative,
    equation 1 of Rubrics as Rewards (arXiv:2507.17746). A criterion that could not be graded makes the rubric ungraded,
    unless its fallback decides, or a gate is shut.

    Args:
        rubric: the criteria of every row, as a list or the path of a YAML or JSON file; None: they are the reference of
            the row.
        judge: verifier of judged criteria: {"verifier": "judge", "options": {"url": ..., "model": ...}}, or any other
            verifier whose reference is a question.
        code: options of the code verifier.
        criteria_per_call: judged criteria in one call of the judge; 1: a call each.
        aggregate: explicit: the formula above. implicit: the judge sees all criteria with their weights, and gives one
            level from 0 to 9 to the whole; the reward is a ninth of it (RaR-Implicit of arXiv:2507.17746, whose judge
            rates from 1 to 10; a single digit is our choice).
        clip: False: the reward may leave [0, 1]; its outcome is then `scored`. HealthBench clips only the mean over
            prompts.
    Raises:
        BadOption: an option is invalid, or the rubric cannot be graded with this judge.
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
        Example(completion="Soup and tea.", reference=_POINTS),
        Example(completion="Soup and tea!", reference=_POINTS, outcome=Outcome.PARTIAL),
        Example(completion="Tea!", reference=_POINTS, outcome=Outcome.INCORRECT),
    )

    @classmethod
    def parts_in(cls, options: Mapping[str, JSON]) -> Sequence[JSON]:
        code = options.get("code")
        return [options.get("judge"), *([] if code is None else [{"verifier": "code", "options": code}])]

    @classmethod
    def no_looser(cls, option: str, value: JSON, bound: JSON) -> bool:
        """Return True if a row may set an option to `value`: a rubric as a list, but not as a file.

        The options of judge and code are checked by their own verifiers.
        """
        return option in ("judge", "code") or (option == "rubric" and isinstance(value, list)) or value == bound

    def __init__(
        self,
        *,
        rubric: list[JSON] | str | None = None,
        judge: JSON = None,
        code: dict[str, JSON] | None = None,
        criteria_per_call: int = 1,
        aggregate: str = "explicit",
        clip: bool = True,
    ) -> None:
        super().__init__(())
        if not 1 <= criteria_per_call <= MAX_QUESTIONS:
            raise BadOption(f"criteria_per_call must be from 1 to {MAX_QUESTIONS}; got {criteria_per_call}.")
        if aggregate not in AGGREGATES:
            raise BadOption(f"aggregate must be one of {', '.join(AGGREGATES)}; got {aggregate!r}.")
        self._per_call, self._implicit, self._clip = criteria_per_call, aggregate == "implicit", clip
        self.grade_seconds = 600.0  # if one worker decides all criteria; in the pool each has its own limit
        self._judge = None if judge is None else part_from(judge, where="judge")
        if self._per_call > 1 and self._judge and not getattr(self._judge.made, "checklists", False):
            raise BadOption(
                f"criteria_per_call must be 1: this judge answers one question per call; got {criteria_per_call}."
                " Use judge, or judge-model with engine vllm."
            )
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
        """True if no judge is set, so that every criterion is decided by a rule."""
        return not self.injectable

    def any_in_process(self) -> bool:
        """Return True: each criterion is a separate row of the pool, with its own limits."""
        return True

    def criteria_of(self, reference: JSON) -> tuple[Criterion, ...]:
        """Return the criteria that grade a row: those of the option `rubric`, otherwise those of the reference.

        Raises:
            BadReference: the reference is not a rubric.
        """
        return self._criteria if self._criteria is not None else parse_rubric_text(json.dumps(reference))

    def parts_of(self, row: GradingRow) -> Sequence[Part]:
        return self._parts(self.criteria_of(row.reference))

    def _parts(self, criteria: Sequence[Criterion]) -> list[Part]:
        """Build a part for each criterion or checklist, and one for each fallback."""
        if self._implicit:
            return [self._judged_part(OVERALL, overall_question(criteria))]
        listed = [*leaves(criteria)]
        parts: list[Part] = []
        for chunk in self._chunks(listed):
            if len(chunk) > 1:
                parts.append(self._judged_part(_chunk_name(chunk), {"questions": [one.spec for one in chunk]}))
            else:
                parts.append(self._part(chunk[0], chunk[0].name))
        return parts + [self._part(one.fallback, one.name + BACK) for one in listed if one.fallback]

    def _chunks(self, listed: Sequence[Criterion]) -> Iterator[Sequence[Criterion]]:
        """Yield the criteria of each part: the others one by one, then judged ones, `criteria_per_call` at a time."""
        judged = [one for one in listed if one.kind == "judged"]
        for one in listed:
            if one.kind != "judged":
                yield [one]
        for at in range(0, len(judged), self._per_call):
            yield judged[at : at + self._per_call]

    def _judged_part(self, name: str, given: JSON) -> Part:
        return self._part(Criterion(name=name, kind="judged", spec=given), name)

    def _part(self, criterion: Criterion, name: str) -> Part:
        verifier, given = "criterion", criterion.spec
        options: Mapping[str, JSON] = {}
        if criterion.kind == "judged":
            if self._judge is None:
                raise BadReference(f"{name} needs a judge, and none is set. Set the option judge (see docs/judges.md).")
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
        """Return False: the verdict shows every criterion."""
        return False

    def grade(self, row: GradingRow) -> Verdict:
        return self.grade_batch([row])[0]

    def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        """Grade rows, with all criteria of one verifier in one batch: a judge is called for them concurrently."""
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
        criteria = self.criteria_of(row.reference)
        if self._implicit:
            overall = verdicts[OVERALL]
            components = {} if overall.reward is None else {OVERALL: overall.reward}
            return replace(overall, version=self.version, components=components)
        apart = dict(verdicts)
        for chunk in self._chunks([*leaves(criteria)]):
            if len(chunk) > 1:
                apart |= taken_apart(chunk, apart.pop(_chunk_name(chunk)))
        return replace(weigh(criteria, apart, clip=self._clip), version=self.version)


def _chunk_name(chunk: Sequence[Criterion]) -> str:
    return f"{chunk[0].name} to {chunk[-1].name} (checklist)"


def taken_apart(criteria: Sequence[Criterion], whole: Verdict) -> dict[str, Verdict]:
    """Split the verdict on a checklist into one for each criterion, by name.

    Without one answer for each criterion (a fault, an empty text), the whole verdict is that of each criterion.
    """
    answers, share = whole.detail.get("answers"), whole.seconds / len(criteria)
    if not isinstance(answers, list) or len(answers) != len(criteria):
        return {one.name: replace(whole, seconds=share) for one in criteria}
    found: dict[str, Verdict] = {}
    for one, answer in zip(criteria, answers, strict=True):
        detail = dict(answer) if isinstance(answer, dict) else {}
        reward, reason = detail.pop("reward", 0.0), detail.pop("reason", "")
        verdict = graded(float(str(reward)), str(reason))
        found[one.name] = replace(verdict, detail={**verdict.detail, **detail}, verifier=whole.verifier)
    first, called = criteria[0].name, {key: whole.detail[key] for key in ("tokens", "cost") if key in whole.detail}
    found[first] = replace(found[first], detail={**found[first].detail, **called})  # tokens of a call count once
    return {name: replace(verdict, seconds=share) for name, verdict in found.items()}


def overall_question(criteria: Sequence[Criterion]) -> JSON:
    """Build one question with ten levels for a whole rubric (aggregate implicit).

    Raises:
        BadReference: a criterion is not judged, or has a gate, a penalty or a fallback.
    """
    for one in criteria:
        if one.kind != "judged" or one.gate or one.penalty or one.fallback:
            raise BadReference(
                f"{one.name}: with aggregate implicit every criterion must be judged, without gate, penalty or"
                " fallback. Set aggregate to explicit."
            )
    listed = [f"{at}. (weight {one.value:g}) {_text_of(one.spec)}" for at, one in enumerate(criteria, 1)]
    question = (
        "How well does the completion meet this rubric as a whole? Each point counts by its weight. A point of negative"
        " weight names a fault: a completion that has the fault gets a lower level.\n" + "\n".join(listed)
    )
    texts = {0: "It meets nothing of the rubric.", 9: "It meets all of the rubric and has none of the faults."}
    levels: list[JSON] = [
        {"level": level, "description": texts.get(level, f"It meets about {level} ninths of the rubric by weight.")}
        for level in range(10)
    ]
    return {"question": question, "levels": levels}


def _text_of(spec: JSON) -> str:
    return Question.from_json(spec).question


def _as_option(rubric: list[JSON]) -> tuple[Criterion, ...]:
    try:
        return parse_rubric(rubric)
    except BadReference as error:
        raise BadOption(f"rubric: {error}") from error


__all__ = ["CriterionPart", "Rubric", "overall_question", "taken_apart"]
