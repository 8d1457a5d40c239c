"""`criterion`: one criterion that a program decides, in a worker process, which is killed if a pattern never ends."""

from __future__ import annotations

import functools
import re

from verifiers.answers.find import strip_thinking
from verifiers.answers.json_schema import JsonSchema
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadReference
from verifiers.jsonl import is_object
from verifiers.rubric.criteria import CHECKED, Criterion, contains_spec, regex_spec
from verifiers.verdict import JSON, Outcome, Verdict, fixed, graded

QUOTED = re.compile(r'"([^"\n]+)"|“([^”\n]+)”|«([^»\n]+)»')


class CheckedCriterion(Verifier):
    """Verifier of one criterion (contains, regex, length, json_schema or citation) on the text outside `<think>`."""

    name = "criterion"
    grade_seconds = 5.0
    examples = (
        Example(completion="It is in Paris.", reference={"contains": "Paris"}),
        Example(completion="<think>Paris</think>Lyon.", reference={"contains": "Paris"}, outcome=Outcome.INCORRECT),
        Example(
            completion='It says "the cat sat on the mat".',
            reference={"citation": {"min": 1, "words": 3}},
            prompt="Once the cat sat on the mat.",
        ),
        Example(
            completion='It says "the dog sat on the mat".',
            reference={"citation": {"min": 1, "words": 3}},
            prompt="Once the cat sat on the mat.",
            outcome=Outcome.INCORRECT,
        ),
    )
    reference_schema = {"type": "object", "properties": {kind: {} for kind in CHECKED}}

    def check_reference(self, reference: JSON) -> None:
        criterion = _read(reference)
        if criterion.kind == "json_schema":
            _schema_verifier().check_reference(criterion.spec)

    def grade(self, row: GradingRow) -> Verdict:
        criterion = _read(row.reference)
        text = strip_thinking(row.completion)
        if criterion.kind == "contains":
            return contains(text, criterion.spec)
        if criterion.kind == "regex":
            return matches(text, criterion.spec)
        if criterion.kind == "length":
            return has_length(text, criterion.spec)
        if criterion.kind == "citation":
            return cites(text, row.prompt, criterion.spec)
        return _schema_verifier().grade(GradingRow(completion=row.completion, reference=criterion.spec))


@functools.cache
def _schema_verifier() -> JsonSchema:
    return JsonSchema()


def _read(reference: JSON) -> Criterion:
    criterion = Criterion.from_json(reference, number=1)
    if criterion.kind not in CHECKED:
        raise BadReference(f"criterion must be one of {', '.join(CHECKED)}; put {criterion.kind} into a rubric.")
    return criterion


def contains(text: str, spec: JSON) -> Verdict:
    """Grade the texts that a completion contains, up to white space.

    0 if it contains one of `none`, or lacks all of `any`; otherwise the share of `all` that it contains.
    """
    wanted = contains_spec(spec, "contains")
    fold = isinstance(spec, dict) and spec.get("ignore_case") is True
    folded = " ".join(text.split())
    folded = folded.casefold() if fold else folded

    def occurs(part: str) -> bool:
        part = " ".join(part.split())
        return (part.casefold() if fold else part) in folded

    forbidden = [part for part in wanted["none"] if occurs(part)]
    if forbidden:
        return fixed(Outcome.INCORRECT, f"contains {forbidden[0]!r}", evidence=forbidden[0])
    if wanted["any"] and not any(map(occurs, wanted["any"])):
        return fixed(Outcome.INCORRECT, f"contains none of {', '.join(map(repr, wanted['any']))}"[:300])
    missing = [part for part in wanted["all"] if not occurs(part)]
    if not missing:
        found = next((part for part in (*wanted["all"], *wanted["any"]) if occurs(part)), "")
        return fixed(Outcome.CORRECT, "contains what it must", evidence=found)
    share = 1 - len(missing) / len(wanted["all"])
    verdict = graded(share, f"lacks {', '.join(map(repr, missing))}"[:300])
    return verdict


def matches(text: str, spec: JSON) -> Verdict:
    """Grade the number of matches of a pattern: right from `least` to `most`."""
    pattern, least, most = regex_spec(spec, "regex")
    found = 0
    first = ""
    for match in pattern.finditer(text):
        first = first or match.group()[:200]
        found += 1
        if found > most:
            break
    outcome = Outcome.CORRECT if least <= found <= most else Outcome.INCORRECT
    wanted = f"{least:g}" if most == float("inf") else f"{least:g} to {most:g}"
    return fixed(outcome, f"the pattern matches {found} times; wanted {wanted}", evidence=first)


def has_length(text: str, spec: JSON) -> Verdict:
    """Grade the length of a text in words, characters or lines: right from `min` to `max`."""
    unit = str(spec.get("unit", "words")) if is_object(spec) else "words"
    stripped = text.strip()
    found = {
        "words": len(stripped.split()),
        "characters": len(stripped),
        "lines": len(stripped.splitlines()),
    }[unit]
    low, high = _number(spec, "min", 0), _number(spec, "max", float("inf"))
    outcome = Outcome.CORRECT if low <= found <= high else Outcome.INCORRECT
    wanted = f"{low:g} or more" if high == float("inf") else f"{low:g} to {high:g}"
    return fixed(outcome, f"{found} {unit}; wanted {wanted}")


def cites(text: str, prompt: str | None, spec: JSON) -> Verdict:
    """Grade the quotations of a text: right if each occurs in the prompt, up to white space, and there are enough.

    Quotations of fewer than `words` words are ignored. A single invented quotation gives 0.

    Raises:
        BadReference: there is no prompt.
    """
    if prompt is None:
        raise BadReference("citation needs the prompt; this row has none.")
    least, words = int(_number(spec, "min", 1)), int(_number(spec, "words", 3))
    source = " ".join(prompt.split())
    quotes = [" ".join("".join(groups).split()) for groups in QUOTED.findall(text)]
    quotes = [quote for quote in quotes if len(quote.split()) >= words]
    invented = next((quote for quote in quotes if quote.strip(" .,;:!?…") not in source), None)
    if invented is not None:
        return fixed(Outcome.INCORRECT, "has a quotation that is not in the prompt", evidence=invented[:300])
    outcome = Outcome.CORRECT if len(quotes) >= least else Outcome.INCORRECT
    reason = f"{len(quotes)} quotations of {words} words or more, all in the prompt; wanted {least}"
    return fixed(outcome, reason, evidence=quotes[0][:300] if quotes else "")


def _number(spec: JSON, key: str, default: float) -> float:
    value = spec.get(key, default) if is_object(spec) else default
    return value if isinstance(value, int | float) else default


__all__ = ["CheckedCriterion", "cites", "contains", "has_length", "matches"]
