"""Criteria of a rubric. Each has a name, a value (weight, points or penalty) and one kind, which decides it:

contains:    text, or {all, any, none: [texts], ignore_case}
regex:       pattern, or {pattern, least, most} with the fewest and most matches allowed
length:      {unit: words | characters | lines, min, max}
json_schema: a JSON schema of the completion's JSON
math:        a reference of the math verifier
code:        a reference of the code verifier: tests that the completion's program must pass
citation:    {min, words}: at least `min` quotations of at least `words` words, all of which occur in the prompt
judged:      a question, or {question or statement, levels: [{level, description, reward}], reference_answer}
group:       {criteria: [criteria], by: points, all or any}: several criteria that count as one

With r a criterion's reward and v its weight or points, the reward of the rubric is sum(v r) / sum of the positive v,
minus the penalties that are met; 0 if a gate is shut.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from verifiers.errors import BadOption, BadReference
from verifiers.jsonl import is_list, is_object
from verifiers.judge.questions import QUESTION_SCHEMA, Question
from verifiers.verdict import JSON

CHECKED = ("contains", "regex", "length", "json_schema", "citation")
"""Kinds decided by the verifier `criterion`."""
DELEGATED = ("math", "code")
"""Kinds decided by the verifier of the same name."""
KINDS = (*CHECKED, *DELEGATED, "judged", "group")
VALUES = ("weight", "points", "penalty")
"""Keys of a criterion's value; it has at most one of them."""
FIELDS = ("name", *VALUES, "gate", "threshold", "fallback", "tags")
BY = ("points", "all", "any")
"""Ways to combine the rewards of a group: as in a rubric, the smallest, the largest."""
MAX_CRITERIA = 1000
"""Criteria of a rubric, including those in its groups."""

