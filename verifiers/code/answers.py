"""Extraction of the program, or of the predicted value, from a completion."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping

from verifiers.code.choice import chosen_program, defines
from verifiers.code.fences import BOM, PYTHON, fenced_blocks, parses, without_thinking
from verifiers.code.guest import wire
from verifiers.code.languages import LANGUAGES, Language
from verifiers.verdict import JSON

ANSWER_TAG = re.compile(r"\[ANSWER\](.*?)\[/ANSWER\]", re.DOTALL)
MAX_LITERAL = 20_000
FENCES = frozenset(name for row in LANGUAGES.values() for name in row.fences)
"""Language names that a fence after prose on its line may use."""

__all__ = [
    "defines",
    "extract_program",
    "fenced_blocks",
    "literal",
    "literal_arguments",
    "other_languages",
    "predicted",
]


def extract_program(
    completion: str,
    block: str,
    wanted: Collection[str] = (),
    *,
    reads: bool = False,
    language: Language | None = None,
) -> str | None:
    """Return the program of a completion, or None; nothing inside `<think>` counts. See `verifiers.code.choice`.

    Args:
        completion: as the model wrote it.
        block: "last" or "first" of the fenced blocks labelled with the language (of the unlabelled ones if there are
            none), or "whole" (the completion itself).
        wanted: names of which the program has to define one. A block that defines none of them, such as an example of
            its use, is passed over for one that does.
        reads: True if the program has something to read on standard input.
        language: of the program; None: Python.
    """
    text = without_thinking(completion, FENCES)
    if block == "whole":
        whole = completion.removeprefix(BOM)
        return whole if text != whole and language is None and parses(whole) else text
    names = PYTHON if language is None else language.fences
    blocks = fenced_blocks(text, {*FENCES, *names})
    programs = [found.content for found in blocks if found.language in names]
    programs = programs or [found.content for found in blocks if not found.language]
    if not programs:
        return None
    if language is not None:
        whole_ones = [code for code in programs if language.whole and re.search(language.whole, code)]
        return (whole_ones or programs)[-1 if block == "last" else 0]
    return chosen_program(programs, last=block == "last", wanted=wanted, reads=reads)


def other_languages(completion: str) -> str:
    """Return a sentence on the languages of a completion's fenced blocks when none is usable; empty if none is named.

    Example:
        >>> other_languages("```go\\npackage main\\n```")
        'the only fenced block is go'
    """
    found = [block.language for block in fenced_blocks(without_thinking(completion, FENCES), FENCES)]
    names = ", ".join(sorted({name for name in found if name}))
    return "" if not names else f"the only fenced block is {names}" if len(found) == 1 else f"its blocks are {names}"


def predicted(completion: str, entry_point: str, what: str) -> str | None:
    """Return the value that a completion predicts, as a Python expression, or None if there is none.

    Taken from the last `[ANSWER]...[/ANSWER]`, else the last fenced block, else the last line that is not blank.
    From `assert f(...) == ...` the side asked for is taken.

    Args:
        completion: as the model wrote it.
        entry_point: name of the function.
        what: "output" for a value, "input" for a call of the function.
    """
    text = without_thinking(completion)
    tags = ANSWER_TAG.findall(text)
    blocks = fenced_blocks(text)
    if tags:
        text = tags[-1]
    elif blocks:
        text = blocks[-1].content
    elif "\n" in text.strip():
        text = text.strip().rpartition("\n")[2]
    text = text.strip().removeprefix("`").removesuffix("`").strip()
    if not text or len(text) > MAX_LITERAL:
        return None
    try:
        tree = ast.parse(text.removeprefix("assert ").strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if isinstance(tree, ast.Compare) and len(tree.ops) == 1 and isinstance(tree.ops[0], ast.Eq):
        left_calls = isinstance(tree.left, ast.Call) and ast.unparse(tree.left.func) == entry_point
        tree = tree.comparators[0] if left_calls == (what == "output") else tree.left
    if what == "input" and not (isinstance(tree, ast.Call) and ast.unparse(tree.func) == entry_point):
        return f"{entry_point}({text})"
    return ast.unparse(tree)


def literal(expression: str) -> JSON | None:
    """Return the encoded value of a literal expression; None if it is not a literal."""
    try:
        return wire.encode(ast.literal_eval(expression))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def literal_arguments(call: str) -> Mapping[str, JSON] | None:
    """Return the encoded args and kwargs of a call; None if its arguments are not all literals."""
    try:
        tree = ast.parse(call, mode="eval").body
        assert isinstance(tree, ast.Call), call
        if any(keyword.arg is None for keyword in tree.keywords):
            return None
        return {
            "args": [wire.encode(ast.literal_eval(item)) for item in tree.args],
            "kwargs": {str(word.arg): wire.encode(ast.literal_eval(word.value)) for word in tree.keywords},
        }
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
