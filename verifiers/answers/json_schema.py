"""`json_schema`: the completion contains one JSON value that is valid under a JSON schema."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, cast

from verifiers.answers.find import strip_thinking
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadOption, BadReference
from verifiers.verdict import JSON, Outcome, Verdict, fixed

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

MAX_JSON = 1 << 20
"""Limit on the characters of the JSON text."""
MAX_DEPTH = 200
FENCE = re.compile(r"```\w*[ \t]*\n", re.IGNORECASE)

POINT: JSON = {
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "required": ["x"],
    "additionalProperties": False,
}


class JsonSchema(Verifier):
    """The JSON of the completion is valid under a schema (draft 2020-12), by default the reference.

    The JSON is the last `<answer>` or fenced block, otherwise the whole text outside `<think>`. References in the
    schema to other documents are not fetched.

    Args:
        schema: the schema of every row; None: the reference is the schema.
        strict: the text outside `<think>` must be only JSON.
    Raises:
        BadOption: schema is not a JSON schema.
    """

    name = "json_schema"
    reference_schema = {"type": ["object", "boolean"]}
    examples = (
        Example(completion='<think>one</think>{"x": 1}', reference=POINT, prompt="Give the point as JSON."),
        Example(completion='Here:\n```json\n{"x": 1}\n```', reference=POINT),
        Example(completion='{"x": "1"}', reference=POINT, outcome=Outcome.INCORRECT),
        Example(completion="x is 1", reference=POINT, outcome=Outcome.NO_ANSWER),
    )

    def __init__(self, *, schema: dict[str, JSON] | None = None, strict: bool = False) -> None:
        self._strict = strict
        self._given = schema
        self._known: tuple[str, Validator] | None = None
        if schema is not None:
            try:
                self._validator(schema)
            except BadReference as error:
                raise BadOption(str(error)) from error

    def check_reference(self, reference: JSON) -> None:
        if self._given is None:
            self._validator(reference)

    def _validator(self, schema: JSON) -> Validator:
        key = json.dumps(schema, sort_keys=True)
        if self._known is not None and self._known[0] == key:
            return self._known[1]
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError
        from referencing import Registry

        if not isinstance(schema, dict | bool):
            raise BadReference(f"reference must be a JSON schema; got {key[:80]}.")
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise BadReference(f"reference must be a JSON schema; {error.message[:200]}.") from error
        made = cast("Validator", Draft202012Validator(schema, registry=Registry()))  # an empty registry fetches nothing
        self._known = (key, made)
        return made

    def grade(self, row: GradingRow) -> Verdict:
        validator = self._validator(self._given if self._given is not None else row.reference)
        text = self._json_text(row.completion)
        if len(text) > MAX_JSON:
            return fixed(Outcome.LIMIT_EXCEEDED, f"JSON may have {MAX_JSON} characters; it has {len(text)}")
        try:
            value = read_json(text)
        except ValueError as error:
            begins = text.lstrip()[:1]
            outcome = Outcome.INCORRECT if begins and begins in '{["' else Outcome.NO_ANSWER
            return fixed(outcome, f"not JSON: {error}", answer=text[:200] if outcome is Outcome.INCORRECT else None)
        from referencing.exceptions import Unresolvable

        try:
            error = next(iter(validator.iter_errors(value)), None)  # pyright: ignore[reportArgumentType]
        except Unresolvable as fault:
            raise BadReference(f"the schema refers to something outside itself: {fault}") from fault
        if error is None:
            return fixed(Outcome.CORRECT, "valid", answer=text[:2000])
        place = "/".join(map(str, error.absolute_path)) or "the value"
        return fixed(Outcome.INCORRECT, f"at {place}: {error.message[:200]}", answer=text[:2000])

    def _json_text(self, completion: str) -> str:
        visible = strip_thinking(completion)
        if self._strict:
            return visible.strip()
        tagged = last_between(visible, "<answer>", "</answer>")
        text = visible if tagged is None else tagged
        fenced = last_fenced(text)
        return (text if fenced is None else fenced).strip()


def last_between(text: str, opening: str, closing: str) -> str | None:
    """Return the text between the last closing mark and the opening mark before it; None if there is no such pair."""
    end = text.rfind(closing)
    start = text.rfind(opening, 0, end) if end >= 0 else -1
    return text[start + len(opening) : end] if start >= 0 else None


def last_fenced(text: str) -> str | None:
    """Return the content of the last closed block of three backticks; None if there is none."""
    end = text.rfind("```")
    start = text.rfind("```", 0, end) if end >= 0 else -1
    mark = FENCE.match(text, start) if start >= 0 else None
    return text[mark.end() : end] if mark else None


def read_json(text: str, *, control_characters: bool = False) -> JSON:
    """Parse JSON as the standard defines it: no NaN, no duplicate key, nesting at most MAX_DEPTH.

    Args:
        text: the JSON text.
        control_characters: allow line breaks and other control characters in strings.
    Raises:
        ValueError: it is not such JSON.
    """
    depth = deepest = 0
    for char in text:
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    if deepest > MAX_DEPTH:
        raise ValueError(f"it may nest {MAX_DEPTH} deep; it nests {deepest} deep")
    strict = not control_characters
    value: JSON = json.loads(text, strict=strict, parse_constant=_no_constant, object_pairs_hook=_no_key_twice)
    return value


def _no_constant(name: str) -> JSON:
    raise ValueError(f"{name} is not JSON")


def _no_key_twice(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found
