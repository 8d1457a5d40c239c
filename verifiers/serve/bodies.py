"""The bodies of requests: JSON of strangers into rows, or one short sentence on what is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from pydantic_core import from_json

from verifiers.base import GradingRow
from verifiers.jsonl import is_list, is_object
from verifiers.verdict import JSON

ECHO = 80
"""Characters of what a client sent that an answer repeats."""
DETAIL = 300
"""Characters of an answer that refuses."""
CHOSEN = ("verifier", "options")
MAX_OPTIONS = 200
"""Of a verifier."""
ROW = ("completion", "reference", "prompt", "info")


class Refused(Exception):
    """A request is answered by a status of 4xx or 503, and why."""

    def __init__(self, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(status, detail)
        self.status, self.headers = status, headers
        self.detail = detail if len(detail) <= DETAIL else f"{detail[:DETAIL]} ..."


class Asked(NamedTuple):
    """What is asked for: rows of a verifier."""

    verifier: str
    options: Mapping[str, JSON]
    rows: list[GradingRow]


def parsed(body: bytes) -> dict[str, JSON]:
    """The object of a body. No text of it holds half a surrogate; numbers may be infinite, see `_finite`.

    Raises:
        Refused: 422.
    """
    try:
        found: JSON = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(422, f"the body must be JSON in UTF-8: {error}.") from error
    if not is_object(found):
        raise Refused(422, f"the body must be a JSON object; got {echo(found)}.")
    return found


def one_row(given: dict[str, JSON]) -> Asked:
    """The body of /v1/grade."""
    _keys(given, (*CHOSEN, *ROW), "the body")
    return Asked(*_chosen(given), [_row(given, "the body")])


def many_rows(given: dict[str, JSON]) -> Asked:
    """The body of /v1/grade_batch."""
    _keys(given, (*CHOSEN, "rows"), "the body")
    rows = given.get("rows")
    if not is_list(rows):
        raise Refused(422, f"rows must be a list; got {echo(rows)}.")
    made: list[GradingRow] = []
    for at, row in enumerate(rows):
        if not is_object(row):
            raise Refused(422, f"rows[{at}] must be an object; got {echo(row)}.")
        _keys(row, ROW, f"rows[{at}]")
        made.append(_row(row, f"rows[{at}]"))
    return Asked(*_chosen(given), made)


def reference_only(given: dict[str, JSON]) -> Asked:
    """The body of /v1/check_reference."""
    _keys(given, (*CHOSEN, "reference"), "the body")
    return Asked(*_chosen(given), [GradingRow(completion="", reference=_finite(given.get("reference"), "reference"))])


def echo(value: JSON) -> str:
    """What a client sent, in short."""
    if isinstance(value, str):
        return repr(value[:ECHO])
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    return repr(value)[:ECHO]


def _keys(given: Mapping[str, JSON], known: tuple[str, ...], where: str) -> None:
    unknown = given.keys() - set(known)
    if unknown:
        raise Refused(422, f"{where} must have no key {echo(min(unknown))}; it takes {', '.join(known)}.")


def _chosen(given: Mapping[str, JSON]) -> tuple[str, Mapping[str, JSON]]:
    name, options = given.get("verifier"), given.get("options", {})
    if not isinstance(name, str):
        raise Refused(422, f"verifier must be a name; got {echo(name)}.")
    if not is_object(options):
        raise Refused(422, f"options must be an object; got {echo(options)}.")
    if len(options) > MAX_OPTIONS:
        raise Refused(422, f"options must be at most {MAX_OPTIONS}; got {len(options)}.")
    _finite(options, "options")
    return name, options


def _row(given: Mapping[str, JSON], where: str) -> GradingRow:
    completion, prompt, info = given.get("completion"), given.get("prompt"), given.get("info", {})
    if not isinstance(completion, str):
        raise Refused(422, f"completion of {where} must be text; got {echo(completion)}.")
    if prompt is not None and not isinstance(prompt, str):
        raise Refused(422, f"prompt of {where} must be text or null; got {echo(prompt)}.")
    if not is_object(info):
        raise Refused(422, f"info of {where} must be an object; got {echo(info)}.")
    _finite(info, f"info of {where}")
    reference = _finite(given.get("reference"), f"reference of {where}")
    return GradingRow(completion=completion, reference=reference, prompt=prompt, info=info)


def _finite(value: JSON, where: str) -> JSON:
    """The value, whose numbers are all finite."""
    left = [value]
    while left:
        inner = left.pop()
        if isinstance(inner, float):
            if not math.isfinite(inner):
                raise Refused(422, f"{where} must hold finite numbers alone; got {inner}.")
        elif isinstance(inner, dict):
            left += inner.values()
        elif isinstance(inner, list):
            left += inner
    return value
