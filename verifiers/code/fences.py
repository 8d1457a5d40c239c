"""The fenced blocks of a completion, as models write them: behind prose, quoted, in lists, closed behind the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from typing import NamedTuple

from verifiers.answers.find import strip_thinking

PYTHON = ("python", "py", "python3", "py3", "pypy", "pypy3", "cpython", "cpython3")
"""Names under which a fence announces Python 3."""
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
"""Characters of a block that are read as Python, to tell its fences from those in its strings."""


class Block(NamedTuple):
    """A fenced block."""

    language: str
    """As its fence says, in lower case; empty where it says nothing."""
    content: str


class Span(NamedTuple):
    """Where a block lies in a text."""

    block: Block
    start: int
    end: int
    closed: bool


def fenced_blocks(text: str, names: Collection[str] = PYTHON) -> list[Block]:
    """Every fenced block in order, without the indentation or the quoting of its fence; a last one may be unclosed.

    A fence behind prose opens a block where it names a language and the line ends, or where it stands alone behind a
    colon. A fence inside a string of Python closes nothing.

    Args:
        text: a completion, without what is only thought.
        names: of languages that a fence behind prose may announce.

    Example:
        >>> fenced_blocks("so:\\n```python\\nx = 1\\n```\\nprints\\n```\\n1\\n```")
        [Block(language='python', content='x = 1\\n'), Block(language='', content='1\\n')]
    """
    return [span.block for span in _spans(text, names)]


def without_thinking(completion: str, names: Collection[str] = PYTHON) -> str:
    """The completion outside its thinking; a thinking tag inside a string or comment of a program is no such tag.

    Example:
        >>> without_thinking("<think>a</think>```python\\nx = '<think>'\\n```")
        "```python\\nx = '<think>'\\n```"
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
    """The language that the text behind a fence names, in lower case, or nothing.

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
    """Whether a text is Python."""
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _tags_are_text(block: Block) -> bool:
    """Whether what looks like a thinking tag in a block is part of its program."""
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
    """Whether a fence opens a block: at the start of a line (of a quote, of a list's item) it does."""
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
    """(what the quote that begins at a line says, its end), or None where its next line is no part of it."""
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
    """A block's content without the indentation of its fence."""
    item = ITEM.fullmatch(prefix)
    indent = " " * len(prefix) if item else prefix
    if indent and not indent.strip():
        content = re.sub(rf"^{indent}", "", content, flags=re.MULTILINE)
    return content.removeprefix(BOM)


def _closing(text: str, start: int, fence: str, language: str, names: Collection[str]) -> tuple[int, int]:
    """(end of a block's content, end of its closing fence); both the text's end where there is none."""
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
    """The closing fence of Python, wherever it stands outside strings and comments; None where it cannot be told."""
    mark = _first_fence(text, start, fence)
    if mark is None:
        return None
    stop = _without_indent(text, start, mark.start())
    rest = text[mark.end() : text.find("\n", mark.end()) + 1 or len(text)]
    line_start = stop == start or text[stop - 1] == "\n"
    if line_start and rest.strip() and language_name(rest) in names and len(rest.split()) == 1:
        return stop, stop  # the next block opens where this one was left
    lines = FENCE_LINE.finditer(text, start, mark.start())
    first = next((line for line in lines if _closes(line[1], fence)), None)
    if first is not None and not parses(text[start:stop].removeprefix(BOM)):
        return _without_indent(text, start, first.start(1)), first.end()
    return stop, mark.end()


def _first_fence(text: str, start: int, fence: str) -> re.Match[str] | None:
    """The first fence outside strings and comments that is as long as the opening one."""
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
    """The start of the line where only blanks and quotes stand before a fence, else the fence's own place."""
    line = max(start, text.rfind("\n", 0, stop) + 1)
    return stop if text[line:stop].strip(" \t>") else line
