"""References that list several right answers: how they are written, and how their verdicts are combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from verifiers.errors import BadReference
from verifiers.verdict import JSON, Outcome, Verdict

ANY = "any"
"""Only key of a reference object that lists alternatives, for every verifier: {"any": [...]}."""
MAX_ALTERNATIVES = 64
"""Most alternatives of one reference (our choice): each one is graded, and a row has a single time limit."""
PLAIN = frozenset({"string", "number", "integer", "boolean"})
"""Types of a JSON schema. If a reference can only have these types, a list of them can only mean alternatives."""
UNGRADED = (Outcome.VERIFIER_ERROR, Outcome.LIMIT_EXCEEDED)


def alternatives(reference: JSON, schema: Mapping[str, JSON]) -> Sequence[JSON] | None:
    """Return the alternatives that a reference lists, any of which is right, or None if it is a single answer.

    Args:
        reference: {"any": [...]} lists alternatives for every verifier. A plain list does so only if the schema allows
            nothing but text, numbers and booleans; otherwise a list is one answer.
        schema: the verifier's `reference_schema`.
    Raises:
        BadReference: the list is empty, has more than MAX_ALTERNATIVES entries, or one of them is itself a list.

    Example:
        >>> alternatives(["2", "two"], {"type": "string"}), alternatives("2", {"type": "string"})
        (['2', 'two'], None)
        >>> alternatives(["2", "two"], {}), alternatives({"any": [[1], [2]]}, {})
        (None, [[1], [2]])
    """
    if isinstance(reference, dict) and reference.keys() == {ANY} and isinstance(listed := reference[ANY], list):
        if any(isinstance(one, dict) and one.keys() == {ANY} for one in listed):
            raise BadReference(f'an alternative of {{"any": [...]}} must be one answer; got {str(listed)[:80]}.')
    elif isinstance(reference, list) and _is_plain(schema):
        listed = reference
        odd = next((one for one in listed if not isinstance(one, str | int | float)), "")
        if not isinstance(odd, str):
            raise BadReference(f"each of several reference answers must be text or a number; got {str(odd)[:80]}.")
    else:
        return None
    if not 0 < len(listed) <= MAX_ALTERNATIVES:
        raise BadReference(f"there must be 1 to {MAX_ALTERNATIVES} reference answers; got {len(listed)}.")
    return listed


def _is_plain(schema: Mapping[str, JSON]) -> bool:
    types = schema.get("type")
    named = types if isinstance(types, list) else [types]
    return bool(named) and all(isinstance(one, str) and one in PLAIN for one in named)


def any_right(verdicts: Sequence[Verdict]) -> Verdict:
    """Combine the verdicts on one completion, one verdict per alternative reference, into one verdict.

    The best verdict is returned: a right one, or else the one with the highest reward. Verdicts of bad references are
    ignored, unless all are bad. If no alternative is right and one could not be graded, that ungraded verdict is
    returned: its alternative might have been right.
    been right.
    """
    usable = [verdict for verdict in verdicts if verdict.outcome is not Outcome.BAD_REFERENCE]
    if not usable:
        return replace(verdicts[0], seconds=sum(verdict.seconds for verdict in verdicts))
    ungraded = [verdict for verdict in usable if verdict.outcome in UNGRADED]
    scored = [verdict for verdict in usable if verdict.outcome not in UNGRADED]
    best = max(scored, key=_worth, default=None)
    if best is None or (ungraded and not best.right):
        best = ungraded[0]
    detail: dict[str, JSON] = {**best.detail, "alternatives": len(verdicts), "alternative": verdicts.index(best)}
    return replace(best, detail=detail, seconds=sum(verdict.seconds for verdict in verdicts))


def _worth(verdict: Verdict) -> tuple[bool, float, bool]:
    reward = verdict.reward if verdict.reward is not None else float("-inf")
    return verdict.right, reward, verdict.outcome is not Outcome.NO_ANSWER


__all__ = ["ANY", "MAX_ALTERNATIVES", "alternatives", "any_right"]
