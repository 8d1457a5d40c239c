"""Fenced blocks of a completion as models write them: after prose, quoted, in lists, closed on a line of code."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from typing import NamedTuple

from verifiers.answers.find import strip_thinking

PYTHON = ("python", "py", "python3", "py3", "pypy", "pypy3", "cpython", "cpython3")
"""Fence labels of Python 3."""
BOM = "\ufeff"
OPENING = re.compile(r"^([^\n]*?)(?<![`~])(`{3,}+|~{3,}+)[ \t]*+([^\n`]*+)\n", re.MULTILINE)
QUOTE = re.compile(r"[ \t]*(?:>[ \t]?)+")
ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,3}[.)])[ \t]+")
LANGUAGE = re.compile(r"\{?[ \t]*\.?([\w+#.-]+)")
VERSION = re.compile(r"(?<=[a-z+])[\d.]+$")
TOKEN = re.compile(
    r"#[^\n]*|(?P<triple>'''|\"\"\")|'(?:[^'\\\n]|\\.)*+'?|\"(?:[^\"\\\n]|\\.)*+\"?|(?P<fence>`{3,}+|~{3,}+)", re.DOTALL
)
TRIPLE_END = {
    quote: re.compile(rf"(?:[^\\{quote[0]}]|\\.|{quote[0]}(?!{quote[1:]}))*+{quote}", re.DOTALL)
    for quote in ("'''", '"""')
}
FENCE_LINE = re.compile(r"^[ \t>]*(`{3,}+|~{3,}+)[ \t]*\r?$", re.MULTILINE)
FENCE_AT_END = re.compile(r"(?<=[^\s`])(`{3,}+)[ \t]*\r?$", re.MULTILINE)
COMMENT = re.compile(r"[ \t]*(?://|\*|#)")
THINKING = re.compile(r"[<\[◁]")
LONGEST_LEXED = 200_000
"""Most characters of a block that are tokenized as Python, to tell its fences from those in its strings."""


class Block(NamedTuple):
    """Fenced block."""

    language: str
    """Label of its fence, in lower case; empty if there is none."""
    content: str


class Span(NamedTuple):
    """Block with its position in a text."""

    block: Block
    start: int
    end: int
    closed: bool


def fenced_blocks(text: str, names: Collection[str] = PYTHON) -> list[Block]:
    """Return every fenced block in order, without its fence's indentation or quoting. The last one may be unclosed.

    A fence after prose opens a block if it names a language and the line ends there, or if it is bare and follows a
    colon. A fence inside a Python string closes nothing.

    Args:
        text: a completion without its reasoning.
        names: languages that a fence after prose may name.

    Example:
        >>> fenced_blocks("so:\\n```python\\nx = 1\\n```\\nprints\\n```\\n1\\n```")
        [Block(language='python', content='x = 1\\n'), Block(language='', content='1\\n')]
    """
    return [span.block for span in _spans(text, names)]


def without_thinking(completion: str, names: Collection[str] = PYTHON) -> str:
    """Remove the reasoning from a completion. A thinking tag inside a string or comment of a program is left alone.

    Example:
        >>> without_thinking("<think>a</think>\\n```python\\nx = '<think>'\\n```")
        "\\n```python\\nx = '<think>'\\n```"
    """
    completion = completion.lstrip(BOM)
    if strip_thinking(completion) == completion:
        return completion
    mark = next(chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in completion)
    parts: list[str] = []
    at = 0
    for span in _spans(completion, names):
        if span.closed and _tags_are_text(span.block):
            parts += [completion[at : span.start], THINKING.sub(rf"\g<0>{mark}", completion[span.start : span.end])]
            at = span.end
    return strip_thinking("".join([*parts, completion[at:]])).replace(mark, "")


def language_name(info: str) -> str:
    """Return the language named by the text after a fence, in lower case; empty if there is none.

    Example:
        >>> language_name("Python title=x"), language_name("{.cpp}"), language_name("c++17"), language_name("")
        ('python', 'cpp', 'c++', '')
    """
    found = LANGUAGE.match(info)
    name = found[1].lower().rstrip(".") if found else ""
    if name in PYTHON or name.startswith(("python2", "py2", "pypy2")):
        return name
    return VERSION.sub("", name)


def parses(code: str) -> bool:
    """Return True if a text parses as Python."""
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _tags_are_text(block: Block) -> bool:
    """Return True if a block contains thinking tags that are part of its program."""
    if strip_thinking(block.content) == block.content:
        return False
    if block.language in PYTHON or not block.language:
        return parses(block.content)
    lines = [line for line in block.content.split("\n") if strip_thinking(line) != line]
    return all(any(mark in line for mark in "\"'`") or COMMENT.match(line) for line in lines)


