"""A rubric is a list of criteria. Each has a name, a weight, maybe a gate, and one way to be decided:

contains:    text, or {all, any, none: [texts], ignore_case}
regex:       pattern, or {pattern, least, most}: how often it may match
length:      {unit: words | characters | lines, min, max}
json_schema: a JSON schema of the completion's JSON
math:        a reference of the math verifier
code:        a reference of the code verifier: tests that the completion's program passes
citation:    {min, words}: quotations of so many words or more, each of which stands in the prompt
judged:      a question, or {question, levels: [{level, description, reward}], reference_answer}
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from verifiers.errors import BadOption, BadReference
from verifiers.jsonl import is_list, is_object
from verifiers.judge.questions import QUESTION_SCHEMA, Question
from verifiers.verdict import JSON

CHECKED = ("contains", "regex", "length", "json_schema", "citation")
"""Decided by the verifier `criterion`."""
DELEGATED = ("math", "code")
"""Decided by the verifier of that name."""
KINDS = (*CHECKED, *DELEGATED, "judged")
FIELDS = ("name", "weight", "gate", "threshold", "fallback")
MAX_CRITERIA = 100

RUBRIC_SCHEMA: Mapping[str, JSON] = {
    "type": "array",
    "minItems": 1,
    "maxItems": MAX_CRITERIA,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "weight": {"type": "number", "minimum": 0},
            "gate": {"type": "boolean"},
            "threshold": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "fallback": {"type": "object", "minProperties": 1, "maxProperties": 1},
            "judged": {"anyOf": [{"type": "string"}, dict(QUESTION_SCHEMA)]},
            **{kind: {} for kind in (*CHECKED, *DELEGATED)},
        },
        "additionalProperties": False,
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One criterion.

    Example:
        >>> Criterion.from_json({"contains": "Paris", "gate": True}, number=1).kind
        'contains'
    """

    name: str
    kind: str
    spec: JSON
    """What decides it, in the form of its kind."""
    weight: float = 1.0
    gate: bool = False
    """A must-have: below its threshold the whole rubric gives 0."""
    threshold: float = 1.0
    """Reward that opens the gate."""
    fallback: Criterion | None = None
    """Decides where the judge cannot; of a kind that needs no judge."""

    @classmethod
    def from_json(cls, given: JSON, *, number: int) -> Criterion:
        """Read one criterion; its name is its kind and number where it has none.

        Raises:
            BadReference: it is none; says what is wrong.
        """
        where = f"criterion {number}"
        if not isinstance(given, dict):
            raise BadReference(f"{where} must be an object; got {str(given)[:80]}.")
        unknown = set(given) - set(FIELDS) - set(KINDS)
        if unknown:
            raise BadReference(f"{where} has an unknown key {min(unknown)!r}; known: {', '.join((*FIELDS, *KINDS))}.")
        kinds = [kind for kind in KINDS if kind in given]
        if len(kinds) != 1:
            raise BadReference(
                f"{where} must have exactly one of {', '.join(KINDS)}; got {', '.join(kinds) or 'none'}."
            )
        (kind,) = kinds
        name = given.get("name") or f"{kind}_{number}"
        if not isinstance(name, str):
            raise BadReference(f"{where}: name must be a string; got {name!r}.")
        gate = given.get("gate", False)
        if not isinstance(gate, bool):
            raise BadReference(f"{name}: gate must be true or false; got {gate!r}.")
        spec = given[kind]
        check_spec(kind, spec, name)
        return cls(
            name=name,
            kind=kind,
            spec=Question.from_json(spec).to_json() if kind == "judged" else spec,
            weight=_number(given.get("weight", 1.0), f"{name}: weight", low=0.0),
            gate=gate,
            threshold=_number(given.get("threshold", 1.0), f"{name}: threshold", low=1e-9, high=1.0),
            fallback=_fallback(given.get("fallback"), kind, name),
        )

    def to_json(self) -> dict[str, JSON]:
        """The inverse of `from_json`."""
        found: dict[str, JSON] = {"name": self.name, "weight": self.weight, self.kind: self.spec}
        if self.gate:
            found |= {"gate": True, "threshold": self.threshold}
        if self.fallback is not None:
            found["fallback"] = {self.fallback.kind: self.fallback.spec}
        return found


def _fallback(given: JSON, kind: str, name: str) -> Criterion | None:
    if given is None:
        return None
    if kind != "judged":
        raise BadReference(f"{name}: fallback is for judged criteria; this one is decided by program.")
    if not isinstance(given, dict) or len(given) != 1 or set(given) - {*CHECKED, *DELEGATED}:
        raise BadReference(f"{name}: fallback must hold one of {', '.join((*CHECKED, *DELEGATED))}; got {given!r}.")
    ((instead, spec),) = given.items()
    check_spec(instead, spec, f"{name}: fallback")
    return Criterion(name=name, kind=instead, spec=spec)


