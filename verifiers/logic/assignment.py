"""Answers that give every name of some formulas a value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from verifiers.answers.json_schema import read_json
from verifiers.jsonl import is_object
from verifiers.logic.formula import FormulaError, Node, is_first_order
from verifiers.logic.notation import MAX_LENGTH
from verifiers.logic.signature import NUMBER, typed
from verifiers.verdict import JSON

PAIR = re.compile(r"([A-Za-z_][A-Za-z0-9_']*)\s*(?:=|:|\bis\b(?:\s+an?\b)?)\s*([A-Za-z]+|-?\d[\d./]*)")
TRUTHS: Mapping[str, bool] = {"true": True, "t": True, "yes": True, "false": False, "f": False, "no": False}


def read_assignment(answer: str) -> dict[str, str]:
    """Parse `p = true, x = 3`, lines `p: true` or a JSON object to name -> value.

    Raises:
        FormulaError: the text has anything else, or a name has two values.

    Example:
        >>> read_assignment("p = true, x: 3 and Ann is a knight")
        {'p': 'true', 'x': '3', 'Ann': 'knight'}
    """
    if len(answer) > MAX_LENGTH:
        raise FormulaError(f"an assignment may have {MAX_LENGTH} characters; this one has {len(answer)}.")
    if answer.strip().startswith("{") and '"' in answer:
        try:
            found = read_json(answer)
        except ValueError as error:
            raise FormulaError(f"not JSON: {error}.") from error
        if not is_object(found):
            raise FormulaError("it is not a JSON object.")
        return {name: str(value).lower() for name, value in found.items()}
    values: dict[str, str] = {}
    for name, value in PAIR.findall(answer):
        if values.setdefault(name, value) != value:
            raise FormulaError(f"{name} has two values.")
    rest = re.sub(r"\band\b|[\s,;.{}()\[\]$*\\&-]", "", PAIR.sub(" ", answer))
    if rest:
        raise FormulaError(f"{rest[:40]!r} is not `name = value`.")
    if not values:
        raise FormulaError("it gives no name a value.")
    return values


def sorts_of(formulas: Sequence[Node]) -> dict[str, type]:
    """Return the sort (bool or int) of each name in formulas over truth values and integers.

    Raises:
        FormulaError: a name has two sorts, or a formula is of first order.
    """
    symbols = typed(formulas).symbols
    if any(is_first_order(formula) for formula in formulas):
        raise FormulaError("an answer cannot be a model of first-order formulas; use kind consistency.")
    return {name: int if symbol.result == NUMBER else bool for name, symbol in symbols.items()}


def values_of(
    assignment: Mapping[str, str], sorts: Mapping[str, type], words: Mapping[str, JSON]
) -> dict[str, bool | int]:
    """Convert an assignment to the sorts of the formulas.

    Args:
        assignment: name -> value as text; names may differ in case if that is unambiguous.
        sorts: name -> bool or int; exactly these names must have a value.
        words: further words for values, for example {"knight": True}.
    Raises:
        FormulaError: a name is missing or unknown, has two values, or has a value of another sort.
    """
    folded = {name.lower(): name for name in sorts}
    unambiguous = len(folded) == len(sorts)
    named = {folded.get(name.lower(), name) if unambiguous else name: value for name, value in assignment.items()}
    if len(named) < len(assignment):
        raise FormulaError("it gives a name two values.")
    _same_names(named, sorts)
    meant = {word.lower(): value for word, value in words.items()}
    values: dict[str, bool | int] = {}
    for name, sort in sorts.items():
        text = named[name].lower()
        value = meant.get(text)
        if isinstance(value, int) and isinstance(value, sort):
            values[name] = value
        elif sort is bool and text in TRUTHS:
            values[name] = TRUTHS[text]
        elif sort is int and re.fullmatch(r"-?\d{1,15}", text):
            values[name] = int(text)
        else:
            what = "a truth value" if sort is bool else "a whole number"
            raise FormulaError(f"{name} must be {what}; got {named[name][:40]!r}.")
    return values


def _same_names(assignment: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    missing, extra = sorted(set(wanted) - set(assignment)), sorted(set(assignment) - set(wanted))
    if missing or extra:
        raise FormulaError(
            f"it gives {missing[0]} no value." if missing else f"{extra[0]} is not a name of the formulas."
        )


__all__ = ["read_assignment", "sorts_of", "values_of"]
