"""Formats of instructions that a program checks: a prompt, with the ids and arguments of its instructions."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from tasks.inputs.formats import Format, UnfitRow
from tasks.inputs.values import before_reply, chat, from_json, is_chat, is_list, is_object, is_text, need

Row = Mapping[str, object]
MOST_CHARACTERS = 100_000
"""Limit on the length of instructions given as text."""


def is_ifeval(row: Row) -> bool:
    """Return True for a row with a list of instruction ids, and a column of their arguments."""
    return bool(row.get("instruction_id_list")) and "kwargs" in row and _asks(row)


def read_ifeval(row: Row) -> Row:
    """Read a row of IFEval. Null arguments are dropped. The lists of ids and arguments may be given as JSON text."""
    ids, kwargs = from_json(need(row, "instruction_id_list")), from_json(need(row, "kwargs"))
    return {**row, "prompt": _prompt(row), "reference": _reference([(ids, kwargs)])}


def is_constraints(row: Row) -> bool:
    """Return True for a row whose `ground_truth` is text with instruction ids and arguments."""
    held = row.get("ground_truth")
    return isinstance(held, str) and "instruction_id" in held and "kwargs" in held and _asks(row)


def read_constraints(row: Row) -> Row:
    """Read a row whose `ground_truth` is a list of {instruction_id, kwargs}, as JSON or as a Python literal.

    Each element may have one id or several.
    """
    found = _written(str(need(row, "ground_truth")))
    groups = [
        (one.get("instruction_id"), one.get("kwargs"))
        for one in (found if is_list(found) else [found])
        if is_object(one)
    ]
    return {**row, "prompt": _prompt(row), "reference": _reference(groups)}


def _written(text: str) -> object:
    """Parse JSON or a Python literal; no code is run."""
    try:
        return from_json(text)
    except UnfitRow:
        if len(text) > MOST_CHARACTERS:
            raise
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise UnfitRow(f"has text that must be a list of instructions: {error}; got {text[:60]!r}") from error


def _reference(groups: Sequence[tuple[object, object]]) -> dict[str, object]:
    every: list[object] = []
    arguments: list[object] = []
    for ids, kwargs in groups:
        listed, given = (ids, kwargs) if is_list(ids) else ([ids], [kwargs])
        if not is_list(given) or len(given) != len(listed):
            raise UnfitRow(f"must have one object of arguments for each of {len(listed)} ids; got {str(given)[:60]!r}")
        every += listed
        arguments += [_arguments(one) for one in given]
    if not every or not all(map(is_text, every)):
        raise UnfitRow(f"must name at least one instruction; got {str(every)[:60]!r}")
    return {"instruction_id_list": every, "kwargs": arguments}


def _arguments(given: object) -> dict[str, object]:
    """Return the arguments that are not null; an empty dict for None. Text is parsed as JSON."""
    found = from_json(given)
    if found is not None and not is_object(found):
        raise UnfitRow(f"must have arguments that are objects; got {str(found)[:60]!r}")
    return {name: value for name, value in (found or {}).items() if value is not None}


def _asks(row: Row) -> bool:
    return is_text(row.get("prompt")) or is_chat(row.get("prompt")) or is_chat(row.get("messages"))


def _prompt(row: Row) -> object:
    prompt = need(row, "prompt", "messages")
    return before_reply(chat(prompt)) if is_chat(prompt) else prompt


ASKED = "Say what 7 times 6 is, without a comma."
FORMATS: Sequence[Format] = (
    Format(
        name="ifeval",
        use="problems",
        told_by="instruction_id_list and kwargs, with a prompt",
        fits=is_ifeval,
        read=read_ifeval,
        example={
            "key": 1,
            "prompt": ASKED,
            "instruction_id_list": ["punctuation:no_comma", "keywords:existence"],
            "kwargs": [{"keywords": None}, {"keywords": ["times"]}],
        },
        source="https://huggingface.co/datasets/google/IFEval",
        verifier="instructions",
    ),
    Format(
        name="if_multi_constraints",
        use="problems",
        told_by="messages, and instruction_id and kwargs in the text of ground_truth",
        fits=is_constraints,
        read=read_constraints,
        example={
            "key": "a1",
            "messages": [{"role": "user", "content": ASKED}],
            "ground_truth": "[{'instruction_id': ['punctuation:no_comma'], 'kwargs': [None]}]",
            "dataset": "ifeval",
            "constraint_type": "multi",
            "constraint": "Use no comma.",
        },
        source="https://huggingface.co/datasets/allenai/IF_multi_constraints_upto5",
        verifier="instructions",
    ),
)

__all__ = ["FORMATS"]