def _number(value: JSON, what: str, *, low: float, high: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or value == math.inf:
        bounds = f"from {low:g} to {high:g}" if high < math.inf else f"at least {low:g}"
        raise BadReference(f"{what} must be a number {bounds}; got {value!r}.")
    return float(value)


def check_spec(kind: str, spec: JSON, name: str) -> None:
    """Refuse what can never be decided. Math and code references are checked by their own verifiers.

    Raises:
        BadReference: says what is wrong.
    """
    if kind == "contains":
        contains_spec(spec, name)
    elif kind == "regex":
        regex_spec(spec, name)
    elif kind in ("length", "citation"):
        ranges = {"length": ("unit", "min", "max"), "citation": ("min", "words")}[kind]
        if not isinstance(spec, dict) or set(spec) - set(ranges):
            raise BadReference(f"{name}: {kind} must be an object of {', '.join(ranges)}; got {str(spec)[:80]}.")
        if kind == "length" and (spec.get("unit", "words") not in UNITS or not {"min", "max"} & set(spec)):
            raise BadReference(f"{name}: length must have min or max, and a unit of {', '.join(UNITS)}; got {spec!r}.")
        for key in set(ranges) & set(spec) - {"unit"}:
            _number(spec[key], f"{name}: {key}", low=0.0)
    elif kind == "json_schema" and not isinstance(spec, dict | bool):
        raise BadReference(f"{name}: json_schema must be a schema; got {str(spec)[:80]}.")


UNITS = ("words", "characters", "lines")


def contains_spec(spec: JSON, name: str) -> dict[str, list[str]]:
    """{all, any, none} of a contains criterion."""
    given: JSON = {"all": [spec]} if isinstance(spec, str) else spec
    if not is_object(given) or set(given) - {"all", "any", "none", "ignore_case"}:
        raise BadReference(
            f"{name}: contains must be a text or an object of all, any, none, ignore_case; got {spec!r}."
        )
    found: dict[str, list[str]] = {}
    for key in ("all", "any", "none"):
        listed = given.get(key, [])
        found[key] = [text for text in listed if isinstance(text, str) and text] if is_list(listed) else []
        if not is_list(listed) or len(found[key]) < len(listed):
            raise BadReference(f"{name}: contains.{key} must be a list of texts; got {listed!r}.")
    if not any(found.values()):
        raise BadReference(f"{name}: contains must name at least one text.")
    return found


def regex_spec(spec: JSON, name: str) -> tuple[re.Pattern[str], float, float]:
    """Pattern, and how often it must and may match."""
    given: JSON = {"pattern": spec} if isinstance(spec, str) else spec
    if not is_object(given) or set(given) - {"pattern", "least", "most"}:
        raise BadReference(f"{name}: regex must be a pattern or an object of pattern, least, most; got {spec!r}.")
    pattern = given.get("pattern")
    if not isinstance(pattern, str):
        raise BadReference(f"{name}: regex must have a pattern; got {pattern!r}.")
    most = math.inf if given.get("most") is None else _number(given["most"], f"{name}: most", low=0.0)
    least = 1.0 if "least" not in given and most > 0 else _number(given.get("least", 0), f"{name}: least", low=0.0)
    try:
        return re.compile(pattern, re.MULTILINE), least, most
    except (re.error, RecursionError, OverflowError) as error:
        raise BadReference(f"{name}: regex must be a regular expression; got {pattern!r}: {error}.") from error


def parse_rubric(given: JSON) -> tuple[Criterion, ...]:
    """Criteria from JSON: the list, or {criteria: the list}.

    Raises:
        BadReference: says which criterion is wrong, and how.
    """
    listed = given.get("criteria") if isinstance(given, dict) else given
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_CRITERIA:
        raise BadReference(f"a rubric must be a list of 1 to {MAX_CRITERIA} criteria; got {str(given)[:80]}.")
    found = tuple(Criterion.from_json(row, number=at) for at, row in enumerate(listed, 1))
    names = [criterion.name for criterion in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise BadReference(f"criteria must have different names; {min(twice)!r} stands twice.")
    if not any(criterion.weight for criterion in found) and not any(criterion.gate for criterion in found):
        raise BadReference("a rubric must have a criterion of weight above 0, or a gate.")
    return found


def rubric_json(criteria: Sequence[Criterion]) -> list[JSON]:
    """The inverse of `parse_rubric`."""
    return [criterion.to_json() for criterion in criteria]


@functools.lru_cache(maxsize=4096)
def parse_rubric_text(text: str) -> tuple[Criterion, ...]:
    """The criteria of a rubric in JSON text; parsed once, since a group's completions share their rubric."""
    return parse_rubric(json.loads(text))


def load_rubric(path: str) -> tuple[Criterion, ...]:
    """The criteria of a YAML or JSON file.

    Raises:
        BadOption: it cannot be read, or is no rubric.
    """
    import yaml

    from verifiers.plain_yaml import read_yaml_file

    try:
        return parse_rubric(cast("JSON", read_yaml_file(Path(path))))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, BadReference) as error:
        raise BadOption(f"rubric {path}: {error}") from error


__all__ = [
    "CHECKED",
    "DELEGATED",
    "KINDS",
    "RUBRIC_SCHEMA",
    "Criterion",
    "contains_spec",
    "load_rubric",
    "parse_rubric",
    "parse_rubric_text",
    "regex_spec",
    "rubric_json",
]
