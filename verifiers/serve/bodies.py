"""Request bodies: untrusted JSON to rows, or a refusal with a short reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from pydantic_core import from_json

from verifiers.base import GradingRow
from verifiers.jsonl import is_list, is_object
from verifiers.verdict import JSON

ECHO = 80
"""Most characters of a client's input that an answer repeats."""
DETAIL = 300
"""Most characters of the reason in a refusal."""
CHOSEN = ("verifier", "options")
MAX_OPTIONS = 200
"""Most options of a verifier."""
ROW = ("completion", "reference", "prompt", "info")


class Refused(Exception):
    """A request is refused, with a 4xx status or 503 and the reason."""

    def __init__(self, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(status, detail)
        self.status, self.headers = status, headers
        self.detail = detail if len(detail) <= DETAIL else f"{detail[:DETAIL]} ..."


class Asked(NamedTuple):
    """Content of a request: a verifier with its options, and the rows to grade."""

    verifier: str
    options: Mapping[str, JSON]
    rows: list[GradingRow]


def parsed(body: bytes) -> dict[str, JSON]:
    """Parse a body that must be a JSON object.

    The result contains no unpaired surrogates. Numbers may still be infinite; `_finite` rejects them later.

    Raises:
        Refused: 422, it is not a JSON object in UTF-8.
    """
    try:
        found: JSON = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(422, f"the body must be JSON in UTF-8: {error}.") from error
    if not is_object(found):
        raise Refused(422, f"the body must be a JSON object; got {echo(found)}.")
    return found


def one_row(given: dict[str, JSON]) -> Asked:
    """Read the body of /v1/grade; raise Refused (422) if it is malformed."""
    _keys(given, (*CHOSEN, *ROW), "the body")
    return Asked(*_chosen(given), [_row(given, "the body")])


def many_rows(given: dict[str, JSON]) -> Asked:
    """Read the body of /v1/grade_batch; raise Refused (422) if it is malformed."""
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
    """Read the body of /v1/check_reference as a row without a completion; raise Refused (422) if it is malformed."""
    _keys(given, (*CHOSEN, "reference"), "the body")
    return Asked(*_chosen(given), [GradingRow(completion="", reference=_finite(given.get("reference"), "reference"))])


def echo(value: JSON) -> str:
    """Return a short form of a client's value, for the reason of a refusal."""
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
        raise Refused(422, f"there must be at most {MAX_OPTIONS} options; got {len(options)}.")
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
    """Return the value; raise Refused (422) if it contains a number that is not finite."""
    left = [value]
    while left:
        inner = left.pop()
        if isinstance(inner, float):
            if not math.isfinite(inner):
                raise Refused(422, f"{where} must contain only finite numbers; got {inner}.")
        elif isinstance(inner, dict):
            left += inner.values()
        elif isinstance(inner, list):
            left += inner
    return value