RUBRIC_SCHEMA: Mapping[str, JSON] = {
    "type": "array",
    "minItems": 1,
    "maxItems": MAX_CRITERIA,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "weight": {"type": "number", "minimum": 0},
            "points": {"type": "number"},
            "penalty": {"type": "number", "exclusiveMinimum": 0},
            "tags": {"type": "array", "items": {"type": "string"}},
            "group": {
                "type": "object",
                "required": ["criteria"],
                "properties": {"criteria": {"type": "array", "minItems": 1}, "by": {"enum": list(BY)}},
                "additionalProperties": False,
            },
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
    """One criterion of a rubric.

    Example:
        >>> Criterion.from_json({"contains": "Paris", "gate": True}, number=1).kind
        'contains'
    """

    name: str
    kind: str
    spec: JSON
    """Content of the criterion, in the format of its kind."""
    weight: float = 1.0
    """At least 0; ignored if there are points or a penalty."""
    points: float | None = None
    """Points for meeting it, in the same unit as weights; negative if meeting it costs points."""
    penalty: float = 0.0
    """Subtracted from the rubric's reward if it is met, whatever the other criteria are worth."""
    gate: bool = False
    """True: below `threshold` the whole rubric gives 0."""
    threshold: float = 1.0
    """Smallest reward that opens the gate."""
    fallback: Criterion | None = None
    """Criterion, of a kind that needs no judge, that decides if the judge fails."""
    tags: tuple[str, ...] = ()
    """Tags under which its points are also summed separately (HealthBench's axes)."""
    members: tuple[Criterion, ...] = ()
    """Criteria of a group."""
    by: str = "points"
    """How a group's rewards are combined: points, all (the smallest) or any (the largest)."""

    @property
    def value(self) -> float:
        """Factor of its reward in the sum; 0 for a penalty, which is subtracted afterwards."""
        return 0.0 if self.penalty else self.weight if self.points is None else self.points

    @property
    def counts_against(self) -> bool:
        """True if meeting it lowers the reward."""
        return self.value < 0 or self.penalty > 0

    @classmethod
    def from_json(cls, given: JSON, *, number: int, inside: bool = False) -> Criterion:
        """Parse one criterion. Without a name it is named by its kind and number, as in `regex_2`.

        Args:
            given: the criterion as JSON.
            number: its position in the rubric, from 1.
            inside: True if it is part of a group.
        Raises:
            BadReference: the JSON is not a valid criterion; the message says what is wrong.
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
        if inside and (gate or kind == "group" or "penalty" in given):
            raise BadReference(
                f"{name}: a gate, a penalty or a group must not be inside a group. Move it out of the group."
            )
        spec, values = given[kind], _values(given, name)
        if gate and (values.get("points", 0.0) < 0 or "penalty" in values):
            raise BadReference(f"{name}: a gate must have no negative points and no penalty. Remove them, or the gate.")
        check_spec(kind, spec, name)
        members, by = _members(spec, name) if kind == "group" else ((), "points")
        if kind == "judged":
            spec = Question.from_json(spec).to_json()
        elif kind == "group":
            spec = _group_json(members, by)
        return cls(
            name=name,
            kind=kind,
            spec=spec,
            weight=values.get("weight", 1.0),
            points=values.get("points"),
            penalty=values.get("penalty", 0.0),
            gate=gate,
            threshold=_number(given.get("threshold", 1.0), f"{name}: threshold", low=1e-9, high=1.0),
            fallback=_fallback(given.get("fallback"), kind, name),
            tags=_tags(given.get("tags"), name),
            members=members,
            by=by,
        )

    def to_json(self) -> dict[str, JSON]:
        """Return the criterion as JSON: the inverse of `from_json`."""
        found: dict[str, JSON] = {"name": self.name}
        if self.penalty:
            found["penalty"] = self.penalty
        elif self.points is not None:
            found["points"] = self.points
        else:
            found["weight"] = self.weight
        found[self.kind] = self.spec
        if self.gate:
            found |= {"gate": True, "threshold": self.threshold}
        if self.fallback is not None:
            found["fallback"] = {self.fallback.kind: self.fallback.spec}
        if self.tags:
            found["tags"] = [*self.tags]
        return found


def _values(given: Mapping[str, JSON], name: str) -> dict[str, float]:
    """Parse the weight, points or penalty; empty if there is none of them."""
    written = [value for value in VALUES if value in given]
    if len(written) > 1:
        raise BadReference(f"{name} must have at most one of {', '.join(VALUES)}; got {', '.join(written)}.")
    if "weight" in given:
        weight = given["weight"]
        if isinstance(weight, int | float) and not isinstance(weight, bool) and weight < 0:
            raise BadReference(
                f"{name}: weight must be a number at least 0; got {weight!r}. For a deduction set negative points."
            )
        return {"weight": _number(weight, f"{name}: weight", low=0.0)}
    if "points" in given:
        return {"points": _number(given["points"], f"{name}: points", low=-MOST_POINTS, high=MOST_POINTS)}
    if "penalty" in given:
        return {"penalty": _number(given["penalty"], f"{name}: penalty", low=1e-9)}
    return {}


def _tags(given: JSON, name: str) -> tuple[str, ...]:
    listed = [] if given is None else given
    if not is_list(listed) or not all(isinstance(tag, str) for tag in listed):
        raise BadReference(f"{name}: tags must be a list of texts; got {str(given)[:80]}.")
    return tuple(dict.fromkeys(str(tag) for tag in listed))


def _members(spec: JSON, name: str) -> tuple[tuple[Criterion, ...], str]:
    """Parse the criteria of a group and its `by`."""
    if not is_object(spec) or set(spec) - {"criteria", "by"}:
        raise BadReference(f"{name}: group must be an object of criteria, by; got {str(spec)[:80]}.")
    listed, by = spec.get("criteria"), spec.get("by", "points")
    if not is_list(listed) or not 1 <= len(listed) <= MAX_CRITERIA:
        raise BadReference(f"{name}: a group must have 1 to {MAX_CRITERIA} criteria; got {str(listed)[:80]}.")
    if by not in BY:
        raise BadReference(f"{name}: by must be one of {', '.join(BY)}; got {by!r}.")
    members = tuple(Criterion.from_json(one, number=at, inside=True) for at, one in enumerate(listed, 1))
    if by != "points" and any(is_object(one) and {*VALUES} & one.keys() for one in listed):
        raise BadReference(f"{name}: criteria of a group by {by} must have no weight or points: all count the same.")
    _check_names(members)
    _check_values(members, name)
    return members, str(by)


def _fallback(given: JSON, kind: str, name: str) -> Criterion | None:
    if given is None:
        return None
    if kind != "judged":
        raise BadReference(f"{name}: fallback is for judged criteria; a program decides this one. Remove it.")
    if not isinstance(given, dict) or len(given) != 1 or set(given) - {*CHECKED, *DELEGATED}:
        raise BadReference(f"{name}: fallback must have one of {', '.join((*CHECKED, *DELEGATED))}; got {given!r}.")
    ((instead, spec),) = given.items()
    check_spec(instead, spec, f"{name}: fallback")
    return Criterion(name=name, kind=instead, spec=spec)


def _number(value: JSON, what: str, *, low: float, high: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or value == math.inf:
        bounds = f"from {low:g} to {high:g}" if high < math.inf else f"at least {low:g}"
        raise BadReference(f"{what} must be a number {bounds}; got {value!r}.")
    return float(value)


def check_spec(kind: str, spec: JSON, name: str) -> None:
    """Check the content of a criterion. Math and code references are checked by their own verifiers.

    Args:
        kind: of the criterion.
        spec: its content.
        name: of the criterion, for the message.
    Raises:
        BadReference: the content is invalid; the message says what is wrong.
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
MOST_POINTS = 1e9
"""Largest absolute number of points of a criterion, so that their sums stay exact enough."""


def contains_spec(spec: JSON, name: str) -> dict[str, list[str]]:
    """Parse a contains criterion into {all, any, none}; a string alone is the only text of `all`.

    Raises:
        BadReference: the content is invalid, or names no text.
    """
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
    """Parse a regex criterion into the compiled pattern and its fewest and most matches.

    Without `least` one match is needed, or none if `most` is 0; without `most` it is unlimited.

    Raises:
        BadReference: the content or the pattern is invalid.
    """
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
    """Parse a rubric: a list of criteria, or {criteria: the list}.

    Raises:
        BadReference: a criterion or the rubric is invalid; the message names it and says what is wrong.
    """
    listed = given.get("criteria") if isinstance(given, dict) else given
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_CRITERIA:
        raise BadReference(f"a rubric must be a list of 1 to {MAX_CRITERIA} criteria; got {str(given)[:80]}.")
    found = tuple(Criterion.from_json(row, number=at) for at, row in enumerate(listed, 1))
    _check_names([*leaves(found), *(one for one in found if one.members)])
    if len([*leaves(found)]) > MAX_CRITERIA:
        raise BadReference(f"a rubric must have at most {MAX_CRITERIA} criteria, those of its groups included.")
    _check_values(found, "the rubric")
    return found


def leaves(criteria: Sequence[Criterion]) -> Iterator[Criterion]:
    """Yield the criteria with each group replaced by its members, which are named GROUP/NAME."""
    for one in criteria:
        if one.members:
            yield from (replace(member, name=f"{one.name}/{member.name}") for member in one.members)
        else:
            yield one


def _group_json(members: Sequence[Criterion], by: str) -> JSON:
    """Return a group as JSON; members have no value unless the group is `by: points`."""
    listed = [one.to_json() for one in members]
    kept: list[JSON] = [
        {key: value for key, value in one.items() if by == "points" or key not in VALUES} for one in listed
    ]
    return {"criteria": kept, "by": by}


def _check_names(criteria: Sequence[Criterion]) -> None:
    names = [criterion.name for criterion in criteria]
    twice = {name for name, count in Counter(names).items() if count > 1}
    if twice:
        raise BadReference(f"criteria must have different names; {min(twice)!r} is used twice.")


def _check_values(criteria: Sequence[Criterion], name: str) -> None:
    """Raise BadReference unless a criterion has a positive value or, without negative ones, a gate or a penalty.

    The reward is divided by the sum of the positive values, so negative ones need it.
    """
    if any(criterion.value > 0 for criterion in criteria):
        return
    if any(criterion.value < 0 for criterion in criteria):
        raise BadReference(
            f"{name} must have a criterion with weight or points above 0: negative points are divided by their sum. For"
            " deductions alone set penalty instead."
        )
    if not any(criterion.gate or criterion.penalty for criterion in criteria):
        raise BadReference(f"{name} must have a criterion with weight or points above 0, a gate or a penalty.")


def rubric_json(criteria: Sequence[Criterion]) -> list[JSON]:
    """Return the criteria as JSON: the inverse of `parse_rubric`."""
    return [criterion.to_json() for criterion in criteria]


@functools.lru_cache(maxsize=4096)
def parse_rubric_text(text: str) -> tuple[Criterion, ...]:
    """Parse a rubric in JSON text. Cached, since all completions of a prompt share their rubric."""
    return parse_rubric(json.loads(text))


def load_rubric(path: str) -> tuple[Criterion, ...]:
    """Read the criteria of a YAML or JSON file.

    Raises:
        BadOption: the file cannot be read, or is not a rubric.
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
    "leaves",
    "load_rubric",
    "parse_rubric",
    "parse_rubric_text",
    "regex_spec",
    "rubric_json",
]
