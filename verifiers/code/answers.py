"""The program, or the predicted value, of a completion."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from verifiers.answers.find import strip_thinking
from verifiers.code.guest import wire
from verifiers.verdict import JSON

FENCE = re.compile(r"^([ \t]*+)(`{3,}+|~{3,}+)[ \t]*+([\w+#.-]*+)[^\n]*+\n", re.MULTILINE)
LANGUAGES = ("python", "py", "python3")
DEFINED = re.compile(r"^(?:(?:async[ \t]+)?def|class)[ \t]+(\w+)|^(\w+)[ \t]*(?::[^=\n]*)?=(?!=)", re.MULTILINE)
ANSWER_TAG = re.compile(r"\[ANSWER\](.*?)\[/ANSWER\]", re.DOTALL)
MAX_LITERAL = 20_000


class Block(NamedTuple):
    """A fenced block."""

    language: str
    content: str


def fenced_blocks(text: str) -> list[Block]:
    """Every fenced block in order, without the indentation of its fence; a last one may lack its closing fence.

    Example:
        >>> fenced_blocks("so:\\n```python\\nx = 1\\n```\\nprints\\n```\\n1\\n```")
        [Block(language='python', content='x = 1\\n'), Block(language='', content='1\\n')]
    """
    found: list[Block] = []
    position = 0
    while opening := FENCE.search(text, position):
        indent, fence, language = opening.groups()
        closing = re.compile(rf"^[ \t]*+{re.escape(fence)}[ \t]*+\r?$", re.MULTILINE).search(text, opening.end())
        content = text[opening.end() : closing.start() if closing else len(text)]
        if indent:
            content = re.sub(rf"^{indent}", "", content, flags=re.MULTILINE)
        found.append(Block(language.lower(), content))
        position = closing.end() if closing else len(text)
    return found


def extract_program(completion: str, block: str, wanted: Collection[str] = ()) -> str | None:
    """The program of a completion; nothing inside `<think>` counts.

    Args:
        block: last or first (of the fenced blocks that say they are Python; of those that say nothing, where none
            does), or whole (the completion as it stands).
        wanted: names of which the program has to define one. A block that defines none of them, such as an example of
            its use, is passed over for one that does.
    """
    text = strip_thinking(completion)
    if block == "whole":
        return text
    blocks = fenced_blocks(text)
    programs = [found.content for found in blocks if found.language in LANGUAGES]
    programs = programs or [found.content for found in blocks if not found.language]
    programs = [program for program in programs if defines(program, wanted)] or programs
    if not programs:
        return None
    return programs[-1] if block == "last" else programs[0]


def defines(code: str, names: Collection[str]) -> bool:
    """Whether a program defines one of the names itself, at its top level.

    Example:
        >>> defines("def f(x): return x", ["f", "g"]), defines("print(f(1))", ["f"])
        (True, False)
    """
    found = DEFINED.finditer(code)
    return any((match.group(1) or match.group(2)) in names for match in found)


def predicted(completion: str, entry_point: str, what: str) -> str | None:
    """The value that a completion predicts, as a Python expression: an output, or a call with an input.

    Taken from the last `[ANSWER]...[/ANSWER]`, else the last fenced block, else the last line that is not blank.
    `assert f(...) == ...` gives its side that is asked for.
    """
    text = strip_thinking(completion)
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
