"""The program, or the predicted value, of a completion."""

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
"""Names that a fence behind prose may announce."""

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
    """The program of a completion; nothing inside `<think>` counts. See `verifiers.code.choice`.

    Args:
        completion: as the model wrote it.
        block: last or first (of the fenced blocks that say they are Python; of those that say nothing, where none
            does), or whole (the completion as it stands).
        wanted: names of which the program has to define one. A block that defines none of them, such as an example of
            its use, is passed over for one that does.
        reads: the program is one that has something to read on standard input.
        language: of the program; Python where it is None.
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
    """What the fenced blocks of a completion without a usable one are, in words; empty where there is none.

    Example:
        >>> other_languages("```go\\npackage main\\n```")
        'the only fenced block is go'
    """
    found = [block.language for block in fenced_blocks(without_thinking(completion, FENCES), FENCES)]
    names = ", ".join(sorted({name for name in found if name}))
    return "" if not names else f"the only fenced block is {names}" if len(found) == 1 else f"its blocks are {names}"


def predicted(completion: str, entry_point: str, what: str) -> str | None:
    """The value that a completion predicts, as a Python expression: an output, or a call with an input.

    Taken from the last `[ANSWER]...[/ANSWER]`, else the last fenced block, else the last line that is not blank.
    `assert f(...) == ...` gives its side that is asked for.
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
    """The encoded value of a literal expression, None where it is no literal."""
    try:
        return wire.encode(ast.literal_eval(expression))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def literal_arguments(call: str) -> Mapping[str, JSON] | None:
    """The encoded args and kwargs of a call whose arguments are literals, else None."""
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