def _spans(text: str, names: Collection[str]) -> list[Span]:
    found: list[Span] = []
    position = 0
    while opening := OPENING.search(text, position):
        prefix, fence, info = opening.groups()
        language = language_name(info)
        if not _opens(prefix, fence, info.strip(), language, names):
            position = opening.end()
            continue
        quote = QUOTE.match(prefix)
        quoted = _quoted(text, opening.start(), prefix) if quote and quote.end() == len(prefix) else None
        if quoted is not None:
            inside, end = quoted
            found += [Span(span.block, opening.start(), end, span.closed) for span in _spans(inside, names)]
            position = end
            continue
        stop, end = _closing(text, opening.end(), fence, language, names)
        content = _content(text[opening.end() : stop], prefix.replace(BOM, ""))
        found.append(Span(Block(language, content), opening.start(), end, closed=stop < len(text)))
        position = end
    return found


def _opens(prefix: str, fence: str, info: str, language: str, names: Collection[str]) -> bool:
    """Return True if a fence opens a block; it always does at the start of a line, also in a quote or a list item."""
    before = prefix.replace(BOM, "")
    for marker in (QUOTE, ITEM):
        if (found := marker.match(before)) is not None:
            before = before[found.end() :]
    if not before.strip():
        return True
    if fence[0] == "~" or "```" in before:
        return False
    return language in names if info and info == info.split()[0] else not info and before.rstrip(" \t*_").endswith(":")


def _quoted(text: str, start: int, prefix: str) -> tuple[str, int] | None:
    """Return the content of the quote that begins at a line, and its end; None if the next line is not quoted."""
    levels = prefix.count(">")
    mark = re.compile(rf"[ \t]*(?:>[ \t]?){{1,{levels}}}")
    lines: list[str] = []
    position = start
    while position < len(text) and (found := mark.match(text, position)) is not None:
        end = text.find("\n", position) + 1 or len(text)
        lines.append(text[found.end() : end])
        position = end
    return ("".join(lines), position) if len(lines) > 1 else None


def _content(content: str, prefix: str) -> str:
    """Remove the indentation of a block's fence from its content."""
    item = ITEM.fullmatch(prefix)
    indent = " " * len(prefix) if item else prefix
    if indent and not indent.strip():
        content = re.sub(rf"^{indent}", "", content, flags=re.MULTILINE)
    return content.removeprefix(BOM)


def _closing(text: str, start: int, fence: str, language: str, names: Collection[str]) -> tuple[int, int]:
    """Return the end of a block's content and the end of its closing fence; without one, both are the text's end."""
    if language in PYTHON or not language:
        found = _python_closing(text, start, fence, names)
        if found is not None:
            return found
    for pattern in (FENCE_LINE, FENCE_AT_END):
        for mark in pattern.finditer(text, start):
            if not _closes(mark[1], fence):
                continue
            line = text[text.rfind("\n", 0, mark.start(1)) + 1 : mark.start(1)]
            if pattern is FENCE_AT_END and (COMMENT.match(line) or "```" in line):
                continue
            return _without_indent(text, start, mark.start(1)), mark.end()
    return len(text), len(text)


def _python_closing(text: str, start: int, fence: str, names: Collection[str]) -> tuple[int, int] | None:
    """Find the closing fence of Python outside strings and comments; None if that cannot be decided."""
    mark = _first_fence(text, start, fence)
    if mark is None:
        return None
    stop = _without_indent(text, start, mark.start())
    rest = text[mark.end() : text.find("\n", mark.end()) + 1 or len(text)]
    line_start = stop == start or text[stop - 1] == "\n"
    if line_start and rest.strip() and language_name(rest) in names and len(rest.split()) == 1:
        return stop, stop  # an unclosed block: the next one opens here
    lines = FENCE_LINE.finditer(text, start, mark.start())
    first = next((line for line in lines if _closes(line[1], fence)), None)
    if first is not None and not parses(text[start:stop].removeprefix(BOM)):
        return _without_indent(text, start, first.start(1)), first.end()
    return stop, mark.end()


def _first_fence(text: str, start: int, fence: str) -> re.Match[str] | None:
    """Find the first fence outside strings and comments that is at least as long as the opening one."""
    position, limit = start, min(len(text), start + LONGEST_LEXED)
    while (token := TOKEN.search(text, position, limit)) is not None:
        position = token.end()
        if token["triple"]:
            end = TRIPLE_END[token["triple"]].match(text, position, limit)
            if end is None:
                return None
            position = end.end()
        elif token["fence"] and _closes(token["fence"], fence):
            before = text[text.rfind("\n", 0, token.start()) + 1 : token.start()]
            if fence[0] == "`" or not before.strip():
                return token
    return None


def _closes(mark: str, fence: str) -> bool:
    return mark[0] == fence[0] and len(mark) >= len(fence)


def _without_indent(text: str, start: int, stop: int) -> int:
    """Return the start of the fence's line if only blanks and quote marks precede it, else the fence's position."""
    line = max(start, text.rfind("\n", 0, stop) + 1)
    return stop if text[line:stop].strip(" \t>") else line
